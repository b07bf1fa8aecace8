"""What alert rules, objectives and alerts are."""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is, in rising order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class MetricType(StrEnum):
    """What a rule watches over; all are evaluated alike."""

    PERFORMANCE = "performance"
    COST = "cost"
    QUALITY = "quality"


class AlertState(StrEnum):
    """Where an alert is: its condition holds but not long enough, it fires, it is over."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """What is said of a rule: its condition, and whom it concerns how much.

    ``labels`` are added to those of every alert of it; an alert that has begun to fire does so for
    at least ``keep_firing_us`` after its condition held for the last time.
    """

    condition: str
    severity: Severity = Severity.WARNING
    metric_type: MetricType = MetricType.PERFORMANCE
    team: str = ""
    runbook: str = ""
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    keep_firing_us: int = 0
    is_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule(RuleSpec):
    """A rule of a project. ``id`` of one that an objective comes with begins with that one's."""

    id: str
    rev: int
    project_id: str
    name: str
    created_at_us: int
    deleted_at_us: int | None = None


class Indicator(StrEnum):
    """What makes a call a bad one: that it failed, that it took or began too long."""

    ERRORS = "errors"
    LATENCY = "latency"
    TTFT = "ttft"


@dataclass(frozen=True, slots=True, kw_only=True)
class SloSpec:
    """What is said of an objective: how large a share of which calls shall be good.

    ``objective`` is a percentage as decimal text; ``alias`` "" stands for all of the project;
    ``threshold_us`` is for latency and ttft. Nothing alerts before ``min_bad`` calls of at least
    ``min_total`` were bad.
    """

    objective: str
    indicator: Indicator = Indicator.ERRORS
    alias: str = ""
    threshold_us: int = 0
    team: str = ""
    runbook: str = ""
    min_bad: int = 10
    min_total: int = 100
    is_enabled: bool = True

    @property
    def budget(self) -> Decimal:
        """The share of calls that may be bad."""
        return 1 - Decimal(self.objective) / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo(SloSpec):
    """An objective of a project; it comes with burn-rate rules."""

    id: str
    rev: int
    project_id: str
    name: str
    created_at_us: int
    deleted_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the condition of one series has come, counted by whoever looks at it.

    ``held_us`` is how long it has held, ``gone_us`` for how long it has not (None while it does);
    ``seen_us`` is when it was last looked at.
    """

    state: AlertState
    held_us: int
    gone_us: int | None
    seen_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One series of a rule, from when its condition began to hold until it is over.

    It repeats what the rule said then: rules change, what people were told does not.
    """

    id: str
    rev: int
    project_id: str
    rule_id: str
    rule: str
    condition: str
    severity: Severity
    team: str
    runbook: str
    summary: str
    labels: dict[str, str]
    value: float | None
    standing: Standing
    began_at_us: int
    fired_at_us: int | None = None
    resolved_at_us: int | None = None

    @property
    def state(self) -> AlertState:
        """Where it is."""
        return self.standing.state

    @property
    def is_living(self) -> bool:
        """Whether it is not over."""
        return self.standing.state is not AlertState.RESOLVED


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChange:
    """An alert that began to fire, or is over: what people are told of.

    ``alert_id`` is the same for all that is ever said of one firing; ``labels`` are the series it
    is about (``alias``, ``tenant`` ...); ``value`` is what the condition's left side was.
    """

    alert_id: str
    project_id: str
    rule: str
    condition: str
    severity: Severity
    state: AlertState
    labels: dict[str, str]
    value: float | None
    summary: str
    team: str
    runbook: str
    starts_at_us: int
    at_us: int
