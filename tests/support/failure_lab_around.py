"""The laboratory's other half: clients that misbehave, and what fails around a gateway."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from failure_lab import LIMIT, SETTINGS, describe_bill, describe_log, describe_outcome
from gateway_cases import Serving, code_of, read_stream, serve_world
from gateway_harness import chat_body, make_http, until
from pilotage.core.frames import Ended
from pilotage.core.snapshot import LimitEntry
from raw_client import RawClient
from valkey_server import ValkeyServer, open_valkey_server

SLOW = {"chunks": LIMIT - 4, "delay_ms": 25}
DISK_BYTES = 3 << 20
BUSY = 10


class AroundRow(NamedTuple):
    """One line of the second table."""

    what: str
    seen: str
    outcome: str
    billed: str
    logged: str

    def __str__(self) -> str:
        """Return the line as Markdown."""
        return f"| {' | '.join(self)} |"


HEADER = AroundRow("what happens", "the client sees", "outcome", "billed", "logged")


class Probe(NamedTuple):
    """A call that runs or ran, for describing: what was seen, and its end."""

    seen: str
    end: Ended | None


async def leaves_within_a_stream(serving: Serving) -> Probe:
    """Close the connection after the first text."""
    with RawClient(serving.gateway) as client:
        await client.post(chat_body(SLOW, stream=True, max_tokens=LIMIT))
        await client.read_until(b"tok0")
        client.leave()
        return Probe("nothing more", await last_end(serving))


async def leaves_before_the_answer(serving: Serving) -> Probe:
    """Close the connection while the upstream thinks."""
    asked = len(serving.upstream.requests)
    with RawClient(serving.gateway) as client:
        await client.post(chat_body({"fault": "hang_before_headers"}, max_tokens=LIMIT))
        await until(lambda: len(serving.upstream.requests) > asked, "the upstream's turn")
        client.leave()
        return Probe("nothing", await last_end(serving))


async def never_reads(serving: Serving) -> Probe:
    """Send a request and read nothing of a large answer."""
    with RawClient(serving.gateway, receive_buffer=4096) as client:
        await client.post(chat_body({"fault": "firehose", "bytes": 20_000}, stream=True))
        end = await last_end(serving)
        return Probe("a connection that is dropped", end)


async def sends_two_requests_in_one_packet(serving: Serving) -> Probe:
    """Pipeline two calls."""
    with RawClient(serving.gateway) as client:
        request = client.make_post(chat_body(max_tokens=LIMIT))
        await client.send(request + request)
        await until_async(lambda: count_answers(client), 2)
        return Probe(f"{client.seen.count(b'HTTP/1.1 200')} answers", await last_end(serving))


async def sends_half_a_body(serving: Serving) -> Probe:
    """Send less than announced, and wait."""
    with RawClient(serving.gateway) as client:
        request = client.make_post(chat_body(max_tokens=LIMIT))
        await client.send(request[:-10])
        seen = await client.read_until(b"\r\n\r\n")
        return Probe(seen.split(b" ", 1)[1].split(b"\r\n")[0].decode(), None)


async def is_told_to_stop(serving: Serving) -> Probe:
    """SIGTERM while a stream runs, and again once the drain has begun."""

    async def stop() -> None:
        os.kill(serving.gateway.pid, signal.SIGTERM)
        async with make_http(serving.gateway) as http:
            while (await http.get("/readyz")).status_code == 200:
                pass
        os.kill(serving.gateway.pid, signal.SIGTERM)

    return await interrupt_stream(serving, stop)


async def is_killed(serving: Serving) -> Probe:
    """kill -9 while a stream runs, then a new process."""

    async def kill() -> None:
        os.kill(serving.gateway.pid, signal.SIGKILL)

    probe = await interrupt_stream(serving, kill)
    assert serving.gateway.process is not None
    await serving.gateway.process.wait()
    await serving.gateway.start()
    return probe._replace(end=await last_end(serving))


async def loses_its_control_plane(serving: Serving) -> Probe:
    """Nobody publishes any more; the Snapshot in use is still valid."""
    return await call(serving)  # no control plane ever ran here


async def has_an_expired_snapshot(serving: Serving) -> Probe:
    """The control plane has been away for longer than a Snapshot may be used."""
    serving.world.publish(max_age_s=-1)
    await serving.gateway.wait_serving(serving.world.n)
    return await call(serving)


async def is_refused_by_a_full_disk(serving: Serving) -> Probe:
    """The disk takes no call frames any more."""
    filler = serving.world.folder.spool / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    async with make_http(serving.gateway) as http:
        reply = await post(http)
        while reply.status_code == 200:  # the space held back for running calls
            reply = await post(http)
    filler.unlink()
    return Probe(describe_reply(reply), None)


async def call(serving: Serving) -> Probe:
    """Make one plain call."""
    before = len(list_ends(serving))
    async with make_http(serving.gateway) as http:
        reply = await post(http)
    ends = list_ends(serving)
    return Probe(describe_reply(reply), ends[-1] if len(ends) > before else None)


async def call_with_valkey(
    serving: Serving, server: ValkeyServer
) -> AsyncIterator[tuple[dict[str, Probe], str]]:
    """Make calls while Valkey is well, paused, gone, and back with an empty memory.

    Yield what came of each of these times, and what was logged in it.
    """
    await call_until(serving, 200)
    yield {"Valkey answers": await call(serving)}, ""
    for state, begin, end in (
        ("paused", server.pause, server.go_on),
        ("gone", server.kill, server.start),
    ):
        logged = len(serving.gateway.log())
        for _ in range(BUSY):  # a gateway that is used leases ahead of need
            await call(serving)
        begin()
        probes = {
            f"Valkey is {state}: what is leased still pays": await call(serving),
            f"Valkey is {state} and what is leased is used up": await use_up(serving),
        }
        end()
        await call_until(serving, 200)
        yield probes, serving.gateway.log()[logged:]
    yield {"Valkey is back with an empty memory, and filled again": await call(serving)}, ""


async def use_up(serving: Serving) -> Probe:
    """Make calls until one is refused."""
    probe = await call(serving)
    async with asyncio.timeout(30):
        while probe.seen.startswith("the answer"):
            probe = await call(serving)
    return probe


async def call_until(serving: Serving, status: int) -> None:
    """Make calls until one gets a status."""
    async with make_http(serving.gateway) as http, asyncio.timeout(30):
        reply = await post(http)
        while reply.status_code != status:
            reply = await post(http)


async def interrupt_stream(serving: Serving, interrupt: Callable[[], Awaitable[None]]) -> Probe:
    """Do something to the gateway while a stream runs; return what its client sees."""
    async with make_http(serving.gateway) as http:
        body = chat_body(SLOW, stream=True, max_tokens=LIMIT)
        async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            text, failed, is_done = "", "", False
            try:
                async for part in reply.aiter_text():
                    text += part
                    if not is_done and "tok1" in text:
                        is_done = True
                        await interrupt()
            except httpx.RemoteProtocolError:
                failed = "a broken connection"
    seen = failed or f"an error event `{read_stream(text).error}`"
    ends = list_ends(serving)
    return Probe(f"text, then {seen}", ends[-1] if ends else None)


async def post(http: httpx.AsyncClient) -> httpx.Response:
    """Make one plain call."""
    return await http.post("/v1/chat/completions", json=chat_body(max_tokens=LIMIT))


def describe_reply(reply: httpx.Response) -> str:
    """Say what a plain call got."""
    if reply.status_code == 200:
        return "the answer"
    return f"{reply.status_code} `{code_of(reply)}`"


def list_ends(serving: Serving) -> list[Ended]:
    """Return the ends on record."""
    return [frame for frame in serving.world.frames() if isinstance(frame, Ended)]


async def last_end(serving: Serving) -> Ended:
    """Wait until every begun call has ended; return the last end."""

    def is_settled() -> bool:
        calls = serving.world.ends_by_call()
        return bool(calls) and all(len(ends) == 1 for ends in calls.values())

    await until(is_settled, "the ends of all calls")
    return list_ends(serving)[-1]


async def until_async(count: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Read on until so many answers came."""
    async with asyncio.timeout(15):
        while await count() < wanted:
            pass


async def count_answers(client: RawClient) -> int:
    """Read a little more; return how many answers have begun."""
    await client.read_until(b"HTTP/1.1 200" if b"HTTP/1.1 200" not in client.seen else b"}HTTP")
    return client.seen.count(b"HTTP/1.1 200")


CLIENTS: dict[str, Callable[[Serving], Awaitable[Probe]]] = {
    "a client leaves within a stream": leaves_within_a_stream,
    "a client leaves before the answer": leaves_before_the_answer,
    "a client never reads its stream": never_reads,
    "a client sends two requests in one packet": sends_two_requests_in_one_packet,
    "a client sends half of its body": sends_half_a_body,
    "the control plane and its database are away": loses_its_control_plane,
    "the gateway is told to stop, twice, within a stream": is_told_to_stop,
    "the gateway is killed within a stream": is_killed,
    "the Snapshot has expired": has_an_expired_snapshot,
}


async def run_clients(folder: Path) -> AsyncIterator[AroundRow]:
    """Run every case, each with a gateway of its own."""
    for number, (name, run) in enumerate(CLIENTS.items()):
        async with serve_world(folder / str(number), SETTINGS) as serving:
            probe = await run(serving)
            yield make_row(name, probe, serving.gateway.log())


async def run_valkey(folder: Path) -> AsyncIterator[AroundRow]:
    """Run a gateway whose limits are counted in Valkey, and what can happen to that."""
    with open_valkey_server() as server:
        settings = {**SETTINGS, "counters": {"url": server.url}}
        async with serve_world(folder, settings) as serving:
            world = serving.world
            limit = LimitEntry(
                id="lim_month",
                project_id=world.tenant.project_id,
                tenant_id=world.tenant.id,
                measure="requests",
                per="month",
                amount=400,
            )
            world.publish(limits=[limit])
            await serving.gateway.wait_serving(world.n)
            async for probes, log in call_with_valkey(serving, server):
                for name, probe in probes.items():
                    yield make_row(name, probe, log)


@contextmanager
def small_disk(folder: Path) -> Any:  # noqa: ANN401 - a context manager of nothing
    """Make a folder a file system of a few MiB; needs root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "pilotage-test", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@asynccontextmanager
async def on_small_disk(folder: Path) -> AsyncIterator[Serving]:
    """Serve a world whose spool is on a small disk."""
    spool = folder / "data" / "spool"
    spool.mkdir(parents=True)
    with small_disk(spool):
        settings = {**SETTINGS, "spool": {"segment_mb": 1, "reserve_kb": 64}}
        async with serve_world(folder, settings) as serving:
            yield serving


async def run_disk(folder: Path) -> AsyncIterator[AroundRow]:
    """Fill the disk below the spool."""
    async with on_small_disk(folder) as serving:
        logged = len(serving.gateway.log())
        probe = await is_refused_by_a_full_disk(serving)
        yield make_row("the disk is full", probe, serving.gateway.log()[logged:])


def make_row(name: str, probe: Probe, log: str) -> AroundRow:
    """Describe a case."""
    if probe.end is None:
        return AroundRow(name, probe.seen, "no call", "nothing", describe_log(log))
    return AroundRow(
        name,
        probe.seen,
        describe_outcome(probe.end),
        describe_bill(probe.end),
        describe_log(log),
    )


async def run_around(folder: Path) -> AsyncIterator[AroundRow]:
    """Run all of it; the full disk only where a small one can be mounted."""
    for run in (run_clients, run_valkey, *([run_disk] if os.geteuid() == 0 else [])):
        async for row in run(folder / run.__name__):
            yield row
