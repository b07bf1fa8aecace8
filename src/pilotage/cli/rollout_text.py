"""How a rollout reads: one line, its gates as a table, its forecasts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pilotage.cli.session import show_time

ENDED = frozenset({"promoted", "rolled_back", "failed"})
TOSSED = frozenset({"canary", "ab_test"})  # the strategies that deal calls by a coin
GATE_COLUMNS = (
    "gate", "#candidate", "#bad", "#baseline", "#bad", "#ratio", "#worse: E of", "#fine: E of",
    "#needed", "#eta", "says",
)  # fmt: skip
LARGEST = 30.0  # a logarithm above which evidence is only called great


def sum_up(rollout: Mapping[str, Any]) -> str:
    """Return where a rollout stands, in one line."""
    where = f"{rollout['candidate']} {rollout['percent']:g} %"
    rest = f"{rollout['baseline']} {100 - rollout['percent']:g} %"
    steps = len(rollout["plan"]["steps"])
    step = f", step {rollout['step'] + 1} of {steps}" if 0 <= rollout["step"] < steps else ""
    return f"{rollout['endpoint']}: {rollout['state'].replace('_', ' ')}{step}: {where}, {rest}"


def describe_look(look: Mapping[str, Any] | None) -> str:
    """Return what the last look said, in one line."""
    if look is None:
        return "No look yet."
    gates = f" ({', '.join(look['decided_by'])})" if look["decided_by"] else ""
    eta = f", about {write_time(look['eta_s'])} to go" if look["eta_s"] else ""
    verdict = f"{look['verdict']}: {look['cause']}".replace("_", " ")
    return f"{show_time(look['at'])}  {verdict}{gates}{eta}"


def list_gates(look: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Return a row for each gate of a look, by :data:`GATE_COLUMNS`."""
    return [_row(gate) for gate in (look or {"gates": []})["gates"]]


def describe_plan(plan: Mapping[str, Any]) -> dict[str, object]:
    """Return a plan as fields for people; what its strategy does not know is left out."""
    gates = "; ".join(f"{name} {_join(gate)}" for name, gate in plan["gates"].items())
    moves = plan["strategy"] != "shadow"
    known = {
        "strategy": plan["strategy"],
        "steps": ", ".join(map(_describe_step, plan["steps"])) or "all at once",
        "gates": gates or "none",
        "unit": plan["unit"] if plan["strategy"] in TOSSED else "",
        "ready within": plan["ready_within"],
        "keep warm": (plan["keep_warm"] or "no") if moves else "",
        "goal": plan["goal"],
        "daily": f"{plan['daily']} USD for copies" if plan["daily"] else "",
    }
    return {name: value for name, value in known.items() if value}


def write_evidence(worse: float, bound: float) -> str:
    """Return an e-value and its bound, which are given as logarithms."""
    return f"{_raise(worse)} of {_raise(bound)}"


def write_time(seconds: float | None) -> str:
    """Return a time to go as people read it, "" where it is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def count(number: float | None) -> str:
    """Return a number of units, "" where it is not known."""
    return "" if number is None else f"{number:,.0f}"


def _row(gate: Mapping[str, Any]) -> tuple[str, ...]:
    says = "worse" if gate["is_worse"] else "fine" if gate["is_fine"] else ""
    ratio = gate["ratio"]
    return (
        gate["gate"],
        count(gate["candidate_units"]),
        count(gate["candidate_bad"]),
        count(gate["baseline_units"]),
        count(gate["baseline_bad"]),
        "" if ratio is None else f"{ratio:.2f}",
        write_evidence(gate["worse"], gate["worse_bound"]),
        write_evidence(gate["fine"], gate["fine_bound"]),
        count(gate["needed"]),
        write_time(gate["eta_s"]),
        says,
    )


def _raise(logarithm: float) -> str:
    if logarithm > LARGEST:
        return f"1e{logarithm / math.log(10):.0f}"
    return f"{math.exp(logarithm):.3g}"


def _describe_step(step: Mapping[str, Any]) -> str:
    most = f" to {step['at_most']}" if step["at_most"] else ""
    person = ", then a person" if step["approval"] else ""
    return f"{step['weight']} for {step['at_least']}{most}{person}"


def _join(settings: Mapping[str, Any]) -> str:
    return " ".join(_pairs(settings))


def _pairs(settings: Mapping[str, Any]) -> Iterable[str]:
    return (f"{name} {value}" for name, value in settings.items())
