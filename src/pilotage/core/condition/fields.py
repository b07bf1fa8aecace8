"""Conditions given as fields: a metric, a comparison and a threshold, as programs write them.

The names and units are those of ``ModelMetrics``, ``CostMetrics`` and ``QualityMetrics`` of the
Python API: latencies there are numbers of milliseconds. The names of the language are taken, too,
in their base units.
"""

import math
from decimal import Decimal
from typing import NamedTuple

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.checks import suggest
from pilotage.core.condition.units import SECONDS
from pilotage.core.condition.writer import write_decimal
from pilotage.core.errors import PilotageError

COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=="}


class Field(NamedTuple):
    """The metric that a field's name means, and the unit of its threshold."""

    metric: str
    suffix: str


FIELDS: dict[str, Field] = {
    "latency_p50": Field("p50_latency", "ms"),
    "latency_p90": Field("p90_latency", "ms"),
    "latency_p95": Field("p95_latency", "ms"),
    "latency_p99": Field("p99_latency", "ms"),
    "latency_mean": Field("mean_latency", "ms"),
    "ttft_p50": Field("p50_ttft", "ms"),
    "ttft_p95": Field("p95_ttft", "ms"),
    "ttft_p99": Field("p99_ttft", "ms"),
    "throughput_qps": Field("request_rate", ""),
    "tokens_per_second": Field("throughput", ""),
    "accelerator_duty_cycle": Field("gpu_usage", "%"),
    "total_cost": Field("monthly_cost", ""),
}


def write_fields(metric_name: str, comparison: str, threshold: float) -> str:
    """Return the condition that fields say, as a text that ``parse`` takes.

    Raises ``invalid_request`` for a metric, a comparison or a threshold that there is not.
    """
    field = FIELDS.get(metric_name) or _find_metric(metric_name)
    if comparison not in COMPARISONS:
        raise PilotageError(
            "invalid_request",
            f"{comparison[:40]!r} is no comparison.",
            hint=f"Use {', '.join(COMPARISONS)}.",
            param="comparison",
        )
    if not math.isfinite(threshold):
        raise PilotageError("invalid_request", "A threshold is a number.", param="threshold")
    number = write_decimal(Decimal(repr(float(threshold))))
    return f"{field.metric} {COMPARISONS[comparison]} {number}{field.suffix}"


def _find_metric(name: str) -> Field:
    metric = METRICS.get(name)
    if metric is None:
        raise PilotageError(
            "invalid_request",
            f"{name[:60]!r} is no metric.",
            hint=suggest(name, [*FIELDS, *METRICS]) or "The metrics are listed in the reference.",
            param="metric_name",
        )
    return Field(name, "s" if metric.unit == SECONDS else "")
