"""The whole installation with real processes: what a user sees, and what kill -9 leaves behind."""

import asyncio
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from gateway_harness import until
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Frame, decode_frame
from pilotage.kit.spool_reader import list_spools, read_records
from system import System, add_model, ask, poll, running, serve

GATEWAY = "pilotage.runtime.gateway"
CONTROL = "pilotage.server.process"
ENGINE = "llamacpp.child"


@pytest.fixture
async def system(tmp_path: Path, tiny_gguf: Path) -> AsyncIterator[System]:
    async with running(tmp_path / "data") as found:
        async with found.control() as control:
            model = await add_model(control, tiny_gguf, "tiny", "1.0.0")
            await serve(control, "chat", model)
        yield found


async def test_a_call_is_answered_counted_and_charged(system: System) -> None:
    async with system.http() as http:
        reply = await http.post("/v1/chat/completions", json=ask("chat"))
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    assert reply.headers["x-pilotage-model-version"] == "tiny@1.0.0"
    assert usage["completion_tokens"] == 8
    async with system.control() as control:
        usage_by = await poll(
            lambda: control.get("/usage", by="tenant,model,day"), lambda reply: bool(reply["items"])
        )
        rows = usage_by["items"]
        assert rows[0]["calls"] == 1
        expected = usage["prompt_tokens"] * 500 + usage["completion_tokens"] * 1500
        assert rows[0]["cost_nano"] == expected
        assert (await control.post("/audit:verify"))["is_intact"]


async def test_a_key_works_before_its_creation_returns_and_not_after_its_revocation(
    system: System,
) -> None:
    async with system.control() as control:
        made = await control.post("/keys", {"tenant": "default", "name": "app"})
        async with system.http(made["secret"]) as http:
            assert (await http.get("/v1/models")).status_code == 200
            await control.post(f"/keys/{made['id']}:revoke")
            refused = await http.get("/v1/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"


async def test_an_expiring_key_stops_working(system: System) -> None:
    async with system.control() as control:
        made = await control.post(
            "/keys", {"tenant": "default", "name": "brief", "expires_in": "500ms"}
        )
    async with system.http(made["secret"]) as http:
        while (reply := await http.get("/v1/models")).status_code == 200:
            pass
    assert reply.json()["error"]["message"].startswith("The API key has expired")


async def test_admin_credential_is_not_an_api_key_nor_the_reverse(system: System) -> None:
    async with system.http(system.credentials.admin) as http:
        assert (await http.get("/v1/models")).status_code == 401
        refused = await http.get(
            f"{system.server.control_url}/api/v1/keys",
            headers={"authorization": f"Bearer {system.credentials.api_key}"},
        )
    assert refused.status_code == 401
    assert refused.json()["code"] == "invalid_credential"


async def test_traffic_moves_with_one_write_no_restart_and_no_failed_call(
    system: System, tiny_gguf: Path
) -> None:
    pids = {child.pid for child in system.children()}
    async with system.control() as control, system.http() as http:
        second = await add_model(control, tiny_gguf, "tiny", "1.1.0")
        await control.finish(await control.post("/endpoints/chat/deployments", {"model": second}))
        endpoint = await control.get("/endpoints/chat")
        moved = await control.put(
            "/endpoints/chat/split", {"split": {"1.0.0": "90", "1.1.0": "10"}}, endpoint["rev"]
        )
        before = await control.get("/snapshot")

        async def call() -> str:
            reply = await http.post("/v1/chat/completions", json=ask("chat"))
            assert reply.status_code == 200, reply.text
            return str(reply.headers["x-pilotage-model-version"])

        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call()) for _ in range(60)]
            await group.create_task(call())
            await control.put("/endpoints/chat/split", {"split": {"1.1.0": "100"}}, moved["rev"])
            after = await control.get("/snapshot")
        assert after["n"] == before["n"] + 1
        assert {await call() for _ in range(20)} == {"tiny@1.1.0"}
        assert len(calls) == 60
        assert pids <= {child.pid for child in system.children()}
        with pytest.raises(PilotageError) as stale:
            await control.put("/endpoints/chat/split", {"split": {"1.0.0": "100"}}, moved["rev"])
        assert stale.value.code == "precondition_failed"
        entries = [entry async for entry in control.list("/audit/entries")]
        last = [entry for entry in entries if entry["event"] == "endpoints.endpoint.split"][-1]
        said = (await control.get(f"/audit/entries/{last['position']}"))["entry"]
        assert said["before"]["split"] != said["after"]["split"]


async def test_a_killed_gateway_is_replaced_and_its_calls_are_ended(system: System) -> None:
    old = system.child(GATEWAY)
    async with system.http() as http, asyncio.TaskGroup() as group:
        streams = [
            group.create_task(
                _swallow(
                    http.post("/v1/chat/completions", json=ask("chat", stream=True, max_tokens=400))
                )
            )
            for _ in range(12)
        ]
        await until(lambda: _count(system)[0] >= 12, "12 open calls")
        old.kill()
        await system.replaced(old, GATEWAY)
    assert all(stream.done() for stream in streams)
    await system.wait_ready()
    begun, ended, lost = _count(system)
    assert begun == ended == 12
    assert lost >= 1
    async with system.http() as http:
        assert (await http.post("/v1/chat/completions", json=ask("chat"))).status_code == 200
    await _ledger_equals_frames(system)


async def test_the_control_process_may_die_at_any_time(system: System) -> None:
    engine, old = system.child(ENGINE), system.child(CONTROL)
    old.kill()
    async with system.http() as http:
        assert (await http.post("/v1/chat/completions", json=ask("chat"))).status_code == 200
    await system.replaced(old, CONTROL)
    await system.wait_served("chat")
    assert system.child(ENGINE).pid == engine.pid
    await _ledger_equals_frames(system)


async def test_a_killed_engine_ends_its_streams_with_an_error_frame_and_comes_back(
    system: System,
) -> None:
    old = system.child(ENGINE)
    async with system.http() as http:
        request = ask("chat", stream=True, max_tokens=1900)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            old.kill()
            rest = [line async for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "upstream_cut"
        assert "data: [DONE]" not in rest
        await system.replaced(old, ENGINE)
        await system.wait_served("chat")
        while (
            reply := await http.post("/v1/chat/completions", json=ask("chat"))
        ).status_code != 200:
            assert reply.status_code in (502, 503), reply.text


async def test_a_killed_supervisor_leaves_no_orphan_and_a_restart_mends_everything(
    system: System,
) -> None:
    children = system.children()
    assert len(children) >= 3
    assert system.process is not None
    system.process.kill()
    await system.process.wait()
    await until(lambda: not any(_is_alive(child) for child in children), "the end of all children")
    started = time.monotonic()
    await system.start()
    await system.wait_served("chat")
    async with system.http() as http:
        while (
            reply := await http.post("/v1/chat/completions", json=ask("chat"))
        ).status_code == 503:
            pass
    assert reply.status_code == 200, reply.text
    assert time.monotonic() - started < 15


async def test_sigterm_lets_a_running_stream_finish_and_stops_everything(system: System) -> None:
    children = system.children()
    assert system.process is not None
    async with system.http() as http:
        request = ask("chat", stream=True, max_tokens=300)
        async with http.stream("POST", "/v1/chat/completions", json=request) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            system.process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await asyncio.wait_for(system.process.wait(), 30) == 0
    assert not any(_is_alive(child) for child in children)
    begun, ended, lost = _count(system)
    assert (begun, lost) == (ended, 0)


async def test_a_second_sigterm_ends_at_once(system: System) -> None:
    children = system.children()
    assert system.process is not None
    async with system.http() as http, asyncio.TaskGroup() as group:
        request = ask("chat", stream=True, max_tokens=400)
        for _ in range(8):
            group.create_task(_swallow(http.post("/v1/chat/completions", json=request)))
        await until(lambda: _count(system)[0] >= 8, "8 open calls")
        system.process.send_signal(signal.SIGTERM)
        system.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(system.process.wait(), 10) is not None
    await until(lambda: not any(_is_alive(child) for child in children), "the end of all children")


async def test_a_second_server_on_the_folder_is_refused(system: System) -> None:
    second = await system.run("up", "--bare")
    assert await asyncio.wait_for(second.wait(), 20) == 1


async def test_a_port_in_use_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        system = System(tmp_path / "data", PILOTAGE_CONTROL_PORT=str(port))
        process = await system.run("up", "--bare")
        assert await asyncio.wait_for(process.wait(), 20) == 2
    text = (tmp_path / "data.up.log").read_text()
    assert f"127.0.0.1:{port} cannot be used" in text
    assert "PILOTAGE_CONTROL_PORT" in text
    assert "Traceback" not in text


async def _swallow(request: Awaitable[object]) -> None:
    with suppress(httpx.HTTPError):  # the process at the other end is killed
        await request


def _frames(system: System) -> list[Frame]:
    return [
        decode_frame(payload)
        for folder in list_spools(system.folder.spool)
        for _, payload in read_records(folder, 0, 1_000_000)
    ]


def _count(system: System) -> tuple[int, int, int]:
    frames = _frames(system)
    ended = [frame for frame in frames if isinstance(frame, Ended)]
    assert max(Counter(frame.call_id for frame in ended).values(), default=1) == 1
    return len(frames) - len(ended), len(ended), sum(frame.outcome == "lost" for frame in ended)


async def _ledger_equals_frames(system: System) -> None:
    expected = sum(frame.cost_nano for frame in _frames(system) if isinstance(frame, Ended))
    calls = sum(isinstance(frame, Ended) for frame in _frames(system))
    async with system.control() as control:
        rows = await poll(
            lambda: control.get("/usage", by="tenant"),
            lambda reply: sum(row["calls"] for row in reply["items"]) == calls,
        )
    assert sum(row["cost_nano"] for row in rows["items"]) == expected


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
