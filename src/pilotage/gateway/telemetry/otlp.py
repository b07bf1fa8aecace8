"""Spans in OTLP's JSON form: what ``POST /v1/traces`` of a collector takes.

Format: OpenTelemetry protocol 1.x, JSON mapping (ids in hex, 64-bit integers as text).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pilotage import __version__
from pilotage.gateway.telemetry.spans import Span

PAUSE_AFTER = 8  # spans, half a millisecond of work
_ERROR = 2  # status code of a span
_ENCODE = msgspec.json.Encoder().encode


class _Partial(msgspec.Struct):
    rejectedSpans: int | str = 0  # noqa: N815 - as the format has it


class _Answer(msgspec.Struct):
    partialSuccess: _Partial = msgspec.field(default_factory=_Partial)  # noqa: N815


_DECODE = msgspec.json.Decoder(_Answer).decode


def encode_spans(
    spans: Sequence[Span], slot: str, pause: Callable[[], None] | None = None
) -> bytes:
    """Return the body of one export.

    ``pause`` is called after every few spans: whoever encodes in a thread lets others run then.
    """
    resource = {
        "service.name": "pilotage-gateway",
        "service.version": __version__,
        "service.instance.id": slot,
    }
    scope = {"name": "pilotage.gateway", "version": __version__}
    written: list[msgspec.Raw] = []
    for number, span in enumerate(spans, 1):
        written.append(msgspec.Raw(_ENCODE(_write(span))))
        if pause is not None and number % PAUSE_AFTER == 0:
            pause()
    scoped = {"scope": scope, "spans": written}
    resources = {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scoped]}
    return _ENCODE({"resourceSpans": [resources]})


def read_rejected(answer: bytes) -> int:
    """Return how many spans a collector says it took the export without; 0 if it says nothing."""
    try:
        return max(int(_DECODE(answer).partialSuccess.rejectedSpans), 0)
    except (msgspec.DecodeError, ValueError):
        return 0


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
