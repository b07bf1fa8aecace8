"""What is counted of a rollout: by step, gate and arm, and what single units have done so far."""

from typing import NamedTuple

import msgspec

from pilotage.core.sketch import Sketch
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.rollouts.types import GateKind, Signal

BEST_SCORE = 1_000_000
YOUNG_SLICES = 16  # of the time in which a unit is young


class WatchedGate(msgspec.Struct, frozen=True, array_like=True):
    """What of a gate's definition decides how units are counted; see ``rollouts.types.Gate``."""

    name: str
    signal: Signal
    kind: GateKind
    threshold: int


class Watched(msgspec.Struct, frozen=True, array_like=True):
    """A rollout whose calls are counted: its two arms, its gates, and of its steps the weights.

    ``least_us`` is how long each step stands at least: for so long a unit of it is young.
    """

    rollout_id: str
    project_id: str
    baseline_id: str
    candidate_id: str
    weights: tuple[int, ...]
    least_us: tuple[int, ...]
    gates: tuple[WatchedGate, ...]

    @property
    def wants_feedback(self) -> bool:
        """Whether a gate looks at what people said of answers."""
        return any(gate.signal is Signal.FEEDBACK for gate in self.gates)

    def split_of(self, step: int) -> dict[str, int] | None:
        """Return how a step deals units to the arms; None where there is nothing to compare."""
        if not 0 <= step < len(self.weights) or not 0 < self.weights[step] < FULL_WEIGHT:
            return None
        weight = self.weights[step]
        return {self.candidate_id: weight, self.baseline_id: FULL_WEIGHT - weight}

    def slice_of(self, step: int, at_us: int) -> int:
        """Return the slice of time that a time lies in, by which units of a step grow old."""
        return at_us // max(1, self.least_us[step] // YOUNG_SLICES)

    def gives_all(self, step: int) -> bool:
        """Say whether the candidate has all traffic at a step, as it has behind the last one."""
        return step >= len(self.weights) or (step >= 0 and self.weights[step] == FULL_WEIGHT)


class ArmCount(msgspec.Struct, array_like=True):
    """The units of one arm that one gate has counted at one step.

    To merge is to add. ``values`` holds one value of each unit, for gates that compare values.
    ``again`` are units that were bad at another step already, ``again_bad`` those of them that are
    bad at this one, too. ``born`` says in which slice of time units were first counted that may
    have more calls to come: of the last slices only, as nobody asks for those that are not young.
    """

    units: int = 0
    bad: int = 0
    values: Sketch = msgspec.field(default_factory=Sketch)
    again: int = 0
    again_bad: int = 0
    born: dict[int, int] = {}

    def merge(self, other: "ArmCount") -> None:
        """Add what another has counted."""
        self.units += other.units
        self.bad += other.bad
        self.values.merge(other.values)
        self.again += other.again
        self.again_bad += other.again_bad
        for at, units in other.born.items():
            self.grow(at, units)

    def grow(self, at: int, units: int = 1) -> None:
        """Note units that were first counted in a slice of time; forget what is no longer young."""
        self.born[at] = self.born.get(at, 0) + units
        oldest = max(self.born) - YOUNG_SLICES - 1
        if min(self.born) < oldest:
            self.born = {at: units for at, units in self.born.items() if at >= oldest}


class GateCount(msgspec.Struct, array_like=True):
    """What one gate has counted at one step."""

    candidate: ArmCount = msgspec.field(default_factory=ArmCount)
    baseline: ArmCount = msgspec.field(default_factory=ArmCount)

    def arm(self, *, is_candidate: bool) -> ArmCount:
        """Return the count of an arm."""
        return self.candidate if is_candidate else self.baseline

    def merge(self, other: "GateCount") -> None:
        """Add what another has counted."""
        self.candidate.merge(other.candidate)
        self.baseline.merge(other.baseline)


class CallCount(msgspec.Struct, array_like=True):
    """What became of what one arm was dealt at one step.

    ``dealt`` are units; calls have ``begun``, and some have ``ended``, of which the values of those
    that were ``warming`` are left out.
    """

    dealt: int = 0
    begun: int = 0
    ended: int = 0
    warming: int = 0

    def merge(self, other: "CallCount") -> None:
        """Add what another has counted."""
        self.dealt += other.dealt
        self.begun += other.begun
        self.ended += other.ended
        self.warming += other.warming


class StepCount(msgspec.Struct, array_like=True):
    """What was counted at one step: units and calls of each arm, and what each gate saw of them."""

    candidate: CallCount = msgspec.field(default_factory=CallCount)
    baseline: CallCount = msgspec.field(default_factory=CallCount)
    gates: dict[str, GateCount] = {}

    def gate(self, name: str) -> GateCount:
        """Return the count of a gate, a new one if it has none."""
        return self.gates.setdefault(name, GateCount())

    def arm(self, *, is_candidate: bool) -> CallCount:
        """Return the count of an arm."""
        return self.candidate if is_candidate else self.baseline

    def merge(self, other: "StepCount") -> None:
        """Add what another has counted."""
        self.candidate.merge(other.candidate)
        self.baseline.merge(other.baseline)
        for name, count in other.gates.items():
            self.gate(name).merge(count)


class Span(msgspec.Struct, array_like=True):
    """A unit of the candidate that failed, and the baseline's units until the next one that did.

    ``baseline`` says of each whether it failed; of very many only the first are kept.
    """

    unit: str
    baseline: dict[str, bool] = {}


class Standing(msgspec.Struct, array_like=True):
    """What is known of a rollout beside its counts.

    ``spans`` are the candidate's last units if they failed one and all, oldest first.
    ``references`` are values of the baseline by gate of ranks, frozen once there are enough of
    them. ``candidate_seen`` and ``baseline_seen`` are the gates that have counted a bad unit there.
    ``alone`` are the candidate's last units since it has all traffic, if they failed one and all.
    """

    spans: list[Span] = []
    references: dict[str, Sketch] = {}
    candidate_seen: set[str] = set()
    baseline_seen: set[str] = set()
    alone: list[str] = []


class UnitAtStep(msgspec.Struct, array_like=True):
    """What was counted of a unit at one step; ``gates`` have counted it, for ``bad`` it was bad."""

    is_dealt: bool = False
    is_moved: bool = False
    gates: set[str] = set()
    bad: set[str] = set()


class News(NamedTuple):
    """What a gate did not know of a unit: that it is there at a step, that it is bad there.

    ``was_bad`` says that it had been bad before; if it is news of a step, then at another one.
    """

    is_new: bool
    is_bad: bool
    was_bad: bool


class UnitSeen(msgspec.Struct, array_like=True):
    """What was counted of a unit in a rollout; ``bad`` holds the gates that it was bad for."""

    bad: set[str] = set()
    steps: dict[int, UnitAtStep] = {}

    def at(self, step: int) -> UnitAtStep:
        """Return what was counted at a step."""
        return self.steps.setdefault(step, UnitAtStep())

    def note(self, step: int, gate: str, *, is_bad: bool) -> News:
        """Note what a gate has seen of the unit at a step; return what of it is new."""
        at_step = self.at(step)
        news = News(
            is_new=gate not in at_step.gates,
            is_bad=is_bad and gate not in at_step.bad,
            was_bad=gate in self.bad,
        )
        at_step.gates.add(gate)
        if is_bad:
            at_step.bad.add(gate)
            self.bad.add(gate)
        return news


class CallKey(NamedTuple):
    """A call as its tenant knows it."""

    call_id: str
    tenant_id: str


class Answer(NamedTuple):
    """A call of a rollout that somebody may say something of, and its first ``score``, -1 for none.

    Without a ``rollout_id`` it was scored before its end was read. Scores are millionths.
    """

    call_id: str
    tenant_id: str
    project_id: str
    at_us: int
    rollout_id: str = ""
    step: int = -1
    is_candidate: bool = False
    unit: str = ""
    score: int = -1

    @property
    def key(self) -> CallKey:
        """Which call it is."""
        return CallKey(self.call_id, self.tenant_id)
