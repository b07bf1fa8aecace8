"""Metrics in OTLP's JSON form: what ``POST /v1/metrics`` of a collector takes.

Format: OpenTelemetry protocol 1.x, JSON mapping (64-bit integers as text). Counters and histograms
are cumulative, from the start of the process that counts; a histogram's bounds are explicit.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pilotage.monitoring.exports.types import Family, FamilyKind, Pairs, Sample

_CUMULATIVE = 2
_ENCODE = msgspec.json.Encoder().encode

Json = dict[str, Any]


def encode_metrics(
    families: Iterable[Family], resource: Mapping[str, str], since_us: int | None, at_us: int
) -> bytes:
    """Return the body of one export: numbers as they were at ``at_us``, counted ``since_us``.

    None stands for a process of which nobody knows when it began to count.
    """
    times: Json = {"timeUnixNano": str(at_us * 1000)}
    if since_us is not None:
        times["startTimeUnixNano"] = str(since_us * 1000)
    scoped = {
        "scope": {"name": "pilotage"},
        "metrics": [_write(family, times) for family in families if family.samples],
    }
    whole = {"resource": {"attributes": _list_pairs(resource.items())}, "scopeMetrics": [scoped]}
    return _ENCODE({"resourceMetrics": [whole]})


def _write(family: Family, times: Json) -> Json:
    named: Json = {"name": family.name, "description": family.help}
    if family.kind is FamilyKind.HISTOGRAM:
        points = _write_histograms(family, times)
        return named | {"histogram": {"aggregationTemporality": _CUMULATIVE, "dataPoints": points}}
    points = [
        times | {"attributes": _list_pairs(sample.labels), "asDouble": sample.value}
        for sample in family.samples
        if math.isfinite(sample.value)  # JSON has no word for the others
    ]
    if family.kind is FamilyKind.COUNTER:
        return named | {
            "sum": {
                "aggregationTemporality": _CUMULATIVE,
                "dataPoints": points,
                "isMonotonic": True,
            }
        }
    return named | {"gauge": {"dataPoints": points}}


def _write_histograms(family: Family, times: Json) -> list[Json]:
    """Return a point for each series: Prometheus counts up to a bound, OTLP between bounds."""
    series: dict[Pairs, list[Sample]] = {}
    for sample in family.samples:
        own = tuple(pair for pair in sample.labels if pair[0] != "le")
        series.setdefault(own, []).append(sample)
    points = []
    for labels, samples in series.items():
        below = sorted(
            (float(dict(sample.labels)["le"]), int(sample.value))
            for sample in samples
            if sample.suffix == "_bucket"
        )
        counts = [count for _, count in below]
        between = [high - low for low, high in zip([0, *counts], counts, strict=False)]
        sums = [sample.value for sample in samples if sample.suffix == "_sum"]
        points.append(
            times
            | {
                "attributes": _list_pairs(labels),
                "bucketCounts": [str(count) for count in between],
                "count": str(counts[-1] if counts else 0),
                "explicitBounds": [bound for bound, _ in below if not math.isinf(bound)],
                "sum": sums[0] if sums else 0.0,
            }
        )
    return points


def _list_pairs(pairs: Iterable[tuple[str, str]]) -> list[Json]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in pairs]
