"""What a plan can show, how long it will take, and what would help: forecasts for people. Pure.

A forecast rests on what is known of the baseline and on the formulas of :mod:`core.gates.power`,
which are about shares of bad units. For gates that compare values there is none: they say nothing
here, and their looks say more once they have counted.
"""

import math
from collections.abc import Iterator

from pilotage.core.duration import format_duration
from pilotage.core.gates import power
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.rollouts.rules import HORIZON_S
from pilotage.rollouts.types import (
    TAKEN_WARM,
    Cause,
    Forecast,
    Gate,
    GateKind,
    Judgement,
    Known,
    Plan,
    Signal,
    Step,
    Strategy,
    Unit,
    Verdict,
)

SLOW_SHARE = 0.05  # of the baseline's units lie above its own 95th percentile
RARE = 0.001  # the share of bad units that is assumed of what nobody has seen yet
MUCH_LEFT_OUT = 0.2  # of a step's calls
_NEEDS = {
    Signal.TTFT: "it has counted too little: only streams have a first content.",
    Signal.FEEDBACK: "it has counted too little: people have to score answers of both arms.",
}
_NEEDS_CALLS = "it has counted too little of one arm."
_HANGS = (
    "Too many of the candidate's calls are open, compared with the baseline's, and all that time: "
    "some may never end, or they take that much longer. If they may, promote by hand."
)
_WAITS = "A rollout waits for each of its gates: promote by hand, or begin again without it."
SMALL = 200  # basis points: a step of less finds catastrophes only


def forecast(plan: Plan, known: Known) -> tuple[Forecast, ...]:
    """Return for each step and gate of events what it takes to pass, and to find what is worse."""
    return tuple(
        _forecast(plan, number, step, gate, known)
        for number, step in enumerate(plan.steps)
        for gate in plan.gates
        if gate.kind is GateKind.EVENTS and 0 < step.weight < FULL_WEIGHT
    )


def advise(plan: Plan, known: Known) -> tuple[str, ...]:
    """Return what somebody should know before a rollout begins."""
    return tuple(_list_advice(plan, known))


def advise_at_look(plan: Plan, judged: Judgement) -> tuple[str, ...]:
    """Return what makes a step take long, and what would help if it is too long."""
    return tuple(_list_obstacles(plan, judged))


def _list_obstacles(plan: Plan, judged: Judgement) -> Iterator[str]:
    is_taken_warm = any(gate.signal in TAKEN_WARM for gate in plan.gates)
    if judged.left_out > MUCH_LEFT_OUT and is_taken_warm:
        yield (
            f"{judged.left_out:.0%} of the step's calls say nothing of times and costs: a replica "
            "of either arm was cold. As many replicas all the time would help."
        )
    if judged.verdict is not Verdict.UNDERPOWERED:
        return
    if judged.cause is Cause.HANGING:
        yield _HANGS
    empty = {
        look.gate for look in judged.looks if not min(look.candidate_units, look.baseline_units)
    }
    for gate in plan.gates:
        if gate.name in judged.gates and gate.name in empty:
            yield f"{gate.name}: {_NEEDS.get(gate.signal, _NEEDS_CALLS)} {_WAITS}"
    slow = ", ".join(name for name in judged.gates if name not in empty)
    if slow:
        yield f"{slow}: at this rate there is not enough time to show it. {_help(plan)}"


def _forecast(plan: Plan, number: int, step: Step, gate: Gate, known: Known) -> Forecast:
    share, base = step.weight / FULL_WEIGHT, _guess_base(gate, known)
    alpha = plan.risk.promote / (2 if gate.limit is not None else 1)
    fine = power.count_units_to_show_not_worse(share, base, gate.margin, alpha)
    if gate.limit is not None and base < gate.limit:
        fine = min(fine, power.count_clean_units(gate.limit, alpha) / share)
    ratio = 1 + gate.margin
    risk = plan.risk.roll_back / len(plan.gates)
    worse = power.count_units_to_show_worse(share, base, ratio, risk)
    return Forecast(
        step=number,
        gate=gate.name,
        units_to_pass=math.ceil(fine),
        pass_s=fine / known.calls_s if known.calls_s else None,
        ratio=ratio,
        units_to_find=math.ceil(worse),
        find_s=worse / known.calls_s if known.calls_s else None,
    )


def _guess_base(gate: Gate, known: Known) -> float:
    """Return the share of bad units that a gate will meet."""
    if gate.signal in (Signal.LATENCY, Signal.TTFT):
        return SLOW_SHARE
    if gate.signal is Signal.ERROR and known.error_share:
        return known.error_share
    return RARE


def _list_advice(plan: Plan, known: Known) -> Iterator[str]:
    if plan.strategy in (Strategy.BLUE_GREEN, Strategy.DIRECT):
        yield "All traffic moves at once: no gate compares anything, and nobody is spared."
        return
    if plan.unit in (Unit.USER, Unit.TENANT):
        yield f"Units are dealt by {plan.unit}: they are fewer than calls, so it takes longer."
    if not known.calls_s:
        yield "Nothing is known of the endpoint's traffic: how long it takes cannot be foretold."
    if plan.strategy is Strategy.SHADOW:
        yield "Copies are compared by their answers: nothing is said of errors under real load."
        return
    yield from _list_gaps(plan, known)
    for number, step in enumerate(plan.steps):
        if 0 < step.weight < SMALL:
            yield f"Step {number}: {step.weight / 100:g} % of traffic finds catastrophes only."
    yield from _list_slow(plan, known)


def _list_gaps(plan: Plan, known: Known) -> Iterator[str]:
    """Yield what the plan's gates do not see, and which of them may never see anything."""
    names = {gate.name for gate in plan.gates}
    if "slow" not in names:
        yield "There is no gate for slow calls: give slow a limit in time, over."
    if "cost" not in names:
        yield "There is no gate for cost: give cost a cap, what few calls cost more than."
    if known.stream_share == 0 and names & {"ttft", "slow_ttft"}:
        yield "No call of the last day was a stream: a gate of ttft would wait for ever."
    if "feedback" in names:
        yield "No step ends before people have scored enough answers of both arms: feedback waits."


def _list_slow(plan: Plan, known: Known) -> Iterator[str]:
    """Yield the gates that will not have shown anything when their step is over, or in a week."""
    for item in forecast(plan, known):
        most_us = plan.steps[item.step].most_us
        if item.pass_s is None or item.pass_s <= (most_us / 1e6 or HORIZON_S):
            continue
        ends = f", and the step ends after {format_duration(most_us)}" if most_us else ""
        yield (
            f"Step {item.step}: {item.gate} needs about {item.units_to_pass:,} units, "
            f"{_write_s(item.pass_s)}{ends}. {_help(plan)}"
        )


def _help(plan: Plan) -> str:
    finer = "" if plan.unit is Unit.CALL else ", a finer unit"
    return f"A greater weight, a greater margin, a limit{finer} or more time would help."


def _write_s(seconds: float) -> str:
    return format_duration(round(seconds / 60) * 60_000_000 or 60_000_000)
