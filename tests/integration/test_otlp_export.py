"""Spans reach a real collector in its format, or are counted as lost; calls never wait."""

import json
import re
import socket
from typing import Any

import pytest

from gateway_harness import until
from made_calls import make_alias, make_arm, make_call, make_view
from otlp_receiver import OtlpReceiver, attributes_of
from pilotage import __version__
from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.telemetry import exporter as exporter_module
from pilotage.gateway.telemetry.exporter import Exporter, choose_pause
from pilotage.gateway.telemetry.otlp import encode_spans, read_rejected
from pilotage.gateway.telemetry.spans import MAX_WAITING, Span, Tracer
from pilotage.kit.clock import SystemClock

CLOCK = SystemClock()


def make_tracer(calls: int) -> Tracer:
    """Return a tracer in which so many calls wait, each with one attempt: two spans."""
    alias = make_alias(make_arm())
    tracer = Tracer(CLOCK, share=1.0, slow_s=10.0)
    for number in range(calls):
        call = make_call(alias, view=make_view(alias), call_id=f"call_{number}")
        call.arm, call.usage, call.is_sent = make_arm(), Usage(7, 0, 0, 3), True
        call.started_s = call.asked_s = CLOCK.monotonic_s()
        call.ended_s = call.started_s + 0.25
        tracer.end(call, tracer.begin(call))
    return tracer


async def export(receiver: OtlpReceiver, calls: int) -> Exporter:
    """Start an exporter, wait until nothing of these calls is under way, close it."""
    exporter = Exporter(receiver.url, {}, make_tracer(calls), "gateway-3")
    exporter.start()
    await until(lambda: exporter.sent + exporter.lost >= calls * 2, "the export")
    exporter.close()
    return exporter


async def test_what_a_collector_gets_is_otlp() -> None:
    with OtlpReceiver() as receiver:
        exporter = Exporter(
            f"{receiver.url}/tenant/", {"authorization": "Bearer x"}, make_tracer(1), "gateway-3"
        )
        exporter.start()
        await until(lambda: exporter.sent == 2, "the spans")
        exporter.close()
    assert receiver.paths == ["/tenant/v1/traces"]
    headers = receiver.headers[0]
    assert headers["content-type"] == "application/json"
    assert headers["content-encoding"] == "gzip"
    assert headers["authorization"] == "Bearer x"
    (resource,) = json.loads(receiver.bodies[0])["resourceSpans"]
    assert attributes_of(resource["resource"]) == {
        "service.name": "pilotage-gateway",
        "service.version": __version__,
        "service.instance.id": "gateway-3",
    }
    (scoped,) = resource["scopeSpans"]
    assert scoped["scope"] == {"name": "pilotage.gateway", "version": __version__}
    call, attempt = scoped["spans"]
    for span in (call, attempt):
        check_span(span)
    assert int(call["endTimeUnixNano"]) - int(call["startTimeUnixNano"]) == 250_000_000
    assert abs(int(call["startTimeUnixNano"]) // 1000 - CLOCK.now_us()) < 60_000_000
    values = {each["key"]: each["value"] for each in call["attributes"]}
    assert values["gen_ai.usage.input_tokens"] == {"intValue": "7"}
    assert values["gen_ai.request.stream"] == {"boolValue": False}
    assert values["pilotage.call.id"] == {"stringValue": "call_0"}


def check_span(span: dict[str, Any]) -> None:
    """Hold a span against the JSON form of OTLP: ids in hex, 64-bit integers as text, one value."""
    assert re.fullmatch("[0-9a-f]{32}", span["traceId"])
    assert re.fullmatch("[0-9a-f]{16}", span["spanId"])
    assert re.fullmatch("[0-9a-f]{16}", span.get("parentSpanId", "0" * 16))
    assert span["kind"] in {2, 3}
    for name in ("startTimeUnixNano", "endTimeUnixNano"):
        assert re.fullmatch(r"\d{19}", span[name])
    assert set(span) <= {
        *("traceId", "spanId", "parentSpanId", "name", "kind"),
        *("startTimeUnixNano", "endTimeUnixNano", "attributes", "status"),
    }
    for attribute in span["attributes"]:
        ((kind, value),) = attribute["value"].items()
        types = {"stringValue": str, "intValue": str, "doubleValue": float, "boolValue": bool}
        assert isinstance(value, types.get(kind, dict)), attribute
        assert kind in {*types, "arrayValue"}


async def test_many_spans_come_once_each() -> None:
    with OtlpReceiver() as receiver:
        exporter = await export(receiver, 700)
    ids = [span["spanId"] for span in receiver.spans]
    assert (len(ids), len(set(ids)), exporter.sent, exporter.lost) == (1400, 1400, 1400, 0)
    assert len(receiver.bodies) > 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 301])
async def test_a_refused_export_is_not_repeated(status: int) -> None:
    with OtlpReceiver() as receiver:
        receiver.status = status
        receiver.more = {"location": "http://127.0.0.1:1/elsewhere"}
        exporter = await export(receiver, 2)
        assert (receiver.tries, exporter.sent, exporter.lost) == (1, 0, 4)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_collector_is_asked_again_until_it_takes_everything(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "choose_pause", lambda number, wished_s: 0.01)
    tracer = make_tracer(1)
    with OtlpReceiver() as receiver:
        receiver.status, receiver.more = status, {"retry-after": "0"}
        exporter = Exporter(receiver.url, {}, tracer, "s")
        exporter.start()
        await until(lambda: receiver.tries >= 20 or exporter.lost > 0, "many tries")
        assert (exporter.sent, exporter.lost) == (0, 0)
        receiver.status = 200
        await until(lambda: exporter.sent == 2, "the spans")
        exporter.close()
        assert (len(receiver.spans), exporter.lost) == (2, 0)


async def test_a_collector_that_comes_back_gets_what_waited_and_the_rest_is_counted() -> None:
    with OtlpReceiver() as gone:
        url, port = gone.url, int(gone.url.rpartition(":")[2])
    tracer = make_tracer(1)
    exporter = Exporter(url, {}, tracer, "s")
    exporter.start()
    await until(lambda: not tracer.waiting, "the exporter to hold the first spans")
    more = make_tracer(MAX_WAITING).waiting  # a full queue, twice as many were made
    tracer.waiting.extend(more)
    call = make_call(make_alias(make_arm()))
    call.arm, call.asked_s, call.ended_s = make_arm(), 0.1, 0.2
    tracer.end(call, tracer.begin(call))
    assert (len(tracer.waiting), tracer.dropped) == (MAX_WAITING, 2)
    with OtlpReceiver(port) as back:
        await until(lambda: exporter.sent == MAX_WAITING + 2, "everything that waited", 30.0)
        exporter.close()
        ids = {span["spanId"] for span in back.spans}
        assert (len(back.spans), len(ids), exporter.lost) == (MAX_WAITING + 2,) * 2 + (0,)


async def test_closing_does_not_wait_as_a_collector_wishes_but_tries_once_more() -> None:
    with OtlpReceiver() as receiver:
        receiver.status, receiver.more = 503, {"retry-after": "300"}
        exporter = Exporter(receiver.url, {}, make_tracer(2), "s")
        exporter.start()
        await until(lambda: receiver.tries == 1, "the first try")
        receiver.status = 200
        began_s = CLOCK.monotonic_s()
        exporter.close()
        assert CLOCK.monotonic_s() - began_s < 4.0
        assert (len(receiver.spans), exporter.sent, exporter.lost) == (4, 4, 0)


async def test_a_wish_that_cannot_be_read_loses_nothing() -> None:
    with OtlpReceiver() as receiver:
        receiver.status, receiver.more = 503, {"retry-after": "\u00b2"}
        exporter = Exporter(receiver.url, {}, make_tracer(1), "s")
        exporter.start()
        await until(lambda: receiver.tries >= 1, "the first try")
        receiver.status = 200
        await until(lambda: exporter.sent == 2, "the spans")
        exporter.close()
        assert exporter.lost == 0


@pytest.mark.parametrize(
    ("number", "wished_s", "least_s", "most_s"),
    [
        (0, 0.0, 0.5, 1.5),
        (2, 0.0, 2.0, 6.0),
        (2000, 0.0, 16.0, 30.0),
        (0, 40.0, 40.0, 40.0),
        (0, 1e9, 300.0, 300.0),
    ],
)
def test_pauses_grow_within_bounds(
    number: int, wished_s: float, least_s: float, most_s: float
) -> None:
    pauses = [choose_pause(number, wished_s) for _ in range(200)]
    assert least_s <= min(pauses) <= max(pauses) <= most_s
    assert (len(set(pauses)) > 1) == (wished_s == 0.0)  # so that not all gateways ask at once


async def test_what_a_collector_leaves_out_is_lost() -> None:
    with OtlpReceiver() as receiver:
        receiver.answer = b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "no"}}'
        exporter = await export(receiver, 4)
        assert (exporter.sent, exporter.lost, receiver.tries) == (5, 3, 1)


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        (b"{}", 0),
        (b'{"partialSuccess": {}}', 0),
        (b'{"partialSuccess": {"rejectedSpans": 2}}', 2),
        (b'{"partialSuccess": {"rejectedSpans": "2"}}', 2),
        (b'{"partialSuccess": {"rejectedSpans": "-9"}}', 0),
        (b'{"partialSuccess": {"rejectedSpans": "x"}}', 0),
        (b"<html>", 0),
        (b"\xff", 0),
        (b"", 0),
    ],
)
def test_any_answer_of_a_collector_is_read(answer: bytes, rejected: int) -> None:
    assert read_rejected(answer) == rejected


async def test_closing_sends_what_is_left_and_does_not_wait_for_a_dead_collector() -> None:
    with OtlpReceiver() as receiver:
        exporter = Exporter(receiver.url, {}, make_tracer(3), "s")
        exporter.start()
        exporter.close()
        assert len(receiver.spans) == 6
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects and never answers
        exporter = Exporter(f"http://127.0.0.1:{silent.getsockname()[1]}", {}, make_tracer(3), "s")
        exporter.start()
        began_s = CLOCK.monotonic_s()
        exporter.close()
        assert CLOCK.monotonic_s() - began_s < 4.0
        assert exporter.sent == 0


async def test_a_span_that_cannot_be_encoded_does_not_end_the_exporter() -> None:
    tracer = make_tracer(0)
    tracer.waiting.append(Span("0" * 32, "0" * 16, "", "lone \ud800", 2, 0, 0, "", {}))
    with OtlpReceiver() as receiver:
        exporter = Exporter(receiver.url, {}, tracer, "s")
        exporter.start()
        await until(lambda: exporter.lost == 1, "the loss")
        tracer.waiting.extend(make_tracer(1).waiting)
        await until(lambda: exporter.sent == 2, "the spans after it")
        exporter.close()
        assert len(receiver.spans) == 2


@pytest.mark.parametrize(
    "url", ["", "collector:4318", "ftp://h", "http://", "http://h:99999", "http://u:sesame@h"]
)
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(PilotageError) as refused:
        Exporter(url, {}, make_tracer(0), "s")
    assert refused.value.code == "invalid_config"
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("x", "sesame\nb: c"), ("sesame b", "c"), ("x", "\x00sesame"), ("", "c")]
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(PilotageError) as refused:
        Exporter("http://127.0.0.1:4318", {name: value}, make_tracer(0), "s")
    assert refused.value.code == "invalid_config"
    assert "sesame" not in str(refused.value)


async def test_whoever_encodes_in_a_thread_pauses_for_others() -> None:
    spans, pauses = make_tracer(50).take(100), []
    body = encode_spans(spans, "s", lambda: pauses.append(1))
    assert body == encode_spans(spans, "s")
    assert len(pauses) == len(spans) // 8
