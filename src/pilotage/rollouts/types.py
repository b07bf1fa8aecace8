"""What a rollout is: its plan and state, what it is judged by, and what came of a look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pilotage.core.gates.ranks import Ranks
from pilotage.core.gates.types import ALPHA, Counts, Samples
from pilotage.core.sketch import Sketch


class Strategy(StrEnum):
    """How traffic gets from the baseline to the candidate."""

    CANARY = "canary"  # in steps, each decided by the gates
    BLUE_GREEN = "blue_green"  # at once, the baseline kept warm for a while to go back to
    DIRECT = "direct"  # at once, and that is it
    SHADOW = "shadow"  # not at all: copies of calls are compared
    AB_TEST = "ab_test"  # a fixed split, until one is shown to be better


class Unit(StrEnum):
    """What the coin is tossed for."""

    SESSION = "session"  # where the call names one, else the call
    CALL = "call"
    USER = "user"
    TENANT = "tenant"


class State(StrEnum):
    """Where a rollout stands."""

    PREPARING = "preparing"  # the candidate takes no traffic until it is ready
    RUNNING = "running"
    HELD = "held"  # weights stay until somebody decides
    KEEPING = "keeping"  # all traffic has moved, the baseline is kept warm
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"  # the candidate never got ready


ENDED = frozenset({State.PROMOTED, State.ROLLED_BACK, State.FAILED})


class Signal(StrEnum):
    """What of a call a gate looks at."""

    ERROR = "error"  # it failed
    LOST = "lost"  # nobody knows how it ended
    FILTERED = "filtered"  # the model's own filter cut or withheld the answer
    LATENCY = "latency"  # how long it took, in microseconds
    TTFT = "ttft"  # how long until its first content, in microseconds; of streams only
    COST = "cost"  # in nano-USD
    FEEDBACK = "feedback"  # scores that people gave, in millionths of the best
    ANSWERS = "answers"  # whether the answer can be used, against that to the same call's copy


TAKEN_WARM = frozenset({Signal.LATENCY, Signal.TTFT, Signal.COST})  # of calls while no arm is cold


class GateKind(StrEnum):
    """What a gate compares between candidate and baseline."""

    EVENTS = "events"  # how frequent bad units are
    RANKS = "ranks"  # where values lie in the baseline's distribution
    MEANS = "means"  # the mean of a value that has a greatest one
    PAIRS = "pairs"  # the mean difference of marks that answers to the same call have


class Verdict(StrEnum):
    """What a look says."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll_back"
    UNDERPOWERED = "underpowered"


class Cause(StrEnum):
    """Why a verdict is what it is, where no gate alone is."""

    EVIDENCE = "evidence"
    ALL_BAD = "all_bad"  # the candidate's last units failed, one and all
    SHARED_FAULT = "shared_fault"  # so did the baseline's
    RATIO_MISMATCH = "ratio_mismatch"
    COLLECTING = "collecting"
    HANGING = "hanging"  # so do too many of the candidate's calls, compared with the baseline's
    OUT_OF_TIME = "out_of_time"
    TOO_SLOW = "too_slow"  # what is left of the step does not suffice


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One thing that must not get worse.

    ``margin`` is how much worse, as a part, still counts as as good: 1.0 for twice as many bad
    units. ``limit`` is the objective of a gate of events, as a share of bad units: a candidate that
    is shown to stay below it passes, too. ``cap`` is a value that few of a gate of means exceed.
    ``threshold`` is the value of its signal above which a unit is bad, for events of signals that
    have values. A score is better the higher it is: a gate of means looks at what it lacks.
    """

    name: str
    signal: Signal
    kind: GateKind
    margin: float
    threshold: int = 0
    limit: float | None = None
    cap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted for one gate; ``bad`` for events, ``values`` for ranks and means.

    ``units`` are all the units that could have been bad. ``probed`` says that a synthetic bad unit
    of each arm was counted as bad: without it no bad unit may mean that nobody counts.

    An objective is about all that the candidate's units do at a step. So it leaves out those that
    are ``young`` and may have more calls to come, and adds those that were bad at another step and
    are here ``again``, of which ``again_bad`` are bad at this one, too.
    """

    units: Counts = field(default_factory=dict)
    bad: Counts = field(default_factory=dict)
    values: Samples = field(default_factory=dict)
    probed: bool = False
    young: int = 0
    again: int = 0
    again_bad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """How many of the candidate's last units were bad in a row, and the baseline's meanwhile."""

    candidate_bad: int = 0
    baseline_units: int = 0
    baseline_bad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is known at a look; tallies by gate, of the whole rollout and of the running step.

    ``first_seen`` counts units when they were dealt, ``begun`` and ``ended`` count calls.
    ``left_out`` is the share of the step's calls whose values do not count, as a replica was cold.
    ``least_s`` is how long the step has to last at least, ``step_s`` how long it may last, 0 for
    ever; both begin anew when it is resumed, and so does ``elapsed_s``. ``counted_s`` is for how
    long the step's units have been counted.
    """

    whole: Mapping[str, Tally]
    step: Mapping[str, Tally]
    first_seen: Counts
    begun: Counts = field(default_factory=dict)
    ended: Counts = field(default_factory=dict)
    left_out: float = 0.0
    streak: Streak = Streak()
    elapsed_s: float = 0.0
    counted_s: float = 0.0
    least_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a rollout, and the frozen references of its gates of ranks by name."""

    measurement: Measurement
    ranks: Mapping[str, Ranks] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLook:
    """What one gate says at a look. Evidence is the logarithm of an e-value, and so is its bound.

    ``ratio`` estimates how many times as bad the candidate is, None where nothing can be said;
    ``needed`` forecasts the units of both arms that the step still needs, ``eta_s`` how long; None
    where nothing that was counted so far says that they will ever suffice.
    """

    gate: str
    candidate_units: int
    baseline_units: int
    candidate_bad: int
    baseline_bad: int
    ratio: float | None
    worse: float
    worse_bound: float
    fine: float
    fine_bound: float
    needed: float | None = None
    eta_s: float | None = None

    @property
    def is_worse(self) -> bool:
        """Whether the candidate was shown to be worse."""
        return self.worse >= self.worse_bound

    @property
    def is_fine(self) -> bool:
        """Whether it was shown to be good enough."""
        return self.fine >= self.fine_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict of a look and what it rests on; ``gates`` are those that decided.

    ``left_out`` is the share of the step's calls whose values do not count.
    """

    verdict: Verdict
    cause: Cause
    gates: tuple[str, ...] = ()
    looks: tuple[GateLook, ...] = ()
    mismatch: float = 0.0
    left_out: float = 0.0
    eta_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """How often a rollout may be wrong: roll back a harmless candidate, promote a worse one."""

    roll_back: float = ALPHA
    promote: float = ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A weight of the candidate, in basis points of the traffic of both, and how long it stands.

    It stands ``least_us`` at least; after ``most_us`` (0: never) without a verdict it is held.
    ``needs_person`` waits for somebody although the gates would promote.
    """

    weight: int
    least_us: int = 0
    most_us: int = 0
    needs_person: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a rollout goes.

    ``keep_us`` is how long the baseline stays warm after the last step, and is removed then; 0: it
    stays, and the rollout ends with the last step. ``goal`` is the gate that decides an experiment.
    The step of a shadow has the share of calls that are copied as its weight, and copies cost at
    most ``daily_nano`` a UTC day.
    """

    strategy: Strategy
    steps: tuple[Step, ...]
    gates: tuple[Gate, ...]
    unit: Unit = Unit.SESSION
    risk: Risk = Risk()
    ready_us: int = 600_000_000
    keep_us: int = 0
    goal: str = ""
    daily_nano: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rollout has come: its state, the step that runs, and since when both stand.

    The step is -1 before the first one, and the number of steps behind the last. ``began_us`` is
    when it began, however often it was held since; time in which nobody has looked at it is left
    out of both. ``has_passed`` says that its gates have said yes, and it waits for a person.
    """

    state: State = State.PREPARING
    step: int = -1
    since_us: int = 0
    began_us: int = 0
    has_passed: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A change of what serves an endpoint: from one of its deployments to another.

    ``endpoint``, ``baseline`` and ``candidate`` are their names as they were then. ``weight`` is
    the candidate's share of all traffic of the endpoint, in basis points, and ``said`` why the
    rollout stands where it does. ``decision_id`` is the decision record that everything about it
    is written to; ``fingerprint`` the hash of what was asked for.
    """

    id: str
    rev: int
    project_id: str
    endpoint_id: str
    endpoint: str
    baseline_id: str
    baseline: str
    candidate_id: str
    candidate: str
    plan: Plan
    progress: Progress
    reason: str
    created_by: str
    created_at_us: int
    decision_id: str
    fingerprint: str = ""
    weight: int = 0
    said: str = ""
    ended_at_us: int | None = None

    @property
    def step_name(self) -> str:
        """What calls of the running step carry."""
        return f"{self.id}/{self.progress.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a running rollout that was kept: when, at which weight, and what it said."""

    id: str
    rollout_id: str
    project_id: str
    at_us: int
    step: int
    weight: int
    judged: Judgement


class Readiness(StrEnum):
    """What is seen of the candidate's replicas."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What to do next: the progress to write down, and the candidate's weight from then on.

    ``weight`` is None where traffic stays as it is. ``reason`` is for people and for the record.
    """

    progress: Progress
    weight: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step as people write it: a share (``5%``), durations (``10m``), and whether it waits."""

    weight: str = ""
    at_least: str = ""
    at_most: str = ""
    approval: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A gate as people write it; what is "" is as usual for gates of that name.

    ``margin`` and ``limit`` are parts (``20%`` or ``0.2``), ``over`` a value of the gate's signal
    (a duration or an amount in USD), ``cap`` an amount in USD.
    """

    margin: str = ""
    limit: str = ""
    over: str = ""
    cap: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpec:
    """A plan as people write it; without steps or gates it has those that are usual.

    A gate that is None is left out, although it is usual. ``daily`` is what the copies of a shadow
    may cost a day, in USD.
    """

    strategy: str = Strategy.CANARY.value
    steps: tuple[StepSpec, ...] = ()
    gates: Mapping[str, GateSpec | None] | None = None
    unit: str = Unit.SESSION.value
    ready_within: str = ""
    keep_warm: str = ""
    goal: str = ""
    daily: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A rollout as somebody asks for it; the candidate is a deployment of the endpoint."""

    endpoint: str
    candidate: str
    plan: PlanSpec
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the baseline before a rollout begins; None where it is too little.

    ``calls_s`` are its calls a second, ``error_share`` those of them that fail. ``slow_us`` is the
    95th percentile of how long they take, ``mean_nano`` their mean cost, and ``stream_share`` the
    share of them that are streams. ``taken`` holds their values by signal.
    """

    calls_s: float = 0.0
    error_share: float | None = None
    slow_us: int | None = None
    mean_nano: int | None = None
    stream_share: float | None = None
    taken: Mapping[Signal, Sketch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one gate of a step is expected to take, in units of both arms and in seconds.

    To pass is to show that an equal candidate is fine; to find is to show that one is worse which
    is ``ratio`` times as bad. Seconds are None where nothing is known of the traffic.
    """

    step: int
    gate: str
    units_to_pass: int
    pass_s: float | None
    ratio: float
    units_to_find: int
    find_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A rollout as it would begin; ``needed`` approvals are asked for by ``subject``."""

    endpoint: str
    baseline: str
    candidate: str
    plan: Plan
    forecasts: tuple[Forecast, ...]
    advice: tuple[str, ...]
    needed: int
    subject: str
