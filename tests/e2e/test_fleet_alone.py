"""What the supervisor does with nobody to ask: it wakes, drains and reports crash loops."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway_harness import until
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.blobs_file import read_file
from pilotage.sdk.first_model import wait_ready
from system import System, add_model, ask, poll, running, serve
from tiny_adapter import make_adapter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CONTROL = "pilotage.server.process"
ENGINE = "llamacpp.child"
SLEEPER = {"min_replicas": 0, "max_replicas": 2, "idle_after_s": 1, "scale_down_delay_s": 1}


@pytest.fixture
async def system(tmp_path: Path, tiny_gguf: Path) -> AsyncIterator[System]:
    async with running(tmp_path / "data") as found:
        async with found.control() as control:
            await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            await control.put("/endpoints/chat/deployments/1.0.0/scaling", SLEEPER)
        yield found


def list_targets(system: System) -> list[str]:
    return [target.id for target in TargetsFile(system.folder.targets).read().replicas]


async def call(http: httpx.AsyncClient, **more: Any) -> httpx.Response:  # noqa: ANN401
    return await http.post("/v1/chat/completions", json=ask("chat", **more))


async def see_health(system: System) -> dict[str, Any]:
    async with system.control() as control:
        return await control.get("/endpoints/chat/health")


async def test_a_call_wakes_a_sleeper_while_the_control_process_is_dead(system: System) -> None:
    async with system.http() as http:
        await until(lambda: not list_targets(system), "sleep", 60)
        shown = await poll(
            lambda: see_health(system), lambda found: found["deployments"][0]["state"] == "asleep"
        )
        assert shown["healthy"]
        async with system.control() as door, asyncio.timeout(10):
            await wait_ready(door, "chat")  # whoever starts need not wake it up
        control = system.child(CONTROL)
        control.suspend()  # alive, deaf and dumb
        try:
            replies = await asyncio.gather(*(call(http) for _ in range(6)))
            assert [reply.status_code for reply in replies] == [200] * 6
            await until(lambda: not list_targets(system), "sleep again", 60)
            control.kill()
            assert (await call(http)).status_code == 200
        finally:
            if control.is_running() and control.status() != psutil.STATUS_ZOMBIE:
                control.resume()
        await system.replaced(control, CONTROL)
        assert (await call(http)).status_code == 200


async def test_a_stream_that_runs_is_heard_to_its_end_when_its_replica_is_replaced(
    system: System,
) -> None:
    async with system.http() as http, system.control() as control:
        body = ask("chat") | {"stream": True, "max_tokens": 256}
        async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            (before,) = TargetsFile(system.folder.targets).read().replicas
            await control.put(
                "/endpoints/chat/deployments/1.0.0/scaling",
                SLEEPER | {"min_replicas": 1, "slots": 2},
            )
            await until(lambda: before.id not in list_targets(system), "the new replica", 60)
            assert list_targets(system)
            rest = [line async for line in lines]
        assert rest[-2:] == ["data: [DONE]", ""]
        await until(lambda: len(system.children(ENGINE)) == 1, "the end of the former one", 60)


async def test_a_crash_loop_is_told_of_and_not_waited_for(system: System) -> None:
    async with system.http() as http, system.control() as control:
        await until(lambda: not list_targets(system), "sleep", 60)
        (sha256,) = {
            item["artifact_sha256"]
            for item in (await control.get("/models/tiny/versions"))["items"]
        }
        (blob,) = [path for path in system.folder.blobs.rglob("*") if path.name.endswith(sha256)]
        blob.chmod(0o600)
        blob.write_bytes(b"no model")
        began_s = time.monotonic()
        reply = await call(http)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "no_replica")
        assert time.monotonic() - began_s < 30  # the call itself might take ten minutes
        shown = await see_health(system)
        (deployment,) = shown["deployments"]
        assert not shown["healthy"]
        assert deployment["state"] == "crash loop"
        assert "crashes again and again: llama.cpp:" in deployment["problem"]
        (replica,) = deployment["replicas"]
        assert replica["restarts"] >= 3


async def test_an_adapter_that_cannot_be_loaded_takes_nobody_along(
    system: System, tiny_gguf: Path, tmp_path: Path
) -> None:
    async with system.control() as control:
        adapter = make_adapter(tiny_gguf, tmp_path / "adapter.gguf", seed=1)
        artifact = await control.upload("/artifacts", read_file(adapter))
        sha256 = artifact["sha256"]
        body = {"version": "1.1.0", "artifact_sha256": sha256, "parent": "tiny@1.0.0"}
        await control.post("/models/tiny/versions", body)
        (blob,) = [path for path in system.folder.blobs.rglob("*") if path.name.endswith(sha256)]
        blob.chmod(0o600)
        blob.write_bytes(b"no adapter")
        await control.post("/endpoints/chat/deployments", {"model": "tiny@1.1.0"})

        def is_alone(shown: dict[str, Any]) -> bool:
            base, tuned = shown["deployments"]
            return not base["problem"] and "crashes again and again" in tuned["problem"]

        await poll(lambda: see_health(system), is_alone)
    async with system.http() as http:
        assert (await call(http)).status_code == 200
    assert await system.stop() == 0
    await system.start()
    async with system.http() as http:
        await poll(lambda: call(http), lambda reply: reply.status_code == 200)
