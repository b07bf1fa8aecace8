"""Shares of traffic: whom a split names, and what is left for others. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pilotage.core.errors import PilotageError

POINTS = 10_000  # basis points of all traffic
_PERCENT = 100  # basis points


class Move(NamedTuple):
    """All traffic is the baseline's, and the candidate is to get ``percent``: both by id."""

    baseline: str
    candidate: str
    percent: float


def find_deployed(deployments: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the id of a deployed model: by its id, its NAME@VERSION, or its name.

    Raises ``not_found``, or ``conflict`` where several versions of the name are deployed.
    """
    for item in deployments:
        if name in {item["id"], item["model"]}:
            return str(item["id"])
    found = [item for item in deployments if item["model"].partition("@")[0] == name]
    if not found:
        known = ", ".join(item["model"] for item in deployments) or "none"
        raise PilotageError(
            "not_found", f"No model {name!r} is deployed.", hint=f"There are: {known}."
        )
    if len(found) > 1:
        raise PilotageError(
            "conflict",
            f"Several versions of {name!r} are deployed.",
            hint=f"Name one: {', '.join(item['model'] for item in found)}.",
        )
    return str(found[0]["id"])


def make_room(
    deployments: Sequence[Mapping[str, Any]], newcomer: str, percent: float
) -> dict[str, str]:
    """Return the split in which a newcomer has its percentage and the others share what is left.

    They keep their proportions; roundings go to who has most. Raises ``invalid_request`` where
    nobody is there to take the rest.
    """
    wanted = round(percent * _PERCENT)
    others = {
        item["id"]: round(item["percent"] * _PERCENT)
        for item in deployments
        if item["percent"] and item["id"] != newcomer
    }
    left = POINTS - wanted
    if not 0 <= wanted <= POINTS or (left and not others):
        raise PilotageError(
            "invalid_request",
            f"{percent:g} % leaves traffic that nobody takes."
            if 0 <= wanted <= POINTS
            else f"{percent:g} % is no share of traffic.",
            hint="The first model of an endpoint takes all of it: 100.",
            param="traffic_percentage",
        )
    split = {newcomer: wanted}
    if others:
        total = sum(others.values())
        split |= {name: points * left // total for name, points in others.items()}
        most = max(others, key=lambda name: others[name])
        split[most] += POINTS - sum(split.values())
    return {name: f"{points / _PERCENT:.10g}" for name, points in split.items() if points}


def find_move(deployments: Sequence[Mapping[str, Any]], splits: Mapping[str, float]) -> Move:
    """Return who gets traffic of whom: what a rollout is about.

    ``splits`` is by id. Raises ``conflict`` unless one model has all the traffic now, and
    ``invalid_request`` unless one other shall get some.
    """
    baselines = [item["id"] for item in deployments if item["percent"] == _PERCENT]
    if not baselines:
        raise PilotageError(
            "conflict",
            "Traffic is shared already: nobody could be gone back to.",
            hint="Give all of it to one model first, with the strategy SINGLE.",
        )
    candidates = [name for name, share in splits.items() if share and name != baselines[0]]
    if len(candidates) != 1:
        raise PilotageError(
            "invalid_request",
            "A rollout has one candidate beside the model that has all the traffic.",
            hint="Use the strategy AB_TEST for a fixed split between several.",
            param="splits",
        )
    return Move(baselines[0], candidates[0], splits[candidates[0]])
