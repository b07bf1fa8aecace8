"""What applying the rules of the release path would change."""

from decimal import Decimal
from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import FreezeObject, GatePolicyObject, ReleasePolicyObject
from pilotage.cli.objects.step import CHANGED, CREATED, UNCHANGED, Step, There, compare
from pilotage.cli.session import at
from pilotage.kit.clock import parse_time

RELEASE_POLICY = "/release-policy"
_NUMBERS = ("min", "max", "tolerance_percent")


async def plan_gate_policy(there: There, document: Document, policy: GatePolicyObject) -> Step:
    """Return the step of what a stage asks."""
    path = at("gate-policies", policy.stage)
    checks = [item.settings for item in policy.checks]
    wanted = {
        "checks": [_plain(item) for item in checks],
        "approvals": policy.approvals,
    }
    found = await there.find(document, path)
    now = {} if found is None else found | {"checks": [_plain(item) for item in found["checks"]]}
    differences = compare(now, wanted)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.get(path, project=document.project)
        body = {"checks": checks, "approvals": policy.approvals}
        await there.control.put(path, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


async def plan_release_policy(
    there: There, document: Document, policy: ReleasePolicyObject
) -> Step:
    """Return the step of what may serve."""
    found = await there.find(document, RELEASE_POLICY)
    differences = compare(found or {}, policy.settings)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.get(RELEASE_POLICY, project=document.project)
        body = policy.settings
        await there.control.put(RELEASE_POLICY, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


async def plan_freeze(there: There, document: Document, freeze: FreezeObject) -> Step:
    """Return the step of a freeze; one that is there cannot become another."""
    found = await there.find(document, at("calendar", "freezes", freeze.name))
    if found is None:

        async def act() -> None:
            await there.control.post("/calendar/freezes", freeze.body, project=document.project)

        return Step(document=document, result=CREATED, act=act)
    differences = compare(_in_time(found), _in_time(freeze.body))
    if differences:
        raise document.refuse(
            f"{differences[0].field}: it is there already, and a freeze is never changed",
            f"Lift it first: pilotage calendar lift {freeze.name}",
        )
    return Step(document=document, result=UNCHANGED)


def _plain(check: dict[str, Any]) -> dict[str, Any]:
    """Return a check with its numbers as numbers: 2000 and 2000.0 are the same threshold."""
    return {
        name: Decimal(value) if name in _NUMBERS and value is not None else value
        for name, value in check.items()
    }


def _in_time(freeze: dict[str, Any]) -> dict[str, Any]:
    times = ("starts_at", "ends_at", "until")
    return {
        name: parse_time(value) if name in times and value is not None else value
        for name, value in freeze.items()
    }
