"""Plans of rollouts: read from what people write, with defaults, and written again. Pure.

What cannot be done as it is written is an error that names the setting; nothing is left out
silently.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd, parse_usd
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.types import LONGEST_AWAKE_US
from pilotage.rollouts.types import (
    Gate,
    GateKind,
    GateSpec,
    Known,
    Plan,
    PlanSpec,
    Signal,
    Step,
    StepSpec,
    Strategy,
    Unit,
)

MOST_STEPS = 20
LEAST_US = 60_000_000  # a step stands at least so long, unless somebody says otherwise
READY_US = 600_000_000
KEEP_WARM_US = 3_600_000_000  # the baseline of a blue-green rollout
DEAR = 8.0  # times the mean cost: few calls cost more
BEST_SCORE = 1_000_000.0  # feedback is in millionths
ANSWERS = "answers"
LEAST_MARGIN = 0.001
LEAST_MARGIN_OF_VALUES = 0.03  # they are known to 1.1 % in each arm
LEAST_LIMIT = 0.00001
_STEPS = (500, 2_500, 5_000)
_HALF = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usual:
    """What a gate of some name looks at, unless somebody says otherwise."""

    signal: Signal
    kind: GateKind
    margin: float
    limit: float | None = None
    is_default: bool = False


USUAL: Mapping[str, _Usual] = {
    "error": _Usual(
        signal=Signal.ERROR, kind=GateKind.EVENTS, margin=1.0, limit=0.01, is_default=True
    ),
    "lost": _Usual(
        signal=Signal.LOST, kind=GateKind.EVENTS, margin=1.0, limit=0.01, is_default=True
    ),
    "latency": _Usual(signal=Signal.LATENCY, kind=GateKind.RANKS, margin=0.2, is_default=True),
    "slow": _Usual(signal=Signal.LATENCY, kind=GateKind.EVENTS, margin=0.5, is_default=True),
    "ttft": _Usual(signal=Signal.TTFT, kind=GateKind.RANKS, margin=0.2),
    "slow_ttft": _Usual(signal=Signal.TTFT, kind=GateKind.EVENTS, margin=0.5),
    "cost": _Usual(signal=Signal.COST, kind=GateKind.MEANS, margin=0.2, is_default=True),
    "filtered": _Usual(signal=Signal.FILTERED, kind=GateKind.EVENTS, margin=1.0, limit=0.02),
    "feedback": _Usual(signal=Signal.FEEDBACK, kind=GateKind.MEANS, margin=0.2),
    ANSWERS: _Usual(signal=Signal.ANSWERS, kind=GateKind.PAIRS, margin=0.03),
}


def make_plan(spec: PlanSpec, known: Known) -> Plan:
    """Return the plan that somebody has written; raise ``invalid_request`` for what cannot be.

    ``known`` fills in what depends on the baseline: a gate that is usual, but cannot be set without
    what is known, is left out, one that was asked for is an error.
    """
    strategy = _choose(Strategy, spec.strategy, "strategy")
    if strategy is Strategy.SHADOW:
        return _make_shadow(spec)
    if spec.daily:
        raise _invalid("daily: only a shadow has copies to pay for.", "Leave it out.", "daily")
    if strategy in (Strategy.BLUE_GREEN, Strategy.DIRECT):
        return _make_switch(strategy, spec)
    gates = _make_gates(spec, known)
    plan = Plan(
        strategy=strategy,
        steps=_make_steps(strategy, spec.steps),
        gates=gates,
        unit=_choose(Unit, spec.unit, "unit"),
        ready_us=_read_duration(spec.ready_within, "ready_within", READY_US),
        keep_us=_read_keep(spec.keep_warm, 0),
        goal=_find_goal(strategy, spec.goal, gates),
    )
    if not gates:
        raise _invalid(
            "A rollout in steps needs a gate.",
            "Leave gates out for those that are usual, or use the strategy direct.",
            "gates",
        )
    return plan


def write_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as somebody would write all of it: JSON that makes the same plan again."""
    return {
        "strategy": plan.strategy.value,
        "steps": [_write_step(step) for step in plan.steps],
        "gates": {gate.name: _write_gate(gate) for gate in plan.gates},
        "unit": plan.unit.value,
        "ready_within": format_duration(plan.ready_us),
        "keep_warm": format_duration(plan.keep_us) if plan.keep_us else "",
        "goal": plan.goal,
        "daily": format_usd(plan.daily_nano) if plan.daily_nano else "",
    }


def write_ask(endpoint: str, candidate: str, spec: PlanSpec) -> str:
    """Return what was asked for as approvals name it: ``chat {"candidate":"tiny@1.1.0"}``.

    What is as usual is left out, so that there is one way to write each.
    """
    said: dict[str, Any] = {"candidate": candidate, **_leave_out(spec)}
    if spec.steps:
        said["steps"] = [_leave_out(step) for step in spec.steps]
    if spec.gates is not None:
        said["gates"] = {name: gate and _leave_out(gate) for name, gate in spec.gates.items()}
    return f"{endpoint} {json.dumps(said, sort_keys=True, separators=(',', ':'))}"


def read_ask(text: str) -> tuple[str, str, PlanSpec]:
    """Return the endpoint, the candidate and the plan that a text names; the reverse of it."""
    endpoint, _, content = text.strip().partition(" ")
    try:
        said = msgspec.json.decode(content, type=dict[str, Any])
        candidate = str(said.pop("candidate"))
        return endpoint, candidate, msgspec.convert(said, type=PlanSpec)
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as wrong:
        raise _invalid(
            f"{text[:80]!r} does not say what shall be rolled out: {wrong}",
            "The refused command prints the whole line that asks for it.",
            "subject",
        ) from None


def hash_ask(endpoint: str, candidate: str, spec: PlanSpec) -> str:
    """Return the fingerprint of what was asked for: the same words have the same one."""
    return hashlib.sha256(write_ask(endpoint, candidate, spec).encode()).hexdigest()


def read_part(text: str, param: str) -> float:
    """Return ``20%`` or ``0.2`` as 0.2; raise ``invalid_request`` for anything else.

    More than the whole is said in percent: a bare 20 would be 2,000 %.
    """
    number, percent = text.strip().removesuffix("%").strip(), text.strip().endswith("%")
    try:
        part = float(number) / (100 if percent else 1)
    except ValueError:
        part = -1.0
    if not 0 < part <= (1_000 if percent else 1):  # neither NaN nor infinity
        raise _invalid(f"{param}: {text[:40]!r} is no part.", "Write 20% or 0.2.", param)
    return part


def read_weight(text: str, param: str) -> int:
    """Return ``5%`` as 500 basis points; raise ``invalid_request`` for anything else."""
    try:
        points = float(text.strip().removesuffix("%")) * (FULL_WEIGHT // 100)
        weight = round(points)
    except (ValueError, OverflowError):
        points, weight = 0.0, -1
    if weight < 0 or weight > FULL_WEIGHT or abs(points - weight) > 1e-6:
        raise _invalid(
            f"{param}: {text[:40]!r} is no share of traffic.",
            "Write 5%, or 0.25%: steps of 0.01 %.",
            param,
        )
    return weight


def _make_switch(strategy: Strategy, spec: PlanSpec) -> Plan:
    """Return the plan of a switch of all traffic at once: there is nothing to compare with."""
    for name in ("steps", "gates", "goal"):
        if getattr(spec, name):
            raise _invalid(
                f"{name}: {strategy} moves all traffic at once, and compares nothing.",
                f"Leave {name} out, or use the strategy canary.",
                name,
            )
    _check_tosses_none(strategy, spec)
    if strategy is Strategy.DIRECT and spec.keep_warm:
        raise _invalid(
            "keep_warm: direct leaves the baseline as it is.",
            "Leave it out, or use the strategy blue_green.",
            "keep_warm",
        )
    usual = KEEP_WARM_US if strategy is Strategy.BLUE_GREEN else 0
    return Plan(
        strategy=strategy,
        steps=(),
        gates=(),
        ready_us=_read_duration(spec.ready_within, "ready_within", READY_US),
        keep_us=_read_keep(spec.keep_warm, usual),
    )


def _check_tosses_none(strategy: Strategy, spec: PlanSpec) -> None:
    if spec.unit != Unit.SESSION:
        raise _invalid(
            f"unit: {strategy} tosses no coin for callers.",
            "Leave unit out, or use the strategy canary.",
            "unit",
        )


def _make_shadow(spec: PlanSpec) -> Plan:
    """Return the plan of a rollout that copies calls and moves none: answers are compared."""
    for name in ("keep_warm", "goal"):
        if getattr(spec, name):
            raise _invalid(f"{name}: a shadow moves no traffic.", f"Leave {name} out.", name)
    _check_tosses_none(Strategy.SHADOW, spec)
    others = [name for name in spec.gates or {} if name != ANSWERS]
    if others:
        raise _invalid(
            f"gates.{others[0][:40]}: a shadow compares answers, by the gate answers alone.",
            "Leave it out; how copies fare otherwise is shown beside it.",
            f"gates.{others[0][:40]}",
        )
    if len(spec.steps) > 1:
        raise _invalid("steps: a shadow has one.", "Give the share of calls to copy.", "steps")
    said = (spec.gates or {}).get(ANSWERS) or GateSpec()
    usual = USUAL[ANSWERS]
    _check_fields(usual, said, f"gates.{ANSWERS}")
    margin = _read_margin(usual, said.margin, f"gates.{ANSWERS}.margin")
    if margin >= 1:
        raise _invalid(
            f"gates.{ANSWERS}.margin: {said.margin[:40]!r} is not below 100 %.",
            "Write 3%.",
            f"gates.{ANSWERS}.margin",
        )
    step = _make_step(spec.steps[0] if spec.steps else StepSpec(weight="100%"), 0)
    if not step.weight:
        raise _invalid("steps[0].weight: nothing would be copied.", "Write 10%.", "steps[0].weight")
    return Plan(
        strategy=Strategy.SHADOW,
        steps=(step,),
        gates=(Gate(name=ANSWERS, signal=usual.signal, kind=usual.kind, margin=margin),),
        ready_us=_read_duration(spec.ready_within, "ready_within", READY_US),
        daily_nano=_read_daily(spec.daily),
    )


def _read_daily(text: str) -> int:
    try:
        daily_nano = parse_usd(text) if text else 0
    except ValueError as wrong:
        raise _invalid(f"daily: {wrong}", "Write 5.", "daily") from None
    if daily_nano <= 0:
        raise _invalid(
            "daily: copies of calls cost what calls cost.",
            "Say how many USD they may cost a day: 5.",
            "daily",
        )
    return daily_nano


def _make_steps(strategy: Strategy, specs: tuple[StepSpec, ...]) -> tuple[Step, ...]:
    if len(specs) > MOST_STEPS:
        raise _invalid(f"A rollout has at most {MOST_STEPS} steps.", "", "steps")
    if strategy is Strategy.AB_TEST and len(specs) > 1:
        raise _invalid(f"steps: {strategy} has one.", "Give one step.", "steps")
    steps = tuple(_make_step(spec, number) for number, spec in enumerate(specs))
    if not steps:
        usual = (_HALF,) if strategy is Strategy.AB_TEST else _STEPS
        return tuple(Step(weight=weight, least_us=LEAST_US) for weight in usual)
    if steps[-1].weight == FULL_WEIGHT:
        _check_last(specs[-1])
        steps = steps[:-1]  # behind the last step the candidate has all traffic anyway
    weights = [0, *(step.weight for step in steps), FULL_WEIGHT]
    if not steps or sorted(set(weights)) != weights:
        raise _invalid(
            "steps: each needs a greater weight than the one before, above 0 % and below 100 %.",
            "Write [5%, 25%, 50%]: all traffic follows the last one.",
            "steps",
        )
    return steps


def _check_last(spec: StepSpec) -> None:
    if spec.at_least or spec.at_most or spec.approval:
        raise _invalid(
            "steps: a step of 100 % has no baseline to compare with, and ends at once.",
            "Give the step before it approval or more time, or use keep_warm.",
            "steps",
        )


def _make_step(spec: StepSpec, number: int) -> Step:
    param = f"steps[{number}]"
    least_us = _read_duration(spec.at_least, f"{param}.at_least", LEAST_US)
    most_us = _read_duration(spec.at_most, f"{param}.at_most", 0)
    if most_us and most_us <= least_us:
        raise _invalid(
            f"{param}.at_most: {spec.at_most} is not longer than at_least, "
            f"{format_duration(least_us)}.",
            "Give it more time, or leave it out: then the step has no end.",
            f"{param}.at_most",
        )
    weight = read_weight(spec.weight, f"{param}.weight") if spec.weight else 0
    return Step(weight=weight, least_us=least_us, most_us=most_us, needs_person=spec.approval)


def _make_gates(spec: PlanSpec, known: Known) -> tuple[Gate, ...]:
    asked = spec.gates or {}
    for name in asked:
        if name not in USUAL:
            raise _invalid(
                f"gates: there is no gate {name[:40]!r}.",
                f"There are: {', '.join(USUAL)}.",
                f"gates.{name[:40]}",
            )
        if name == ANSWERS:
            raise _invalid(
                "gates.answers: only a shadow has two answers to each call.",
                "Leave it out, or use the strategy shadow.",
                "gates.answers",
            )
    gates = []
    for name, usual in USUAL.items():
        said = asked.get(name)
        if name in asked and said is None:
            continue
        if said is None and not usual.is_default:
            continue
        gate = _make_gate(name, said, known)
        if gate is not None:
            gates.append(gate)
    return tuple(gates)


def _make_gate(name: str, said: GateSpec | None, known: Known) -> Gate | None:
    """Return a gate; None for a usual one that too little is known for."""
    usual, spec, param = USUAL[name], said or GateSpec(), f"gates.{name}"
    _check_fields(usual, spec, param)
    gate = Gate(
        name=name,
        signal=usual.signal,
        kind=usual.kind,
        margin=_read_margin(usual, spec.margin, f"{param}.margin"),
        limit=_read_limit(spec.limit, f"{param}.limit") if spec.limit else usual.limit,
    )
    if usual.kind is GateKind.MEANS:
        gate = replace(gate, cap=_find_cap(usual.signal, spec, known))
        if gate.cap:
            return gate
        _check_unasked(said, f"{param}.cap", "0.05 (USD)")
        return None
    if _has_threshold(usual):
        over_us = _read_duration(spec.over, f"{param}.over", 0)
        if not over_us and usual.signal is Signal.LATENCY:
            over_us = known.slow_us or 0
        gate = replace(gate, threshold=over_us)
        if over_us:
            return gate
        _check_unasked(said, f"{param}.over", "2s")
        return None
    return gate


def _check_fields(usual: _Usual, spec: GateSpec, param: str) -> None:
    """Raise for settings that a gate of this kind does not have."""
    has = {
        "limit": usual.kind is GateKind.EVENTS,
        "over": _has_threshold(usual),
        "cap": usual.signal is Signal.COST,
    }
    for name, is_there in has.items():
        if getattr(spec, name) and not is_there:
            raise _invalid(f"{param}.{name}: this gate has no {name}.", "Leave it out.", param)


def _has_threshold(usual: _Usual) -> bool:
    return usual.kind is GateKind.EVENTS and usual.signal in (Signal.LATENCY, Signal.TTFT)


def _find_cap(signal: Signal, spec: GateSpec, known: Known) -> float:
    """Return the greatest value that counts, 0 where nobody knows one."""
    if signal is not Signal.COST:
        return BEST_SCORE
    if not spec.cap:
        return DEAR * (known.mean_nano or 0.0)
    try:
        cap = parse_usd(spec.cap)
    except ValueError as wrong:
        raise _invalid(f"gates.cost.cap: {wrong}", "Write 0.05.", "gates.cost.cap") from None
    if cap <= 0:
        raise _invalid("gates.cost.cap: it has to be above 0.", "Write 0.05.", "gates.cost.cap")
    if known.mean_nano and cap < known.mean_nano:
        raise _invalid(
            f"gates.cost.cap: {spec.cap[:40]} is less than what a call costs on average, "
            f"{format_usd(known.mean_nano)}.",
            "Give one that few calls cost more than, or leave it out.",
            "gates.cost.cap",
        )
    return float(cap)


def _check_unasked(said: GateSpec | None, param: str, example: str) -> None:
    """Raise if somebody asked for a gate that needs a value which nobody knows."""
    if said is not None:
        raise _invalid(
            f"{param}: too few calls of the baseline are known to choose it.",
            f"Give it: {example}.",
            param,
        )


def _read_margin(usual: _Usual, text: str, param: str) -> float:
    """Return a margin that can be shown: equal arms have to be able to pass."""
    if not text:
        return usual.margin
    margin = read_part(text, param)
    has_values = usual.kind in (GateKind.RANKS, GateKind.MEANS)
    least = LEAST_MARGIN_OF_VALUES if has_values else LEAST_MARGIN
    if margin < least:
        raise _invalid(
            f"{param}: {text[:40]!r} is less than this gate can tell.",
            f"Write {least * 100:g}% or more.",
            param,
        )
    return margin


def _read_limit(text: str, param: str) -> float:
    limit = read_part(text, param)
    if not LEAST_LIMIT <= limit < 1:
        raise _invalid(
            f"{param}: {text[:40]!r} is not from {LEAST_LIMIT * 100:g}% to below 100%.",
            "Write 1%.",
            param,
        )
    return limit


def _find_goal(strategy: Strategy, goal: str, gates: tuple[Gate, ...]) -> str:
    names = [gate.name for gate in gates]
    if strategy is not Strategy.AB_TEST:
        if goal:
            raise _invalid("goal: only an ab_test has one.", "Leave it out.", "goal")
        return ""
    if goal not in names:
        raise _invalid(
            f"goal: {goal[:40]!r} is none of the experiment's gates.",
            f"Say which decides: {', '.join(names)}.",
            "goal",
        )
    return goal


def _read_keep(text: str, usual: int) -> int:
    keep_us = _read_duration(text, "keep_warm", usual)
    if keep_us > LONGEST_AWAKE_US:
        raise _invalid(
            f"keep_warm: {text[:40]} is longer than anything can be kept awake.",
            f"Write {format_duration(LONGEST_AWAKE_US)} or less.",
            "keep_warm",
        )
    return keep_us


def _read_duration(text: str, param: str, usual: int) -> int:
    if not text:
        return usual
    try:
        return parse_duration_us(text)
    except ValueError as wrong:
        raise _invalid(f"{param}: {wrong}", "Write 10m.", param) from None


_Choice = TypeVar("_Choice", Strategy, Unit)


def _choose(kind: type[_Choice], text: str, param: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise _invalid(f"{param}: {text[:40]!r} is none.", f"There are: {known}.", param) from None


def _write_step(step: Step) -> dict[str, Any]:
    return {
        "weight": f"{step.weight / 100:g}%",
        "at_least": format_duration(step.least_us),
        "at_most": format_duration(step.most_us) if step.most_us else "",
        "approval": step.needs_person,
    }


def _write_gate(gate: Gate) -> dict[str, str]:
    said = {"margin": f"{gate.margin * 100:g}%"}
    if gate.limit is not None:
        said["limit"] = f"{gate.limit * 100:g}%"
    if gate.threshold:
        said["over"] = format_duration(gate.threshold)
    if gate.kind is GateKind.MEANS and gate.signal is Signal.COST:
        said["cap"] = format_usd(round(gate.cap))
    return said


def _leave_out(spec: PlanSpec | StepSpec | GateSpec) -> dict[str, Any]:
    """Return the texts of a written thing that are not what they are if nobody says them."""
    fields = type(spec).__dataclass_fields__
    values = {name: getattr(spec, name) for name in fields if name not in ("steps", "gates")}
    return {name: value for name, value in values.items() if value != fields[name].default}


def _invalid(detail: str, hint: str, param: str) -> PilotageError:
    return PilotageError("invalid_request", detail, hint=hint, param=param)
