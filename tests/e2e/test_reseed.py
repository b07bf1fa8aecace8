"""A Valkey that comes back empty is filled again: exact totals, no overrun, whoever is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import valkey_server
from faulty_upstream import FaultyUpstream
from gateway_harness import CLOCK, chat_body, until
from pilotage.core.frames import Begun, Ended, decode_frame
from pilotage.gateway.counters.valkey import PREFIX
from pilotage.kit.spool_reader import read_records
from remote_gateway import is_alive
from system import System, poll, running
from valkey_server import ValkeyServer, open_valkey_server

BUDGET_NANO = 120_000_000
COST_NANO = 200 * 500 + 1 * 1500  # of a call, at the price below
BODY = chat_body({"prompt_tokens": 200, "completion_tokens": 1}, max_tokens=16)
HANGING = chat_body({"fault": "hang_before_headers"}, max_tokens=16)
MOST_NANO = 1_000_000  # more than any of these calls may come to
GATEWAY = "pilotage.runtime.gateway"
CLIENTS = 4
CHAT = "/v1/chat/completions"


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that a test may kill."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(open_valkey_server())
        except valkey_server.MissingServerError as reason:
            pytest.skip(str(reason))


@asynccontextmanager
async def limited(path: Path, valkey: ValkeyServer) -> AsyncIterator[System]:
    """Run an installation of two gateway processes with a budget, over a provider's model."""
    async with FaultyUpstream() as upstream:
        variables = {
            "PILOTAGE_GATEWAY_PROCESSES": "2",
            "PILOTAGE_COUNTERS_URL": valkey.url,
            "PILOTAGE_EGRESS_ALLOW": f"127.0.0.1:{upstream.port}",
        }
        async with running(path / "data", **variables) as system:
            async with system.control() as control:
                address = {"provider": "openai", "base_url": f"{upstream.url}/v1"}
                await control.post("/upstreams", {"name": "bank", **address})
                await control.post("/endpoints", {"name": "chat"})
                await control.post("/prices", {"subject": "small", "input": "0.5", "output": "1.5"})
                deployment = {"upstream": "bank", "model": "small"}
                await control.finish(await control.post("/endpoints/chat/deployments", deployment))
                usd = str(Decimal(BUDGET_NANO) / 10**9)
                limit = {"name": "all", "measure": "usd", "amount": usd, "per": "total"}
                await control.post("/limits", limit)
            yield system


class Load:
    """Clients that call without a pause; ``codes`` is what they were told, in order."""

    def __init__(self, system: System) -> None:
        self.codes: list[str] = []
        self._system = system
        self._is_over = False

    async def run(self) -> None:
        """Call until told to stop."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._call_on())

    def stop(self) -> None:
        """Let the clients finish their last calls."""
        self._is_over = True

    async def wait(self, code: str, count: int = 1) -> int:
        """Wait until so many more calls were told this; return the place before them."""
        start = len(self.codes)
        await until(lambda: self.codes[start:].count(code) >= count, f"{count} x {code}", 20)
        return start

    async def _call_on(self) -> None:
        async with self._system.http() as http:
            while not self._is_over:
                reply = await call(http)
                self.codes.append("ok" if reply.is_success else reply.json()["error"]["code"])


async def call(http: httpx.AsyncClient) -> httpx.Response:
    """Call on a connection of its own, so that either process may answer."""
    return await http.post(CHAT, json=BODY, headers={"connection": "close"})


async def read_limit(system: System) -> tuple[int, int]:
    """Return what is used and what is reserved of the budget, in nano-USD."""
    async with system.http() as http:
        [limit] = (await http.get("/v1/usage")).json()["data"]
    used, reserved = (round(Decimal(limit[name]) * 10**9) for name in ("used", "reserved"))
    return used, reserved


async def read_ledger(system: System) -> int:
    async with system.control() as control:
        rows = (await control.get("/usage"))["items"]
    return sum(row["cost_nano"] for row in rows)


async def wait_agreed(system: System, *, reserved_nano: int = 0) -> int:
    """Wait until gateways and ledger say the same; return how much is used."""

    async def compare() -> dict[str, Any]:
        used, reserved = await read_limit(system)
        return {"used": used, "reserved": reserved, "ledger": await read_ledger(system)}

    def is_equal(found: dict[str, Any]) -> bool:
        return bool(found["used"] == found["ledger"] > 0) and found["reserved"] == reserved_nano

    return int((await poll(compare, is_equal))["used"])


async def test_calls_go_on_while_the_store_is_lost_and_totals_stay_exact(
    tmp_path: Path, own_valkey: ValkeyServer
) -> None:
    async with limited(tmp_path, own_valkey) as system:
        load = Load(system)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            await load.wait("ok", 200)
            lost_at = len(load.codes)
            own_valkey.kill()
            await load.wait("limits_unavailable", 20)
            own_valkey.start()
            await load.wait("ok", 200)
            back_at = len(load.codes)
            await load.wait("insufficient_quota", 20)
            load.stop()
        used = await wait_agreed(system)
    first_refused = load.codes.index("limits_unavailable")
    assert set(load.codes[:lost_at]) == {"ok"}
    assert load.codes[lost_at:first_refused].count("ok") > CLIENTS  # what was leased paid
    assert set(load.codes[lost_at:back_at]) == {"ok", "limits_unavailable"}
    assert set(load.codes[back_at:]) == {"ok", "insufficient_quota"}
    assert used == load.codes.count("ok") * COST_NANO
    assert BUDGET_NANO - MOST_NANO * CLIENTS < used <= BUDGET_NANO


async def test_what_a_lost_spool_held_stays_charged_until_its_owner_is_known_as_gone(
    tmp_path: Path, own_valkey: ValkeyServer
) -> None:
    async with limited(tmp_path, own_valkey) as system:
        spools = [system.folder.spool / f"gateway-{number}" for number in range(2)]
        await call_both(system, spools)
        charged = await wait_agreed(system)
        await hang_and_kill(system, spools)
        held = [sum_worst(spool) for spool in spools]

        spools[1].rename(tmp_path / "lost")  # as a disk that is replaced
        await system.start()
        charged += held[0]  # its calls are lost, and charged at their worst
        assert await wait_agreed(system, reserved_nano=held[1]) == charged

        own_valkey.kill()
        own_valkey.start()
        charged += await wait_both_serve(system, own_valkey)
        charged += await call_both(system, spools)
        assert await wait_agreed(system) == charged


async def test_a_slot_that_nobody_runs_is_not_waited_for(
    tmp_path: Path, own_valkey: ValkeyServer
) -> None:
    async with limited(tmp_path, own_valkey) as system:
        spools = [system.folder.spool / f"gateway-{number}" for number in range(2)]
        await call_both(system, spools)
        charged = await wait_agreed(system)
        await hang_and_kill(system, spools)
        charged += sum(sum_worst(spool) for spool in spools)
        own_valkey.kill()
        own_valkey.start()
        system.environment["PILOTAGE_GATEWAY_PROCESSES"] = "1"
        await system.start()
        async with system.http() as http:
            assert (await http.post(CHAT, json=BODY)).status_code == 200
        assert await read_limit(system) == (charged + COST_NANO, 0)


async def call_both(system: System, spools: list[Path]) -> int:
    """Call until both processes have ended some calls; return what that cost."""
    before = [count_frames(spool) for spool in spools]
    calls = 0
    async with system.http() as http:
        while any(count_frames(spool) < old + 4 for spool, old in zip(spools, before, strict=True)):
            reply = await call(http)
            assert reply.status_code == 200, reply.text
            calls += 1
    return calls * COST_NANO


async def wait_both_serve(system: System, valkey: ValkeyServer) -> int:
    """Call until the store is filled again and many in a row are served; return what that cost.

    Before, a process may serve from what it had leased, and notice the loss when that is used up.
    """
    served = in_a_row = 0
    end_s = CLOCK.monotonic_s() + 20
    async with system.http() as http:
        while in_a_row < 24:
            assert CLOCK.monotonic_s() < end_s, "the store stays closed"
            is_served = (await call(http)).is_success
            served += is_served
            in_a_row = in_a_row + 1 if is_served and is_filled(valkey) else 0
    return served * COST_NANO


def is_filled(valkey: ValkeyServer) -> bool:
    """Say whether both processes have told the store what they know."""
    are_registered = valkey.run("SCARD", f"{PREFIX}registered") == ":2\r\n"
    return are_registered and valkey.run("HGET", f"{PREFIX}state", "open") == "$1\r\n1\r\n"


async def hang_and_kill(system: System, spools: list[Path]) -> None:
    """Begin calls that no model answers, in both processes; then kill -9 everything."""
    assert system.process is not None

    async def hang() -> None:
        with suppress(httpx.TransportError):
            async with system.http() as http:
                await http.post(CHAT, json=HANGING)

    async with asyncio.TaskGroup() as group:
        while not all(sum_worst(spool) for spool in spools):
            more = count_open(spools) + 1
            group.create_task(hang())
            await until(partial(has_open, spools, more), "a call that hangs")
        gateways = system.children(GATEWAY)
        await until_reserved(system, spools)
        system.process.kill()
        await system.process.wait()
    await until(lambda: not any(map(is_alive, gateways)), "the end of all children")


async def until_reserved(system: System, spools: list[Path]) -> None:
    """Wait until the store has been told of every call that hangs."""

    async def read() -> dict[str, Any]:
        return {"reserved": (await read_limit(system))[1], "open": sum(map(sum_worst, spools))}

    await poll(read, lambda found: found["reserved"] == found["open"])


def count_frames(spool: Path) -> int:
    return len(read_records(spool, 0, 1_000_000))


def has_open(spools: list[Path], count: int) -> bool:
    return count_open(spools) >= count


def count_open(spools: list[Path]) -> int:
    return sum(len(list_open(spool)) for spool in spools)


def sum_worst(spool: Path) -> int:
    """Return what the calls that are open in a spool may come to, in nano-USD."""
    return sum(list_open(spool))


def list_open(spool: Path) -> list[int]:
    frames = [decode_frame(payload) for _, payload in read_records(spool, 0, 1_000_000)]
    ended = {frame.call_id for frame in frames if isinstance(frame, Ended)}
    begun = [frame for frame in frames if isinstance(frame, Begun)]
    return [frame.worst_nano for frame in begun if frame.call_id not in ended]
