"""What a real gateway tells of its calls: traces, metrics, the request log; never a prompt."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, chat_body, make_http, until
from made_calls import make_arm
from otlp_receiver import OtlpReceiver, attributes_of
from pilotage.core.frames import Begun, Ended
from pilotage.core.snapshot import FULL_WEIGHT, Routing, TenantEntry

MARKER = "the-marker-in-every-prompt"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERIES = re.compile(r"([a-z_]+)\{([^}]*)\} (\S+)")
URL = "/v1/chat/completions"


def make_settings(receiver: OtlpReceiver, percent: int = 100) -> dict[str, Any]:
    return {"telemetry": {"otlp_url": receiver.url, "sample_percent": percent}}


def body(plan: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    made = chat_body(plan or {}, **more)
    return {**made, "messages": [{"role": "system", "content": MARKER}, *made["messages"]]}


def read_metrics(text: str) -> dict[tuple[str, str], float]:
    """Return the series of a page by name and labels; every line must be one of the format."""
    found: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            assert line.split(" ")[1] in {"HELP", "TYPE"}
            continue
        match = SERIES.fullmatch(line)
        assert match, line
        assert (match[1], match[2]) not in found
        found[match[1], match[2]] = float(match[3])
    return found


async def test_a_call_continues_its_clients_trace_and_the_upstream_continues_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "data")
    world.publish()
    with OtlpReceiver() as receiver:
        async with FaultyUpstream() as upstream:
            world.point({"dep_a": upstream.port})
            async with (
                GatewayProcess(world, make_settings(receiver, 0)) as gateway,
                make_http(gateway) as http,
            ):
                sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
                reply = await http.post(URL, json=body({"chunks": 7}), headers=sent)
                assert reply.status_code == 200
                await http.post(URL, json=body())  # sampled by nobody
                await until(lambda: len(receiver.spans) >= 2, "spans")
            heard = upstream.requests[0].headers["traceparent"]
    call, attempt = receiver.spans
    assert len(receiver.spans) == 2
    assert (call["traceId"], call["parentSpanId"], call["kind"]) == (TRACE, PARENT, 2)
    assert (attempt["parentSpanId"], attempt["kind"]) == (call["spanId"], 3)
    assert heard == f"00-{TRACE}-{call['spanId']}-01"
    said = attributes_of(call)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.usage.output_tokens"] == 7
    assert said["pilotage.call.id"] == reply.headers["x-request-id"]
    assert said["pilotage.cost_usd"] == reply.headers["x-pilotage-cost-usd"]
    assert int(call["endTimeUnixNano"]) > int(call["startTimeUnixNano"]) > 1.7e18
    resource = attributes_of(call["resource"])
    assert (resource["service.name"], resource["service.instance.id"]) == (
        "pilotage-gateway",
        "gateway-0",
    )
    assert all(MARKER.encode() not in each for each in receiver.bodies)
    ended = [frame for frame in world.frames() if isinstance(frame, Ended)]
    assert ended[0].trace_id == TRACE
    assert len(ended[1].trace_id) == 32


async def test_without_a_collector_a_clients_trace_reaches_the_upstream_as_it_came(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "data")
    world.publish()
    headers = [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", ""]
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            for header in headers:
                sent = {"traceparent": header} if header else {}
                reply = await http.post(URL, json=body(), headers=sent)
                assert reply.status_code == 200
            failed = await http.post(URL, json=body({"fault": "status", "status": 500}))
            assert failed.status_code >= 500
            page = (await http.get("/metrics")).text
        heard = [each.headers.get("traceparent") for each in upstream.requests]
    assert heard[:3] == [headers[0], None, None]
    assert not any(heard[3:])
    ends = [frame for frame in world.frames() if isinstance(frame, Ended)]
    assert [end.trace_id for end in ends] == [TRACE, "", "", ""]
    assert "pilotage_spans_total{" not in page  # nothing is traced, so nothing was dropped


async def test_failed_attempts_are_spans_and_a_collector_that_is_away_hurts_nobody(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "data")
    arms = [make_arm("dep_a"), make_arm("dep_b", weight=0)]
    world.publish(arms=arms, routing=Routing(retries=0, fallbacks=["dep_b"]))
    with OtlpReceiver() as receiver:
        receiver.status = 503
        async with FaultyUpstream() as upstream:
            world.point({"dep_a": upstream.port, "dep_b": upstream.port})
            async with (
                GatewayProcess(world, make_settings(receiver)) as gateway,
                make_http(gateway) as http,
            ):
                plan = {"fault": "status", "status": 500, "times": 1}
                reply = await http.post(URL, json=body(plan))
                assert (reply.status_code, reply.headers["x-pilotage-attempts"]) == (200, "2")
                await until(lambda: "collector of traces" in gateway.log(), "the log")
                receiver.status = 200
                await until(lambda: len(receiver.spans) >= 3, "spans")
    call, first, second = receiver.spans
    assert first["status"] == {"code": 2, "message": "upstream_error"}
    assert "status" not in second
    assert {first["parentSpanId"], second["parentSpanId"]} == {call["spanId"]}
    assert attributes_of(first)["pilotage.arm"] == "dep_a"
    assert attributes_of(second)["pilotage.arm"] == "dep_b"
    assert gateway.log().count("collector of traces") <= 2


async def test_metrics_agree_with_the_frames(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            for _ in range(5):
                await http.post(URL, json=body({"chunks": 3}))
                await http.post(URL, json=body({"chunks": 4}, stream=True))
            await http.post(URL, json=body({"fault": "status", "status": 500}))
            await http.post(URL, json={**body(), "model": f"{MARKER}-model"})
            await http.post(URL, json=body(), headers={"authorization": "Bearer nobody"})
            page = (await http.get("/metrics")).text
    ends = [frame for frame in world.frames() if isinstance(frame, Ended)]
    begun = [frame for frame in world.frames() if isinstance(frame, Begun)]
    found = read_metrics(page)
    sums: defaultdict[str, float] = defaultdict(float)
    for (name, _), value in found.items():
        sums[name] += value
    assert sums["pilotage_calls_total"] == len(ends) == len(begun) == 12
    assert round(sums["pilotage_cost_usd_total"] * 1e9) == sum(end.cost_nano for end in ends)
    tokens = sum(end.usage.total for end in ends)
    assert sums["pilotage_tokens_total"] == tokens
    assert sums["gen_ai_client_operation_duration_seconds_count"] == 12
    assert sums["gen_ai_client_operation_time_to_first_chunk_seconds_count"] == 5
    assert sums["pilotage_strangers_total"] == 1
    assert sums["pilotage_open_calls"] == 0
    assert sums["pilotage_ready"] == 1
    outcomes = {labels for name, labels in found if name == "pilotage_calls_total"}
    assert any('alias="unknown"' in labels and 'outcome="refused"' in labels for labels in outcomes)
    assert all('slot="gateway-0"' in labels for _, labels in found)
    assert MARKER not in page


@pytest.mark.parametrize(("data_class", "kept"), [("confidential", 6), ("restricted", 0)])
async def test_the_request_log_keeps_what_was_not_said(
    tmp_path: Path, data_class: str, kept: int
) -> None:
    world = World(tmp_path / "data")
    world.tenant = TenantEntry(
        id=world.tenant.id,
        name="acme",
        project_id=world.tenant.project_id,
        log_share=FULL_WEIGHT,
        data_class=data_class,
    )
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            replies = [await http.post(URL, json=body()) for _ in range(6)]
            assert await gateway.stop() == 0
    path = world.folder.logs / "requests-gateway-0.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == kept
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert [line["call_id"] for line in lines] == ids[:kept]
    assert MARKER not in text
    if kept:
        assert lines[0]["data_class"] == data_class
        assert lines[0]["usage"]["output"] == 5
        assert path.stat().st_mode & 0o777 == 0o600
