"""Limits in a real gateway process with a real Valkey: refusals, kill -9, a store that is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, chat_body, make_http, until
from pilotage.core.frames import Ended, Flag, Outcome
from pilotage.core.snapshot import LimitEntry
from valkey_server import ValkeyServer

CALLS = 100  # of each client in each phase
CLIENTS = 4
LARGE = {"prompt_tokens": 300, "completion_tokens": 200}  # about what a call may come to at most


class Limited(NamedTuple):
    """A gateway with limits, and a client of it."""

    world: World
    gateway: GatewayProcess
    http: httpx.AsyncClient


@asynccontextmanager
async def limited(path: Path, valkey: ValkeyServer, **limit: Any) -> AsyncIterator[Limited]:  # noqa: ANN401
    valkey.run("FLUSHALL")
    world = World(path / "data")
    values: dict[str, Any] = {"id": "lim_1", "measure": "cost", "per": "month", "amount": 10**12}
    world.publish(limits=[LimitEntry(project_id=world.tenant.project_id, **values | limit)])
    settings = {"counters": {"url": valkey.url}}
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world, settings) as gateway, make_http(gateway) as http:
            yield Limited(world, gateway, http)


def spent(world: World) -> int:
    return sum(frame.cost_nano for frame in world.frames() if isinstance(frame, Ended))


async def read_used(http: httpx.AsyncClient) -> tuple[int, int]:
    [limit] = (await http.get("/v1/usage")).json()["data"]
    return tuple(round(float(limit[name]) * 1e9) for name in ("used", "reserved"))  # type: ignore[return-value]


async def test_a_budget_is_used_up_and_no_more(tmp_path: Path, valkey: ValkeyServer) -> None:
    body = chat_body({"prompt_tokens": 100, "completion_tokens": 50}, max_tokens=60)
    async with limited(tmp_path, valkey, amount=2_000_000) as it:
        replies = [await it.http.post("/v1/chat/completions", json=body) for _ in range(25)]
        codes = [reply.status_code for reply in replies]
        refused = replies[-1]
        assert set(codes) == {200, 429}
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert "0.002 USD a month" in refused.json()["error"]["message"]
        assert spent(it.world) <= 2_000_000
        assert (await read_used(it.http)) == (spent(it.world), 0)


async def test_kill_9_leaves_exact_totals_and_nothing_held(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    async with limited(tmp_path, valkey) as it:
        for _ in range(5):
            reply = await it.http.post("/v1/chat/completions", json=chat_body())
            assert reply.status_code == 200
        hanging = asyncio.ensure_future(
            it.http.post("/v1/chat/completions", json=chat_body({"fault": "hang_before_headers"}))
        )
        await until(lambda: len(it.world.ends_by_call()) == 6, "six calls")
        await it.gateway.kill()
        await asyncio.gather(hanging, return_exceptions=True)
        await it.gateway.start()
        [lost] = [
            frame
            for frame in it.world.frames()
            if isinstance(frame, Ended) and frame.outcome is Outcome.LOST
        ]
        assert lost.cost_nano > 0
        assert lost.counters == [key for key in lost.counters if key.startswith("lim_1|cost|")]
        assert (await read_used(it.http)) == (spent(it.world), 0)


async def test_a_paused_store_slows_nobody_and_is_said_once(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    async with limited(tmp_path, valkey, on_store_loss="open") as it:
        with_store = await call_many(it.http)
        valkey.pause()
        try:
            await call_many(it.http)  # in which the loss is noticed
            without = await call_many(it.http)
        finally:
            valkey.go_on()
        await until(lambda: "is back" in it.gateway.log(), "the store")
        with_store += await call_many(it.http)
        said = [line for line in it.gateway.log().splitlines() if "store of counters" in line]
        flags = {
            flag for frame in it.world.frames() if isinstance(frame, Ended) for flag in frame.flags
        }
        p99s = [percentile(times, 0.99) * 1000 for times in (with_store, without)]
        print(f"p99 with the store {p99s[0]:.2f} ms, while it is away {p99s[1]:.2f} ms")
        assert len(said) == 2, said
        assert flags == {Flag.LIMIT_UNKNOWN}
        assert p99s[1] <= max(p99s[0] * 3, 100)
        assert (await read_used(it.http))[0] == spent(it.world)


async def call_many(http: httpx.AsyncClient) -> list[float]:
    """Make calls from a few clients at once and return how long each took; all succeed."""
    times: list[float] = []

    async def client() -> None:
        for _ in range(CALLS):
            began = time.perf_counter()
            reply = await http.post("/v1/chat/completions", json=chat_body(LARGE))
            times.append(time.perf_counter() - began)
            assert reply.status_code == 200, reply.text

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return times


def percentile(times: list[float], part: float) -> float:
    return sorted(times)[int(len(times) * part)]
