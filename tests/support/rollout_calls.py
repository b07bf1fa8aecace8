"""Calls of a rollout as a gateway writes them, and what they come to, counted once more by hand."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from pilotage.core.frames import Begun, Ended, Flag, Outcome
from pilotage.core.gates.types import Counts, Samples, Units, Values, Weight
from pilotage.core.sketch import Sketch
from pilotage.core.usage import Usage
from pilotage.rollouts.types import (
    Gate,
    GateKind,
    Plan,
    Progress,
    Rollout,
    Signal,
    State,
    Step,
    Strategy,
    Unit,
)

BASELINE, CANDIDATE = "dep_1", "dep_2"
ERRORS = Gate(name="error", signal=Signal.ERROR, kind=GateKind.EVENTS, margin=1.0, limit=0.01)
LOST = Gate(name="lost", signal=Signal.LOST, kind=GateKind.EVENTS, margin=1.0)
FILTERED = Gate(name="filtered", signal=Signal.FILTERED, kind=GateKind.EVENTS, margin=1.0)
SLOW = Gate(name="slow", signal=Signal.LATENCY, kind=GateKind.EVENTS, margin=0.5, threshold=900_000)
LATENCY = Gate(name="latency", signal=Signal.LATENCY, kind=GateKind.RANKS, margin=0.2)
TTFT = Gate(name="ttft", signal=Signal.TTFT, kind=GateKind.RANKS, margin=0.2)
COST = Gate(name="cost", signal=Signal.COST, kind=GateKind.MEANS, margin=0.2, cap=100_000.0)
FEEDBACK = Gate(name="feedback", signal=Signal.FEEDBACK, kind=GateKind.MEANS, margin=0.1, cap=1e6)
GATES = (ERRORS, LOST, FILTERED, SLOW, LATENCY, TTFT, COST)
_BAD = (Outcome.UPSTREAM_ERROR, Outcome.DEADLINE, Outcome.INTERNAL_ERROR, Outcome.REFUSED)


def make_rollout(
    *,
    weights: Sequence[int] = (1_000, 5_000),
    gates: tuple[Gate, ...] = GATES,
    step: int = 0,
    least_us: int = 0,
) -> Rollout:
    """Return a rollout that runs at one of its steps."""
    return Rollout(
        id="rol_1",
        rev=1,
        project_id="prj",
        endpoint_id="end_1",
        endpoint="chat",
        baseline_id=BASELINE,
        baseline="tiny@1.0.0",
        candidate_id=CANDIDATE,
        candidate="tiny@1.1.0",
        plan=Plan(
            strategy=Strategy.CANARY,
            steps=tuple(Step(weight=weight, least_us=least_us) for weight in weights),
            gates=gates,
            unit=Unit.SESSION,
        ),
        progress=Progress(state=State.RUNNING, step=step),
        reason="a test",
        created_by="usr_1",
        created_at_us=0,
        decision_id="dec_1",
    )


def toss(step_name: str, unit: str, weight: int) -> str:
    """Return the arm of a unit; arms lie side by side in the order of their ids."""
    digest = hashlib.sha256(f"{step_name}|{unit}".encode()).hexdigest()[:16]
    return BASELINE if int(digest, 16) / 2**64 < 1 - weight / 10_000 else CANDIDATE


@dataclass(slots=True)
class Dealer:
    """Writes the frames of made-up calls."""

    rollout: Rollout
    project_id: str = "prj"
    made: int = 0

    def begin(self, step: int, unit: str = "", **more: object) -> Begun:
        """Begin a call."""
        self.made += 1
        values: dict[str, object] = {
            "call_id": f"call_{self.made:06d}",
            "at_us": self.made,
            "project_id": self.project_id,
            "tenant_id": "ten_a",
            "key_id": "key",
            "alias": "chat",
            "wire": "chat",
            "is_stream": False,
            "worst_nano": 99_000,
            "snapshot_n": 1,
            "rollout": f"{self.rollout.id}/{step}",
            "unit": unit,
        }
        return Begun(**(values | more))  # type: ignore[arg-type]

    def end(self, begun: Begun, **more: object) -> Ended:
        """End a call as it was dealt; behind the last step the candidate has all of them."""
        step, steps = int(begun.rollout.partition("/")[2]), self.rollout.plan.steps
        weight = steps[step].weight if step < len(steps) else 10_000
        values: dict[str, object] = {
            "call_id": begun.call_id,
            "at_us": begun.at_us,
            "project_id": begun.project_id,
            "tenant_id": begun.tenant_id,
            "key_id": "key",
            "alias": "chat",
            "outcome": Outcome.OK,
            "status": 200,
            "usage": Usage(input=10, output=20),
            "cost_nano": 1_000,
            "is_estimated": False,
            "duration_us": 300_000,
            "ttft_us": 100_000,
            "chunks": 1,
            "attempts": 1,
            "finish_reason": "stop",
            "is_stream": begun.is_stream,
            "rollout": begun.rollout,
            "unit": begun.unit,
            "assigned": toss(begun.rollout, begun.unit or begun.call_id, weight),
        }
        return Ended(**(values | more))  # type: ignore[arg-type]

    def call(self, step: int, unit: str = "", **more: object) -> tuple[Begun, Ended]:
        """Begin and end a call."""
        begun = self.begin(step, unit)
        return begun, self.end(begun, **more)


def make_random_calls(
    dealer: Dealer, rng: Random, count: int, *, units: int = 0, steps: int = 2, strays: bool = True
) -> list[Begun | Ended]:
    """Return so many calls of all kinds; without ``units`` each is a unit of its own.

    With ``strays`` some go elsewhere than their coin says.
    """
    frames: list[Begun | Ended] = []
    for number in range(count):
        unit = f"unit_{rng.randrange(units)}" if units and rng.random() < 0.9 else ""
        begun = dealer.begin(number * steps // count, unit)
        draw = rng.random()
        more: dict[str, object] = {
            "duration_us": int(rng.lognormvariate(13, 0.8)),
            "ttft_us": int(rng.lognormvariate(11, 0.8)) if rng.random() < 0.5 else -1,
            "cost_nano": rng.choice((0, rng.randrange(1, 100_000))),
        }
        if draw < 0.1:
            more["outcome"] = rng.choice(_BAD)
        elif draw < 0.15:
            more |= {"outcome": Outcome.LOST, "assigned": "", "duration_us": -1, "ttft_us": -1}
        elif draw < 0.2:
            more["finish_reason"] = rng.choice(("content_filter", "refusal", "length", ""))
        elif draw < 0.25:
            more["flags"] = [rng.choice((Flag.WARMING, Flag.SHADOW, Flag.PROBE, Flag.COLD)).value]
        elif draw < 0.28 and strays:
            more["assigned"] = rng.choice(("", CANDIDATE, BASELINE, "dep_3"))
        elif draw < 0.3:
            more["outcome"] = rng.choice((Outcome.CLIENT_GONE, Outcome.CANCELLED))
            more |= {"is_stream": True, "ttft_us": -1, "finish_reason": ""}
        frames += [begun, dealer.end(begun, **more)]
    return frames


@dataclass(slots=True)
class Recount:
    """What frames come to, in the order in which they come; slow, and simple."""

    units: Counts = field(default_factory=dict)
    bad: Counts = field(default_factory=dict)
    values: Samples = field(default_factory=dict)


def count_dealt(rollout: Rollout, frames: Iterable[Begun | Ended]) -> Counts:
    """Return the units that each arm was dealt, each at each step once, where they really went."""
    arm_of: dict[tuple[str, str], str] = {}
    settled: set[tuple[str, str]] = set()
    for frame in frames:
        weight = _find_weight(rollout, frame)
        key = (frame.rollout, frame.unit or frame.call_id)
        if weight is None or (isinstance(frame, Ended) and Flag.SHADOW in frame.flags):
            continue
        coin = toss(*key, weight)
        if isinstance(frame, Begun):
            arm_of.setdefault(key, coin)
        elif (
            frame.assigned in (BASELINE, CANDIDATE)
            and frame.assigned != coin
            and Flag.PROBE not in frame.flags
            and key not in settled
        ):
            settled.add(key)
            arm_of[key] = frame.assigned
    found: dict[Weight, list[int]] = defaultdict(lambda: [0, 0])
    for (step_name, _), arm in arm_of.items():
        weight = rollout.plan.steps[int(step_name.partition("/")[2])].weight
        found[Weight(weight, 10_000 - weight)][arm == BASELINE] += 1
    return {weight: Units(*pair) for weight, pair in found.items()}


def count_calls(rollout: Rollout, frames: Iterable[Begun | Ended]) -> tuple[Counts, Counts]:
    """Return the calls that began and those that ended, by the arm that their coin says."""
    found: tuple[dict[Weight, list[int]], ...] = (
        defaultdict(lambda: [0, 0]),
        defaultdict(lambda: [0, 0]),
    )
    for frame in frames:
        weight, has_ended = _find_weight(rollout, frame), isinstance(frame, Ended)
        made_up = {Flag.SHADOW.value, Flag.PROBE.value}
        if weight is not None and not (isinstance(frame, Ended) and made_up & set(frame.flags)):
            arm = toss(frame.rollout, frame.unit or frame.call_id, weight)
            found[has_ended][Weight(weight, 10_000 - weight)][arm == BASELINE] += 1
    begun, ended = ({weight: Units(*pair) for weight, pair in side.items()} for side in found)
    return begun, ended


def recount(
    rollout: Rollout, gate: Gate, frames: Iterable[Begun | Ended], step: int = -1
) -> Recount:
    """Count everything anew for one gate; of one step, or (-1) of all."""
    seen: set[tuple[str, str]] = set()
    was_bad: set[str] = set()
    rows: list[tuple[int, int, bool, int, bool, int]] = []
    reference = 0
    for frame in frames:
        weight = _find_weight(rollout, frame)
        if weight is None or isinstance(frame, Begun):
            continue
        if {Flag.SHADOW.value, Flag.PROBE.value} & set(frame.flags):
            continue
        if Flag.WARMING in frame.flags and gate.name in ("slow", "latency", "ttft", "cost"):
            continue
        unit = frame.unit or frame.call_id
        arm = frame.assigned
        if frame.outcome is Outcome.LOST and not arm:
            arm = toss(frame.rollout, unit, weight)
        value = _read(gate, frame)
        if value is None or arm not in (BASELINE, CANDIDATE):
            continue
        is_new = (frame.rollout, unit) not in seen
        is_bad = gate.kind is GateKind.EVENTS and value > gate.threshold
        if unit in was_bad or not (is_new or is_bad):
            continue
        seen.add((frame.rollout, unit))
        if is_bad:
            was_bad.add(unit)
        if gate.kind is GateKind.RANKS and reference < 200:
            reference += arm == BASELINE
            continue
        number = int(frame.rollout.partition("/")[2])
        rows.append((number, weight, arm == CANDIDATE, int(is_new), is_bad, value))
    return _sum_up(gate, [row for row in rows if step in (-1, row[0])])


def _sum_up(gate: Gate, rows: Sequence[tuple[int, int, bool, int, bool, int]]) -> Recount:
    units: dict[Weight, Units] = {}
    bad: dict[Weight, Units] = {}
    values: dict[Weight, Values] = {}
    for points in sorted({row[1] for row in rows}):
        weight = Weight(points, 10_000 - points)
        mine = [row for row in rows if row[1] == points and row[2]]
        theirs = [row for row in rows if row[1] == points and not row[2]]
        units[weight] = Units(sum(row[3] for row in mine), sum(row[3] for row in theirs))
        bad[weight] = Units(sum(row[4] for row in mine), sum(row[4] for row in theirs))
        if gate.kind is not GateKind.EVENTS:
            values[weight] = Values(
                Sketch.of(row[5] for row in mine), Sketch.of(row[5] for row in theirs)
            )
    return Recount(units, bad, values)


def _find_weight(rollout: Rollout, frame: Begun | Ended) -> int | None:
    rollout_id, _, step = frame.rollout.partition("/")
    if rollout_id != rollout.id or frame.tenant_id != "ten_a" or frame.project_id != "prj":
        return None
    return rollout.plan.steps[int(step)].weight if int(step) < len(rollout.plan.steps) else None


def _read(gate: Gate, ended: Ended) -> int | None:
    is_lost = ended.outcome is Outcome.LOST
    known: dict[Signal, int | None] = {
        Signal.LOST: int(is_lost),
        Signal.ERROR: None if is_lost else int(ended.outcome in _BAD),
    }
    if gate.signal in known:
        return known[gate.signal]
    if is_lost or ended.outcome is Outcome.REFUSED:
        return None
    if gate.signal is Signal.FILTERED:
        is_filtered = ended.finish_reason in ("content_filter", "refusal")
        return int(is_filtered) if ended.finish_reason else None
    if gate.signal is Signal.LATENCY:
        return ended.duration_us if ended.duration_us >= 0 else None
    if gate.signal is Signal.TTFT:
        silent_us = ended.duration_us if ended.is_stream else None
        return ended.ttft_us if ended.ttft_us >= 0 else silent_us
    return ended.cost_nano
