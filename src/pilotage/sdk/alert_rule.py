"""What the Python API says of an alert rule: the names of ``infrastructure.vertex_ai``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from operator import eq, gt, lt

_COMPARE = {"gt": gt, "lt": lt, "eq": eq}


class MetricType(Enum):
    """What a rule watches over; all are evaluated alike."""

    PERFORMANCE = "performance"
    COST = "cost"
    QUALITY = "quality"


class AlertSeverity(Enum):
    """How bad it is, in rising order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(kw_only=True)
class AlertRule:
    """When somebody is to be warned: fields, or a ``condition``.

    The field form compares a metric with a threshold, in the metric's own unit (``latency_p95`` is
    milliseconds, ``error_rate`` 0 to 1). ``condition`` says more: ``p95_latency > 2s for 5m``.
    Without a ``metric_type`` it is that of what the rule asks for.
    Raises ValueError for a rule that has neither, or both, or compares in no known way.
    """

    rule_name: str
    metric_type: MetricType | None = None
    metric_name: str = ""
    threshold: float | None = None
    comparison: str = "gt"
    severity: AlertSeverity = AlertSeverity.WARNING
    enabled: bool = True
    condition: str = ""

    def __post_init__(self) -> None:
        if self.metric_type is not None:
            self.metric_type = MetricType(self.metric_type)
        self.severity = AlertSeverity(self.severity)
        if self.comparison not in _COMPARE:
            known = ", ".join(_COMPARE)
            raise ValueError(f"comparison {self.comparison!r} is none of {known}")
        has_fields = bool(self.metric_name) and self.threshold is not None
        if bool(self.condition) == has_fields:
            raise ValueError("a rule has a metric_name and a threshold, or else a condition")

    def evaluate(self, value: float) -> bool:
        """Return whether a value of the metric breaks the rule; a disabled rule is never broken.

        For a rule with a condition the value is that of its one metric, in seconds, USD, bytes or
        as a share, of a series that its filters mean; ``absent(...)`` is never true of a value.
        Raises ValueError for a condition with several metrics: one value says too little.
        """
        if not self.enabled:
            return False
        if self.threshold is not None:
            return bool(_COMPARE[self.comparison](value, self.threshold))
        from pilotage.core.condition.evaluator import evaluate_value
        from pilotage.core.condition.parser import parse

        return evaluate_value(parse(self.condition), value)
