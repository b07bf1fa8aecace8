"""Metrics of real gateway processes: one page for all that share a socket, and who may see it."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exposition import Page
from faulty_upstream import FaultyUpstream
from gateway_harness import CLOCK, GatewayProcess, World, chat_body, make_http
from made_calls import make_arm
from pilotage.core.frames import Ended
from pilotage.core.snapshot import Routing
from pilotage.gateway.http import GatewayDoor
from pilotage.kit.config import Settings
from pilotage.runtime.gateway import open_plane
from system import poll

MARKER = "the-marker-in-every-prompt"
URL = "/v1/chat/completions"
SLOTS = ("gateway-0", "gateway-1")


def body(plan: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    made = chat_body(plan or {}, **more)
    return {**made, "messages": [{"role": "system", "content": MARKER}, *made["messages"]]}


def list_ends(world: World, slot: str) -> list[Ended]:
    return [frame for frame in world.frames(slot) if isinstance(frame, Ended)]


async def call_all(gateway: GatewayProcess, count: int) -> None:
    """Call on connections of their own, so that every process of the socket answers some."""

    async def call(number: int) -> None:
        async with make_http(gateway) as http:
            plan: dict[str, Any] = {"chunks": 3}
            if number % 5 == 0:
                plan = {"fault": "status", "status": 500}
            sent = body(plan, stream=bool(number % 2))
            await http.post(URL, json=sent)

    await asyncio.gather(*(call(number) for number in range(count)))


async def test_whichever_process_is_asked_shows_all_and_no_dead_one(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish(routing=Routing(retries=0))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        async with FaultyUpstream() as upstream, AsyncExitStack() as stack:
            world.point({"dep_a": upstream.port})
            gateways = [GatewayProcess(world, slot=slot, listener=listener) for slot in SLOTS]
            for gateway in gateways:
                await stack.enter_async_context(gateway)
            ends: dict[str, list[Ended]] = {}
            calls = 0
            while calls < 60 or (not all(ends.values()) and calls < 600):
                await call_all(gateways[0], 20)
                calls += 20
                ends = {slot: list_ends(world, slot) for slot in SLOTS}
            assert all(ends.values()), "one process took every call"
            assert sum(map(len, ends.values())) == calls
            shown = [await wait_for_pages(gateways[0], calls) for _ in range(4)]
            for page in shown:
                for slot, those in ends.items():
                    agree(page, slot, those)
            await gateways[1].kill()
            async with make_http(gateways[0]) as http:
                last = Page((await http.get("/metrics")).text)
            assert last.values("pilotage_calls_total", "slot") == {SLOTS[0]}
    for slot in SLOTS:
        assert (world.folder.run / f"{slot}.metrics").stat().st_mode & 0o777 == 0o600


async def wait_for_pages(gateway: GatewayProcess, calls: int) -> Page:
    """Ask on new connections until whoever answers has heard of all calls."""

    async def look() -> dict[str, Any]:
        async with make_http(gateway) as http:
            text = (await http.get("/metrics")).text
        assert MARKER not in text
        return {"page": Page(text)}

    found = await poll(look, lambda seen: seen["page"].total("pilotage_calls_total") == calls)
    page: Page = found["page"]
    return page


def agree(page: Page, slot: str, ends: list[Ended]) -> None:
    for outcome in {end.outcome for end in ends}:
        count = sum(end.outcome is outcome for end in ends)
        assert page.total("pilotage_calls_total", slot=slot, outcome=outcome.value) == count
    cost = page.total("pilotage_cost_usd_total", slot=slot)
    assert round(cost * 1e9) == sum(end.cost_nano for end in ends)
    assert page.total("pilotage_tokens_total", slot=slot) == sum(end.usage.total for end in ends)
    name = "gen_ai_client_operation_duration_seconds"
    assert page.total(f"{name}_count", slot=slot) == len(ends)
    spent = sum(end.duration_us for end in ends) / 1e6
    assert page.total(f"{name}_sum", slot=slot) == pytest.approx(spent, abs=0.001 * len(ends))
    assert page.total("pilotage_build_info", slot=slot) == 1
    assert page.total("process_resident_memory_bytes", slot=slot) > 1 << 20


async def test_failed_attempts_connections_and_strangers_are_shown(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    arms = [make_arm("dep_a"), make_arm("dep_b", weight=0)]
    world.publish(arms=arms, routing=Routing(retries=0, fallbacks=["dep_b"]))
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port, "dep_b": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            plan = {"fault": "status", "status": 500, "times": 1}
            assert (await http.post(URL, json=body(plan))).status_code == 200
            for _ in range(3):
                await http.post(URL, json={**body(), "model": MARKER})
            await http.post(URL, content=b"{")
            await http.get("/nowhere")
            page = Page((await http.get("/metrics")).text)
            log = gateway.log()
    assert page.total("pilotage_failed_attempts_total", arm="dep_a", code="upstream_error") == 1
    assert page.total("pilotage_further_attempts_total") == 1
    assert page.total("pilotage_flagged_calls_total", flag="fell_back") == 1
    assert page.total("pilotage_refusals_total", code="model_not_found") == 3
    assert page.total("pilotage_strangers_total", code="invalid_json") == 1
    assert page.total("pilotage_strangers_total", code="unknown_url") == 1
    assert page.total("pilotage_upstream_connections", state="open") >= 1
    assert page.total("pilotage_snapshot_number") == world.n
    assert 0 <= page.total("pilotage_snapshot_age_seconds") < 60
    lines = [msgspec.json.decode(line) for line in log.splitlines()]
    (said,) = [line for line in lines if line["message"] == "calls fail: model_not_found"]
    assert (said["level"], said["alias"], said["count"]) == ("info", "unknown", 1)
    assert MARKER not in log


async def test_a_stream_says_what_the_gateway_took_before_it_began(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.tenant = msgspec.structs.replace(world.tenant, shows=True)
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            plain = await http.post(URL, json=body({"chunks": 3}))
            stream = await http.post(URL, json=body({"chunks": 3}, stream=True))
    assert 0 < float(plain.headers["x-pilotage-overhead-ms"]) < 1000
    assert 0 < float(stream.headers["x-pilotage-overhead-ms"]) < 1000
    assert float(plain.headers["x-pilotage-cost-usd"]) > 0
    assert "x-pilotage-cost-usd" not in stream.headers


async def test_metrics_are_shown_to_this_machine_only(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish()
    key = [(b"authorization", f"Bearer {world.secret}".encode())]
    public_key = world.signer.public
    async with AsyncExitStack() as stack:
        opened = open_plane(stack, Settings(), world.folder, SLOTS[0], public_key)
        assert opened.plane.refresh()
        show = opened.telemetry.show
        door = GatewayDoor(
            opened.plane, CLOCK, max_body_bytes=1 << 20, reader_timeout_s=5, show_metrics=show
        )
        for peer in ("127.0.0.1", "127.8.8.8", "::1"):
            assert await scrape(door, peer, []) == 200
        for peer in ("10.0.0.9", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.9"):
            for headers in ([], key):  # a tenant's key would show it the others' costs
                assert await scrape(door, peer, headers) == 403


async def scrape(door: GatewayDoor, peer: str, headers: list[tuple[bytes, bytes]]) -> int:
    """Ask for the page from an address and return the status; a page must be one."""
    heard: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "path": "/metrics", "method": "GET", "headers": headers,
        "client": (peer, 40_000),
    }  # fmt: skip
    await door(scope, receive, send)
    status = int(heard[0]["status"])
    if status == 200:
        assert Page(heard[1]["body"].decode()).total("pilotage_ready") == 1
    return status
