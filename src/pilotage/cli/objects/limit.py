"""What applying a limit would change."""

from typing import Any

from pilotage.cli.limits import repeat_limit
from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import LimitObject
from pilotage.cli.objects.step import CREATED, Step, There, plan_change, post
from pilotage.cli.session import at, at_endpoint

_EITHER = ("", "*")


async def plan_limit(there: There, document: Document, limit: LimitObject) -> Step:
    """Return the step of a limit; raise ``invalid_request`` if what it names is not there."""
    await _check_there(there, document, limit)
    path = at("limits", limit.name)
    found = await there.find(document, path)
    body = limit.settings
    if found is None:
        made = post(there, document, "/limits", {"name": limit.name} | body)
        return Step(document=document, result=CREATED, act=made)
    wanted = body | await _find_ids(there, document, limit)
    now = repeat_limit(found)
    moved = [
        name
        for name in ("measure", "per", "tenant", "key", "user", "endpoint")
        if now[name] != wanted[name]
    ]
    if moved:
        raise document.refuse(
            f"{moved[0]}: it is there already and counts something else",
            f"Delete it first, it counts anew then: pilotage limits delete {limit.name}",
        )
    return plan_change(there, document, path, now, wanted, found["rev"])


async def _check_there(there: There, document: Document, limit: LimitObject) -> None:
    """Raise ``invalid_request`` for a tenant, key or endpoint that is not there and not planned."""

    def is_settled(kind: str, name: str, title: str = "") -> bool:
        return name in _EITHER or there.will_make(kind, document, title or name)

    if (
        not is_settled("Tenant", limit.tenant)
        and await _find_tenant(there, document, limit) is None
    ):
        raise document.refuse(
            f"tenant: there is no tenant {limit.tenant!r}", "Add a document of kind Tenant."
        )
    key = f"{limit.tenant}/{limit.key}"
    if not is_settled("Key", limit.key, key) and not await _find_keys(there, document, limit):
        raise document.refuse(f"key: there is no key {key!r}", "Add a document of kind Key.")
    for name in ("endpoint", "downgrade_to"):
        endpoint = getattr(limit, name)
        if is_settled("Endpoint", endpoint):
            continue
        if await there.find(document, at_endpoint(endpoint)) is None:
            raise document.refuse(
                f"{name}: there is no endpoint {endpoint!r}", "Add a document of kind Endpoint."
            )


async def _find_tenant(
    there: There, document: Document, limit: LimitObject
) -> dict[str, Any] | None:
    return await there.find(document, at("tenants", limit.tenant))


async def _find_keys(there: There, document: Document, limit: LimitObject) -> list[str]:
    """Return the ids of the tenant's living keys of that name."""
    if await _find_tenant(there, document, limit) is None:
        return []
    keys = await there.list(document, "/keys", tenant=limit.tenant)
    return [
        key["id"]
        for key in keys
        if key["state"] == "active" and limit.key in {key["id"], key["name"]}
    ]


async def _find_ids(there: There, document: Document, limit: LimitObject) -> dict[str, str]:
    """Return the tenant and the key as the API shows them."""
    ids = {"tenant": limit.tenant, "key": limit.key}
    if limit.tenant not in _EITHER:
        tenant = await _find_tenant(there, document, limit)
        ids["tenant"] = tenant["id"] if tenant else limit.tenant
    if limit.key not in _EITHER:
        ids["key"] = ",".join(await _find_keys(there, document, limit))
    return ids
