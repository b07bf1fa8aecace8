"""What applying tenants, their keys, principals, their roles and issuers would change."""

from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import (
    IssuerObject,
    KeyObject,
    PrincipalObject,
    RoleBindingObject,
    TenantObject,
)
from pilotage.cli.objects.step import (
    CHANGED,
    CREATED,
    UNCHANGED,
    Step,
    There,
    compare,
    plan_settings,
    post,
)
from pilotage.cli.session import at, collect
from pilotage.core.duration import parse_duration_us

PROFILE = ("display_name", "email")
KEY_SCOPE = ("may_name_users", "aliases", "operations")
TENANT_FIELDS = (
    "time_zone",
    "regions",
    "features",
    "data_class",
    "shows",
    "log_percent",
    "measure_percent",
    "sample_percent",
    "keeps_comments",
)


async def plan_tenant(there: There, document: Document, tenant: TenantObject) -> Step:
    """Return the step of a tenant."""
    path = at("tenants", tenant.name)
    found = await there.find(document, path)
    if found is None:
        body = {"name": tenant.name} | tenant.settings
        return Step(document=document, result=CREATED, act=post(there, document, "/tenants", body))
    return plan_settings(there, document, path, found, tenant.settings, TENANT_FIELDS)


async def plan_key(there: There, document: Document, key: KeyObject) -> Step:
    """Return the step of a key; one of its name that is active stays as it is."""
    tenant = await there.find(document, at("tenants", key.tenant))
    if tenant is None and not there.will_make("Tenant", document, key.tenant):
        raise document.refuse(
            f"there is no tenant {key.tenant!r}", "Add a document of kind Tenant."
        )
    keys = [] if tenant is None else await there.list(document, "/keys", tenant=key.tenant)
    found = [item for item in keys if item["name"] == key.name and item["state"] == "active"]
    if found:
        for name in KEY_SCOPE:
            if found[-1][name] != key.body[name]:
                problem = f"{name}: it is there already, with {found[-1][name]!r}"
                raise document.refuse(problem, "Keys never change: revoke it, or name another.")
        return Step(document=document, result=UNCHANGED)
    step = Step(document=document, result=CREATED)

    async def act() -> None:
        made = await there.control.post("/keys", key.body, project=document.project)
        step.secret = made["secret"]

    step.act = act
    return step


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


async def plan_issuer(there: There, document: Document, issuer: IssuerObject) -> Step:
    """Return the step of an issuer; its times and projects are compared as the API shows them."""
    path = at("issuers", issuer.name)
    found = await there.control.find(path)
    if found is None:

        async def create() -> None:
            await there.control.post("/issuers", {"name": issuer.name} | issuer.body)

        return Step(document=document, result=CREATED, act=create)
    projects = {item["name"]: item["id"] for item in await collect(there.control, "/projects")}
    differences = compare(_by_group(found), _by_group(_show(issuer, projects)))
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def change() -> None:
        now = await there.control.get(path)
        await there.control.put(path, issuer.body, rev=now["rev"])

    return Step(document=document, result=CHANGED, differences=differences, act=change)


def _show(issuer: IssuerObject, projects: dict[str, str]) -> dict[str, Any]:
    """Return an issuer as the API shows it."""
    shown = issuer.body
    for field in ("skew", "max_age"):
        shown[f"{field}_s"] = parse_duration_us(shown.pop(field)) / 1_000_000
    for item in shown["roles"]:
        project = item.pop("project")
        item["project_id"] = None if project is None else projects.get(project, project)
    return shown


def _by_group(issuer: dict[str, Any]) -> dict[str, Any]:
    """Return an issuer with its roles in one order."""
    roles = sorted(
        issuer["roles"], key=lambda item: (item["group"], item["role"], item["project_id"] or "")
    )
    return issuer | {"roles": roles}


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
