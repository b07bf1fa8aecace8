"""Spans in OTLP's JSON form: what ``POST /v1/traces`` of a collector takes.

Format: OpenTelemetry protocol 1.x, JSON mapping (ids in hex, 64-bit integers as text).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotage import __version__
from pilotage.gateway.telemetry.spans import Span

_ERROR = 2  # status code of a span
_ENCODE = msgspec.json.Encoder().encode


def encode_spans(spans: Sequence[Span], slot: str) -> bytes:
    """Return the body of one export."""
    resource = {
        "service.name": "pilotage-gateway",
        "service.version": __version__,
        "service.instance.id": slot,
    }
    scope = {"name": "pilotage.gateway", "version": __version__}
    scoped = {"scope": scope, "spans": [_write(span) for span in spans]}
    resources = {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scoped]}
    return _ENCODE({"resourceSpans": [resources]})


def _write(span: Span) -> dict[str, Any]:
    written: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.began_us * 1000),
        "endTimeUnixNano": str(span.ended_us * 1000),
        "attributes": _attributes(span.attributes),
    }
    if span.parent_id:
        written["parentSpanId"] = span.parent_id
    if span.error:
        written["status"] = {"code": _ERROR, "message": span.error}
    return written


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever an attribute is
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": str(value)}
