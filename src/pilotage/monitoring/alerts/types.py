"""What an alert is."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is, in rising order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class AlertState(StrEnum):
    """Where an alert is: its condition holds but not long enough, it fires, it is over."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


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
