"""Kinds of alerts: rules, and objectives that come with rules."""

from decimal import Decimal
from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, list_given
from pilotage.core.condition.parser import parse
from pilotage.core.condition.writer import write_condition
from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.core.names import check_alias, check_name
from pilotage.monitoring.alerts.types import Indicator, MetricType, Severity


class AlertRuleObject(Object, frozen=True):
    """A rule; what is left out is the default, also where it was something else."""

    name: str
    condition: str
    severity: Severity = Severity.WARNING
    metric_type: MetricType | None = None
    team: str = ""
    runbook: str = ""
    summary: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    keep_firing_for: str = ""
    enabled: bool = True

    @property
    def body(self) -> dict[str, Any]:
        """What it says, as the API shows it, without the name."""
        return list_given(self, "name", "project") | {
            "condition": write_condition(parse(self.condition)),
            "keep_firing_for": _write_span(self.keep_firing_for, "keep_firing_for"),
        }

    def check(self) -> None:
        """Check the names, the condition and the duration."""
        check_name(self.name)
        if self.team:
            check_name(self.team, "team")
        _ = self.body


class SloObject(Object, frozen=True):
    """An objective; what is left out is the default, also where it was something else."""

    name: str
    objective: Decimal
    indicator: Indicator = Indicator.ERRORS
    endpoint: str = ""
    threshold: str = ""
    team: str = ""
    runbook: str = ""
    min_bad: int = 10
    min_total: int = 100
    enabled: bool = True

    @property
    def body(self) -> dict[str, Any]:
        """What it says, as the API shows it, without the name."""
        return list_given(self, "name", "project") | {
            "objective": str(self.objective),
            "threshold": _write_span(self.threshold, "threshold"),
        }

    def check(self) -> None:
        """Check the names, and what has to go together."""
        check_name(self.name)
        if self.endpoint:
            check_alias(self.endpoint, "endpoint")
        if self.team:
            check_name(self.team, "team")
        if not (self.objective.is_finite() and 0 < self.objective < 100):
            raise ValueError(f"objective: {self.objective} is no percentage above 0 and below 100")
        if (self.indicator is Indicator.ERRORS) == bool(self.threshold):
            raise ValueError("threshold: it goes with the indicators latency and ttft")
        if not 1 <= self.min_bad <= self.min_total:
            raise ValueError("min_bad: use 1 to min_total")
        _ = self.body


def _write_span(text: str, place: str) -> str:
    try:
        span_us = parse_duration_us(text) if text else 0
    except ValueError as wrong:
        raise ValueError(f"{place}: {wrong}") from None
    return format_duration(span_us) if span_us else ""
