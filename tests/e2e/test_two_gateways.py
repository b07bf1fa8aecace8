"""Two gateway processes on one socket: a change is seen by both, and either may die."""

import asyncio
from pathlib import Path

import httpx

from gateway_harness import until
from pilotage.kit.spool_reader import is_held
from system import System, add_model, ask, poll, running, serve
from valkey_server import ValkeyServer

GATEWAY = "pilotage.runtime.gateway"


async def test_a_change_is_visible_to_every_process_and_either_may_die(
    tmp_path: Path, tiny_gguf: Path, valkey: ValkeyServer
) -> None:
    valkey.run("FLUSHALL")
    variables = {"PILOTAGE_GATEWAY_PROCESSES": "2", "PILOTAGE_COUNTERS_URL": valkey.url}
    async with running(tmp_path / "data", **variables) as system:
        assert len(system.children(GATEWAY)) == 2
        async with system.control() as control:
            await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            made = await control.post("/keys", {"tenant": "default", "name": "app"})
            assert await statuses(system, made["secret"]) == {200}
            await control.post(f"/keys/{made['id']}:revoke")
            assert await statuses(system, made["secret"]) == {401}
            dead = system.children(GATEWAY)[0]
            dead.kill()
            assert await statuses(system, system.credentials.api_key) == {200}
            await until(lambda: len(system.children(GATEWAY)) == 2, "a second gateway")
            slots = [system.folder.spool / f"gateway-{number}" for number in range(2)]
            await until(lambda: all(is_held(slot) for slot in slots), "both spools")
            async with system.http() as http:
                for _ in range(10):
                    reply = await http.post("/v1/chat/completions", json=ask("chat"))
                    assert reply.status_code == 200, reply.text
            rows = await poll(
                lambda: control.get("/usage", by="tenant"),
                lambda reply: sum(row["calls"] for row in reply["items"]) == 10,
            )
            assert rows["items"][0]["cost_nano"] > 0


async def statuses(system: System, secret: str) -> set[int]:
    """Ask on 24 connections of their own, so that both processes answer."""

    async def once() -> int:
        headers = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
            return (await http.get(f"{system.server.gateway_url}/v1/models")).status_code

    return set(await asyncio.gather(*(once() for _ in range(24))))
