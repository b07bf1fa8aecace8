"""kill -9, a full disk, and weights that move under load: no call is lost, torn or failed."""

import asyncio
import math
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import httpx
import pytest

from faulty_upstream import FaultyUpstream
from gateway_cases import code_of, read_ends, read_frames, read_stream, serve_world
from gateway_harness import CLOCK, PATIENCE_S, GatewayProcess, World, chat_body, make_http, until
from raw_spool import read_raw

OPEN = 50
DONE = 20
INPUT_NANO, OUTPUT_NANO = 500, 1500  # 0.50 and 1.50 USD per 10^6 tokens
LIMIT = 256
ENDLESS = {"chunks": 100_000, "delay_ms": 20}
DISK_BYTES = 3 << 20
SMALL_SPOOL = {"spool": {"segment_mb": 1, "reserve_kb": 256}}


async def test_kill_9_loses_no_call_and_charges_open_ones_at_their_worst(tmp_path: Path) -> None:
    async with serve_world(tmp_path) as serving, AsyncExitStack() as stack:
        world, upstream, gateway = serving
        http = await stack.enter_async_context(make_http(gateway, limits=httpx.Limits()))
        done = {(await post(http)).headers["x-request-id"] for _ in range(DONE)}
        streams = await asyncio.gather(*(open_stream(stack, http) for _ in range(OPEN)))
        opened = {response.headers["x-request-id"] for response in streams}
        await gateway.kill()
        breaks = await asyncio.gather(*(read_rest(response) for response in streams))
        assert breaks == ["broken off"] * OPEN
        assert {frame.call_id for frame in read_frames(world.spool)} == done | opened
        assert sum(map(len, read_ends(world.spool).values())) == DONE

        await gateway.start()
        ends = read_ends(world.spool)
        assert len(upstream.requests) == len(ends) == DONE + OPEN
        assert set(ends) == done | opened
        assert all(len(each) == 1 for each in ends.values())
        assert {ends[call_id][0].outcome for call_id in done} == {"ok"}
        size = int(upstream.requests[-1].headers["content-length"])
        size -= len(f'"max_tokens":{LIMIT},"stream_options":{{"include_usage":true}},')
        least_nano = size * INPUT_NANO + LIMIT * OUTPUT_NANO
        worst_nano = {f.call_id: f.fields[10] for f in read_frames(world.spool) if f.tag == "begun"}
        for call_id in opened:
            [end] = ends[call_id]
            cost_nano, is_estimated = end.fields[11], end.fields[12]
            assert (end.outcome, cost_nano, is_estimated) == ("lost", worst_nano[call_id], True)
            assert least_nano <= cost_nano < 3 * least_nano  # a byte is more than a token
        await until(lambda: upstream.open_connections == 0, "no connection of the dead process")

        again = (await post(http)).headers["x-request-id"]
        assert again not in done | opened
        assert read_ends(world.spool)[again][0].outcome == "ok"
        assert await gateway.stop() == 0
        await gateway.start()
        assert len(read_ends(world.spool)) == DONE + OPEN + 1
        assert all(len(each) == 1 for each in read_ends(world.spool).values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a spool folder that is a file system of 3 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = World(tmp_path / "data").folder.spool
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "pilotage-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_calls_and_ends_the_running_ones(
    tmp_path: Path, small_disk: Path
) -> None:
    async with (
        serve_world(tmp_path, SMALL_SPOOL) as serving,
        make_http(serving.gateway) as http,
        AsyncExitStack() as stack,
    ):
        world = serving.world
        plan = {"chunks": 40, "delay_ms": 20}
        streams = await asyncio.gather(*(open_stream(stack, http, plan) for _ in range(10)))
        filler = fill(small_disk)
        refused = await post_until(http, 503)
        assert code_of(refused) == "spool_full"
        assert int(refused.headers["retry-after"]) >= 1
        asked = len(serving.upstream.requests)
        assert (await post(http)).status_code == 503
        assert len(serving.upstream.requests) == asked
        for body in await asyncio.gather(*(response.aread() for response in streams)):
            assert read_stream(body.decode()).is_done
        records, torn = read_raw(world.spool)
        assert torn == {}
        ends = read_ends(world.spool)
        assert len(ends) == asked  # what was refused is no call
        assert all([end.outcome for end in each] == ["ok"] for each in ends.values())

        filler.unlink()
        taken = await post_until(http, 200)
        [end] = read_ends(world.spool)[taken.headers["x-request-id"]]
        assert end.outcome == "ok"
        assert len(read_raw(world.spool)[0]) == len(records) + 2
        assert await serving.gateway.stop() == 0


class Split:
    """A gateway with two arms, each an upstream of its own."""

    def __init__(
        self, world: World, gateway: GatewayProcess, arms: dict[str, FaultyUpstream]
    ) -> None:
        self.world = world
        self.gateway = gateway
        self.arms = arms

    async def move(self, a: int, b: int) -> None:
        """Publish weights and wait until they are served."""
        self.world.publish({"dep_a": a, "dep_b": b})
        await self.gateway.wait_serving(self.world.n)


@pytest.fixture
async def split(tmp_path: Path) -> AsyncIterator[Split]:
    world = World(tmp_path / "data")
    world.publish({"dep_a": 9000, "dep_b": 1000})
    async with FaultyUpstream() as a, FaultyUpstream() as b:
        world.point({"dep_a": a.port, "dep_b": b.port})
        async with GatewayProcess(world) as gateway:
            yield Split(world, gateway, {"dep_a": a, "dep_b": b})


async def test_no_call_fails_while_weights_move(split: Split) -> None:
    calls, moves = 200, 2
    async with make_http(split.gateway, limits=httpx.Limits(max_connections=calls)) as http:
        for _ in range(moves):
            running = [asyncio.ensure_future(post(http)) for _ in range(calls)]
            await split.move(0, 10_000)
            assert {arm_of(each) for each in await asyncio.gather(*map(post, [http] * 20))} == {
                "dep_b"
            }
            await split.move(9000, 1000)
            answers = await asyncio.gather(*running)
            assert Counter(each.status_code for each in answers) == {200: calls}
    ends = read_ends(split.world.spool)
    assert len(ends) == moves * (calls + 20)
    assert all([end.outcome for end in each] == ["ok"] for each in ends.values())
    assert sum(len(upstream.requests) for upstream in split.arms.values()) == len(ends)


async def test_the_split_of_2000_calls_agrees_with_the_weights(split: Split) -> None:
    calls, workers = 2000, 20
    async with make_http(split.gateway) as http:

        async def work() -> list[httpx.Response]:
            return [await post(http) for _ in range(calls // workers)]

        answers = list(chain(*await asyncio.gather(*(work() for _ in range(workers)))))
    seen = Counter(arm_of(each) for each in answers)
    assert {arm: len(upstream.requests) for arm, upstream in split.arms.items()} == dict(seen)
    for answer in answers:
        version = answer.headers["x-pilotage-model-version"]
        assert version == f"model-{arm_of(answer)}@1.0.0"
    recorded = Counter(each[0].fields[17] for each in read_ends(split.world.spool).values())
    assert recorded == seen
    low, high = binomial_bounds(calls, 9, 1, Fraction(1, 10**6))
    assert low <= seen["dep_a"] <= high


def binomial_bounds(n: int, weight: int, others: int, risk: Fraction) -> tuple[int, int]:
    """Return the counts between which a right split lies but for a risk, half on each side."""
    chances = [math.comb(n, k) * weight**k * others ** (n - k) for k in range(n + 1)]
    limit = risk / 2 * (weight + others) ** n
    low = next(k for k, least in enumerate(accumulate(chances)) if least > limit)
    above = next(k for k, most in enumerate(accumulate(reversed(chances))) if most > limit)
    return low, n - above


def arm_of(answer: httpx.Response) -> str:
    return str(answer.headers["x-pilotage-arm"])


async def post(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=chat_body())


async def post_until(http: httpx.AsyncClient, status: int) -> httpx.Response:
    """Call until a status comes."""
    end_s = CLOCK.monotonic_s() + PATIENCE_S
    while (answer := await post(http)).status_code != status:
        assert CLOCK.monotonic_s() < end_s, f"never {status}, but {answer.status_code}"
    return answer


async def open_stream(
    stack: AsyncExitStack, http: httpx.AsyncClient, plan: dict[str, Any] | None = None
) -> httpx.Response:
    """Return a streamed answer of which the head has come."""
    body = chat_body(plan or ENDLESS, stream=True)
    stream = http.stream("POST", "/v1/chat/completions", json=body)
    response = await stack.enter_async_context(stream)
    assert response.status_code == 200
    return response


async def read_rest(response: httpx.Response) -> str:
    try:
        await response.aread()
    except httpx.TransportError:
        return "broken off"
    return "ended"


def fill(disk: Path) -> Path:
    """Take all the space of a file system."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(b"\1" * (free.f_bavail * free.f_frsize))
    return filler


def test_the_bounds_are_those_of_the_binomial() -> None:
    assert binomial_bounds(10, 1, 1, Fraction(1, 10)) == (2, 8)
