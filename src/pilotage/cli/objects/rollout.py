"""What applying a rollout would change: nothing, where the endpoint's newest is the same one."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds.rollout import GatePart, RolloutObject, StepPart
from pilotage.cli.objects.step import CREATED, UNCHANGED, Step, There
from pilotage.cli.rollout_text import ENDED
from pilotage.cli.session import at_endpoint
from pilotage.core.duration import parse_duration_us

WHOLE = 100.0


async def plan_rollout(there: There, document: Document, rollout: RolloutObject) -> Step:
    """Return the step of a rollout; raise ``invalid_request`` if it cannot begin.

    A rollout that runs or has ended with the same content is not begun again: give another reason
    to try once more.
    """
    found = await there.find(document, at_endpoint(rollout.endpoint))
    if found is None:
        if not there.will_make("Endpoint", document, rollout.endpoint):
            raise document.refuse(
                f"endpoint: there is no endpoint {rollout.endpoint!r}",
                "Add a document of kind Endpoint.",
            )
    elif await _is_settled(there, document, rollout, found):
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.post("/rollouts", rollout.body, project=document.project)

    return Step(document=document, result=CREATED, act=act)


def is_same(rollout: RolloutObject, found: Mapping[str, Any]) -> bool:
    """Say whether a rollout of the API is the one that a document asks for."""
    plan = found["plan"]
    said = [
        (rollout.reason, found["reason"]),
        (rollout.strategy, plan["strategy"]),
        (rollout.unit, plan["unit"]),
        (rollout.goal, plan["goal"]),
    ]
    if rollout.candidate not in {found["candidate"], found["candidate"].partition("@")[2]}:
        return False
    if any(wanted != now for wanted, now in said):
        return False
    if rollout.daily and Decimal(rollout.daily) != Decimal(plan["daily"] or 0):
        return False
    for name in ("ready_within", "keep_warm"):
        wanted = getattr(rollout, name)
        if wanted and not _is_same_time(wanted, plan[name]):
            return False
    return _has_steps(rollout.steps, plan["steps"]) and _has_gates(rollout.stated, plan["gates"])


async def _is_settled(
    there: There, document: Document, rollout: RolloutObject, endpoint: Mapping[str, Any]
) -> bool:
    """Say whether nothing is left to do; raise ``invalid_request`` where another one runs."""
    found = await there.list(document, "/rollouts", endpoint=rollout.endpoint)
    if any(is_same(rollout, item) for item in found):  # what went back is not begun once more
        return True
    newest = found[0] if found else None
    if newest is not None and newest["state"] not in ENDED:
        raise document.refuse(
            f"another rollout runs: {newest['id']}",
            f'End it first: pilotage rollout rollback {newest["id"]} --reason "..."',
        )
    shares = {item["model"]: item["percent"] for item in endpoint["deployments"]}
    return bool(shares.get(rollout.candidate) == WHOLE)


def _has_steps(wanted: list[StepPart], now: list[dict[str, Any]]) -> bool:
    """Say whether a plan has the steps that a document names; without any, they are as usual."""
    steps = [step for step in wanted if _read_share(step.weight or "0") != WHOLE]
    if not wanted:
        return True
    return len(steps) == len(now) and all(
        _is_same_step(step, there) for step, there in zip(steps, now, strict=True)
    )


def _is_same_step(wanted: StepPart, now: Mapping[str, Any]) -> bool:
    is_heavy = not wanted.weight or _read_share(wanted.weight) == _read_share(now["weight"])
    is_long = not wanted.at_least or _is_same_time(wanted.at_least, now["at_least"])
    is_bounded = _is_same_time(wanted.at_most, now["at_most"])
    return is_heavy and is_long and is_bounded and wanted.approval == now["approval"]


def _has_gates(wanted: Mapping[str, GatePart | None], now: Mapping[str, Mapping[str, str]]) -> bool:
    for name, gate in wanted.items():
        if (gate is None) == (name in now):
            return False
        if gate is not None and not _is_same_gate(gate.given, now[name]):
            return False
    return True


def _is_same_gate(wanted: Mapping[str, str], now: Mapping[str, str]) -> bool:
    for name, value in wanted.items():
        there = now.get(name, "")
        if name == "over":
            is_same = _is_same_time(value, there)
        elif name == "cap":
            is_same = bool(there) and Decimal(value) == Decimal(there)
        else:
            is_same = bool(there) and abs(_read_part(value) - _read_part(there)) < 1e-9
        if not is_same:
            return False
    return True


def _is_same_time(wanted: str, now: str) -> bool:
    return (parse_duration_us(wanted) if wanted else 0) == (parse_duration_us(now) if now else 0)


def _read_share(text: str) -> float:
    """Return a share of traffic in percent: ``5%`` and ``5`` are 5."""
    return float(text.strip().removesuffix("%"))


def _read_part(text: str) -> float:
    """Return ``20%`` and ``0.2`` as 0.2."""
    return _read_share(text) / (100 if text.strip().endswith("%") else 1)
