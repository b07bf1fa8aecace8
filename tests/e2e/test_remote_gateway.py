"""A gateway apart from its control plane: whoever dies meanwhile, each call is charged once."""

import asyncio
import shutil
import signal
import sqlite3
import zlib
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from faulty_upstream import FaultyUpstream
from gateway_cases import code_of, read_ends
from gateway_harness import CLOCK, until
from pilotage.kit.spool_copy import pack_records
from pilotage.kit.spool_reader import list_spools, read_epoch, read_records
from raw_spool import read_raw
from remote_gateway import Remote, is_alive, make_remote, running_remote
from system import System, add_model, ask, poll, running, serve

CONTROL = "pilotage.server.process"
PRICE_INPUT, PRICE_OUTPUT = 500, 1500  # nano-USD per token of the price that serve() makes


class Apart:
    """An installation, a gateway apart from it, and what answers the gateway's calls."""

    def __init__(self, system: System, remote: Remote, upstream: FaultyUpstream) -> None:
        self.system = system
        self.remote = remote
        self.upstream = upstream
        self.secret = system.credentials.api_key

    async def call(self, http: httpx.AsyncClient) -> httpx.Response:
        """Make a call."""
        return await http.post("/v1/chat/completions", json=ask("chat"))

    @property
    def spool(self) -> Path:
        """The spool of the gateway's only slot."""
        return self.remote.folder.spool / "gateway-0"

    async def wait_charged(self) -> None:
        """Wait until the ledger equals the raw spool, to the nano-dollar, each call once."""
        ends = read_ends(self.spool)
        assert all(len(each) == 1 for each in ends.values())
        expected = sum(each[0].fields[11] for each in ends.values())
        async with self.system.control() as control:
            rows = await poll(
                lambda: control.get("/usage", by="tenant"),
                lambda shown: sum(row["calls"] for row in shown["items"]) >= len(ends),
            )
        assert sum(row["calls"] for row in rows["items"]) == len(ends)
        assert sum(row["cost_nano"] for row in rows["items"]) == expected
        (copy,) = [f for f in list_spools(self.system.folder.spool) if "remote-" in f.name]
        assert read_raw(copy)[0] == read_raw(self.spool)[0]


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as found:
        yield found


@pytest.fixture
async def system(tmp_path: Path, upstream: FaultyUpstream) -> AsyncIterator[System]:
    """An installation whose only model is a provider's."""
    async with running(tmp_path / "data") as found:
        async with found.control() as control:
            address = {"provider": "openai", "base_url": f"{upstream.url}/v1"}
            await control.post("/upstreams", {"name": "bank", **address})
            await control.post("/endpoints", {"name": "chat"})
            await control.post("/prices", {"subject": "small", "input": "0.5", "output": "1.5"})
            await control.finish(
                await control.post(
                    "/endpoints/chat/deployments", {"upstream": "bank", "model": "small"}
                )
            )
        yield found


def reach(upstream: FaultyUpstream) -> dict[str, str]:
    """Return the setting that lets a gateway call the upstream."""
    return {"PILOTAGE_EGRESS_ALLOW": f"127.0.0.1:{upstream.port}"}


@pytest.fixture
async def apart(tmp_path: Path, system: System, upstream: FaultyUpstream) -> AsyncIterator[Apart]:
    async with running_remote(tmp_path / "remote", system, "paris", **reach(upstream)) as remote:
        yield Apart(system, remote, upstream)


async def wait_more(items: list[int], count: int, what: str) -> None:
    """Wait until a list has grown."""
    least = len(items) + count
    await until(lambda: len(items) >= least, what)


async def test_calls_go_on_and_are_charged_once_whoever_is_killed(apart: Apart) -> None:
    system, remote = apart.system, apart.remote
    stopped, outcomes = asyncio.Event(), []

    async def call_on() -> None:
        while not stopped.is_set():
            await until(lambda: remote.gateway_url != "", "the gateway")
            async with remote.http(apart.secret) as http:
                with suppress(httpx.TransportError):  # the gateway itself is killed, too
                    outcomes.append((await apart.call(http)).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(call_on())
        for _ in range(2):
            control = system.child(CONTROL)
            control.kill()
            await wait_more(outcomes, 10, "calls without a control plane")
            await system.replaced(control, CONTROL)
        await remote.kill()
        await remote.start()
        control = system.child(CONTROL)
        control.kill()
        await remote.kill()
        await remote.start()  # with nobody there: from what is on disk
        await wait_more(outcomes, 10, "calls after the restart")
        stopped.set()
    assert set(outcomes) <= {200, 503}
    assert outcomes.count(200) >= 20
    await system.replaced(control, CONTROL)
    assert await remote.stop() == 0
    await apart.wait_charged()


async def test_a_gateway_starts_and_serves_without_its_control_plane(apart: Apart) -> None:
    started_s = CLOCK.monotonic_s()
    assert await apart.system.stop() == 0
    assert CLOCK.monotonic_s() - started_s < 4  # it does not wait for those who poll it
    assert await apart.remote.stop() == 0
    await apart.remote.start()
    async with apart.remote.http(apart.secret) as http:
        assert (await apart.call(http)).status_code == 200
    assert await apart.remote.stop() == 0


async def test_a_locked_database_stops_no_call_and_loses_none(apart: Apart) -> None:
    with closing(sqlite3.connect(apart.system.folder.database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        async with apart.remote.http(apart.secret) as http, apart.system.http() as beside:
            for _ in range(10):
                assert (await apart.call(http)).status_code == 200
            assert (await beside.get("/v1/models")).status_code == 200
        holder.rollback()
    await apart.wait_charged()


async def test_a_revoked_key_is_refused_apart_when_its_revocation_returns(apart: Apart) -> None:
    async with apart.system.control() as control, apart.remote.http("") as http:
        for _ in range(3):
            made = await control.post("/keys", {"name": "app"})
            who = {"authorization": f"Bearer {made['secret']}"}
            assert (await http.get("/v1/models", headers=who)).status_code == 200
            started_s = CLOCK.monotonic_s()
            await control.post(f"/keys/{made['id']}:revoke")
            assert (await http.get("/v1/models", headers=who)).status_code == 401
            assert CLOCK.monotonic_s() - started_s < 2


async def test_a_dead_gateway_delays_changes_for_seconds_only(apart: Apart) -> None:
    async with apart.system.control() as control:
        await poll(lambda: control.get("/gateways/paris"), lambda shown: bool(shown["slots"]))
    await apart.remote.kill()
    async with apart.system.control() as control:

        async def change() -> float:
            started_s = CLOCK.monotonic_s()
            await control.post("/keys", {"name": "app"})
            return CLOCK.monotonic_s() - started_s

        assert await change() < 3
        end_s = CLOCK.monotonic_s() + 12
        while await change() > 1:
            assert CLOCK.monotonic_s() < end_s, "changes still wait for a dead gateway"
        shown = await control.get("/gateways/paris")
    assert [slot["is_alive"] for slot in shown["slots"]] == [False]


async def test_a_running_call_is_finished_and_handed_in_before_the_end(apart: Apart) -> None:
    slow = {"chunks": 30, "delay_ms": 20}
    async with apart.remote.http(apart.secret) as http:
        request = ask("chat", text=str(slow).replace("'", '"'), stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            stopping = asyncio.ensure_future(apart.remote.stop())
            rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await stopping == 0
    assert "Traceback" not in apart.remote.log.read_text()
    seq = len(read_raw(apart.spool)[0])
    async with apart.system.control() as control:
        (copy,) = [f for f in list_spools(apart.system.folder.spool) if "remote-" in f.name]
        assert len(read_raw(copy)[0]) == seq
        assert (await control.get("/gateways/paris"))["state"] == "active"
    await apart.wait_charged()


async def test_a_second_signal_ends_at_once(apart: Apart) -> None:
    async with apart.remote.http(apart.secret) as http:
        request = ask("chat", text='{"chunks": 100000, "delay_ms": 20}', stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            await anext(stream.aiter_lines())
            children = apart.remote.gateways()
            assert apart.remote.process is not None
            apart.remote.process.send_signal(signal.SIGINT)
            apart.remote.process.send_signal(signal.SIGINT)
            await asyncio.wait_for(apart.remote.process.wait(), 10)
    await until(lambda: not any(map(is_alive, children)), "the end of all children")


async def test_a_twin_cannot_write_the_spool_of_another(apart: Apart, tmp_path: Path) -> None:
    """Neither with another credential nor from a copy of the data folder."""
    async with apart.remote.http(apart.secret) as http:
        for _ in range(5):
            assert (await apart.call(http)).status_code == 200
    await apart.wait_charged()
    epoch = read_epoch(apart.spool)
    (copy,) = [f for f in list_spools(apart.system.folder.spool) if "remote-" in f.name]
    kept = read_raw(copy)

    thief = await make_remote(tmp_path / "thief", apart.system, "thief")
    secret = Path(thief.environment["PILOTAGE_REMOTE_CREDENTIAL"].removeprefix("file:")).read_text()
    stolen = zlib.compress(pack_records(read_records(apart.spool, 0, 4)))
    async with httpx.AsyncClient(
        base_url=apart.system.server.control_url,
        headers={"authorization": f"Bearer {secret}"},
        trust_env=False,
    ) as http:
        path = f"/api/v1/gateway/spools/gateway-0/{epoch}"
        reply = await http.post(path, params={"from_seq": "1"}, content=stolen)
        assert reply.json() == {"seq": 4}  # its own spool, of which it says the same life
    assert read_raw(copy) == kept

    assert await apart.remote.stop() == 0
    shutil.copytree(apart.remote.folder.path, tmp_path / "twin")
    await apart.remote.start()
    environment = apart.remote.environment | {"PILOTAGE_DATA_DIR": str(tmp_path / "twin")}
    twin = Remote(tmp_path / "twin", **environment)
    try:
        await twin.start()
        for gateway in (twin, apart.remote):
            async with gateway.http(apart.secret) as http:
                assert (await apart.call(http)).status_code == 200
        logs = (twin.log, apart.remote.log)
        await until(
            lambda: any("two gateways write" in log.read_text() for log in logs), "an alarm"
        )
    finally:
        await twin.stop()


async def test_snapshots_come_from_a_folder_as_well(system: System, tmp_path: Path) -> None:
    environment = {"PILOTAGE_REMOTE_SNAPSHOTS": str(system.folder.snapshots)}
    async with (
        running_remote(tmp_path / "remote", system, "paris", **environment) as remote,
        system.control() as control,
        remote.http("") as http,
    ):
        made = await control.post("/keys", {"name": "app"})
        who = {"authorization": f"Bearer {made['secret']}"}
        assert (await http.get("/v1/models", headers=who)).status_code == 200
        await control.post(f"/keys/{made['id']}:revoke")
        assert (await http.get("/v1/models", headers=who)).status_code == 401


async def test_an_alias_of_local_replicas_alone_has_none_apart(
    system: System, tmp_path: Path, tiny_gguf: Path
) -> None:
    async with system.control() as control:
        await serve(control, "own", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
    async with (
        running_remote(tmp_path / "remote", system, "paris") as remote,
        remote.http(system.credentials.api_key) as http,
    ):
        reply = await http.post("/v1/chat/completions", json=ask("own"))
    assert (reply.status_code, code_of(reply)) == (503, "no_replica")


async def test_an_expired_snapshot_is_not_served(tmp_path: Path) -> None:
    async with running(tmp_path / "data", PILOTAGE_SNAPSHOT_MAX_AGE="3s") as system:
        remote = await make_remote(tmp_path / "remote", system, "paris")
        await remote.start()
        secret = system.credentials.api_key
        assert await system.stop() == 0
        await until(lambda: remote.ask_ready() == 503, "an expired Snapshot")
        async with remote.http(secret) as http:
            reply = await http.get("/v1/models")
            assert (reply.status_code, code_of(reply)) == (503, "not_ready")
        assert await remote.stop() == 0


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("PILOTAGE_REMOTE_PUBLIC_KEY", "remote.public_key must be the key"),
        ("PILOTAGE_REMOTE_CONTROL_URL", "needs a control plane"),
        ("PILOTAGE_REMOTE_CREDENTIAL", "secret is given by reference"),
    ],
)
async def test_what_is_missing_is_named_before_anything_starts(
    tmp_path: Path, missing: str, said: str
) -> None:
    environment = {
        "PILOTAGE_REMOTE_PUBLIC_KEY": "0" * 64,
        "PILOTAGE_REMOTE_CONTROL_URL": "http://127.0.0.1:1",
        "PILOTAGE_REMOTE_CREDENTIAL": "env:HOME",
    }
    del environment[missing]
    remote = Remote(tmp_path / "remote", **environment)
    process = await remote.run()
    assert await asyncio.wait_for(process.wait(), 20) == 2
    assert said in remote.log.read_text()
    assert not remote.folder.path.exists()
