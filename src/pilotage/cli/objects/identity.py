"""What applying principals and their roles would change."""

from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import PrincipalObject, RoleBindingObject
from pilotage.cli.objects.step import (
    CHANGED,
    CREATED,
    UNCHANGED,
    Step,
    There,
    compare,
)
from pilotage.cli.session import at, collect

PROFILE = ("display_name", "email")


async def plan_principal(there: There, document: Document, principal: PrincipalObject) -> Step:
    """Return the step of a user or a service account."""
    path = at("principals", principal.name)
    found = await there.control.find(path)
    if found is None:

        async def create() -> None:
            body = {"name": principal.name, "kind": principal.principal_kind}
            await there.control.post("/principals", body | principal.settings)

        return Step(document=document, result=CREATED, act=create)
    if found["kind"] != principal.principal_kind:
        raise document.refuse(f"type: it is there already, as {found['kind']}")
    differences = compare(found, principal.settings)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def change() -> None:
        now = await there.control.get(path)
        body = {name: now[name] for name in PROFILE} | principal.settings
        await there.control.put(path, body, rev=now["rev"])

    return Step(document=document, result=CHANGED, differences=differences, act=change)


async def plan_binding(there: There, document: Document, binding: RoleBindingObject) -> Step:
    """Return the step of a role; one that holds already stays as it is."""
    principal = await there.control.find(at("principals", binding.principal))
    if (
        principal is None
        and ("Principal", document.project, binding.principal) not in there.planned
    ):
        raise document.refuse(
            f"there is no principal {binding.principal!r}", "Add a document of kind Principal."
        )
    if principal is not None and await _holds(there, document, binding, principal):
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        body = {
            "principal": binding.principal,
            "role": binding.role,
            "project": None if binding.everywhere else document.project,
            "expires_in": binding.expires,
        }
        await there.control.post("/role-bindings", body)

    return Step(document=document, result=CREATED, act=act)


async def _holds(
    there: There, document: Document, binding: RoleBindingObject, principal: dict[str, Any]
) -> bool:
    """Say whether a principal has a role now, in the document's project or everywhere."""
    scope = None
    if not binding.everywhere:
        project = await there.control.find(at("projects", document.project))
        if project is None:
            return False
        scope = project["id"]
    bindings = await collect(there.control, "/role-bindings", principal=principal["id"])
    return any(
        (item["role"], item["project_id"], item["ended_at"]) == (binding.role, scope, None)
        for item in bindings
    )
