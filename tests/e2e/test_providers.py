"""A provider's API behind an endpoint, with real processes: from the command to the ledger."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from httpx import Response

from faulty_upstream import FaultyUpstream
from system import System, ask, poll, running

KEY = "provider-key-0123456789"


pytestmark = pytest.mark.asyncio(loop_scope="module")


class World(NamedTuple):
    """An installation, two providers that it may call and one that it may not."""

    system: System
    first: FaultyUpstream
    second: FaultyUpstream
    stranger: FaultyUpstream

    async def call(self, endpoint: str, plan: str = "hello", key: str | None = None) -> Response:
        """Ask an endpoint once."""
        async with self.system.http(key) as http:
            return await http.post("/v1/chat/completions", json=ask(endpoint, plan))

    async def route(self, endpoint: str, **routing: object) -> None:
        """Replace an endpoint's routing."""
        async with self.system.control() as control:
            await control.put(f"/endpoints/{endpoint}/routing", {"retries": 0} | routing)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FaultyUpstream()) for _ in range(3)]
        allowed = ", ".join(f"127.0.0.1:{server.port}" for server in servers[:2])
        path = tmp_path_factory.mktemp("providers") / "data"
        system = await stack.enter_async_context(
            running(path, PILOTAGE_EGRESS_ALLOW=allowed, PROVIDER_KEY=KEY)
        )
        async with system.control() as control:
            await control.post("/prices", {"subject": "big-1", "input": "2", "output": "8"})
        yield World(system, *servers)


@pytest_asyncio.fixture(loop_scope="module")
async def world(installation: World) -> World:
    for server in installation[1:]:
        server.requests.clear()
        server.refuses = False
    return installation


async def serve(world: World, name: str, **upstreams: tuple[FaultyUpstream, str]) -> None:
    """Make an endpoint and put a model of each upstream on it; the first one has the traffic.

    Upstreams are told by their names: the server, and where it runs.
    """
    async with world.system.control() as control:
        await control.post("/endpoints", {"name": name, "max_output_tokens": 64})
        for upstream, (server, location) in upstreams.items():
            body = describe(server) | {"name": upstream, "location": location}
            await control.post("/upstreams", body)
            model = {"upstream": upstream, "model": "big-1"}
            done = await control.finish(await control.post(f"/endpoints/{name}/deployments", model))
            assert (done["model"], done["state"]) == (f"{upstream}/big-1", "ready")


def describe(server: FaultyUpstream) -> dict[str, str]:
    """Return a server as an upstream."""
    return {"provider": "openai", "base_url": f"{server.url}/v1", "secret": "env:PROVIDER_KEY"}


async def test_a_provider_answers_under_the_endpoint_s_name_and_is_charged(world: World) -> None:
    await serve(world, "charged", plain=(world.first, ""))

    plan = json.dumps({"prompt_tokens": 7, "completion_tokens": 3})
    reply = await world.call("charged", plan)

    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == "charged"
    (request,) = world.first.requests
    assert request.path == "/v1/chat/completions"
    assert request.authorization == f"Bearer {KEY}"
    assert request.body["model"] == "big-1"

    async def find_rows() -> dict[str, Any]:
        async with world.system.control() as control:
            usage = await control.get("/usage", by="alias,model")
        return {row["groups"]["alias"]: row for row in usage["items"]}

    row = (await poll(find_rows, lambda rows: "charged" in rows))["charged"]
    assert row["groups"]["model"] == "plain/big-1"
    assert (row["calls"], row["cost_nano"]) == (1, 7 * 2000 + 3 * 8000)


async def test_an_upstream_is_moved_without_a_restart(world: World) -> None:
    await serve(world, "moved", moving=(world.first, ""))

    before = await world.call("moved")
    async with world.system.control() as control:
        await control.put("/upstreams/moving", describe(world.second))
    after = await world.call("moved")

    assert (before.status_code, after.status_code) == (200, 200)
    assert (len(world.first.requests), len(world.second.requests)) == (1, 1)


async def test_a_fallback_answers_where_the_chosen_one_cannot(world: World) -> None:
    await serve(world, "fallen", near=(world.first, "eu-west4"), far=(world.second, "us"))
    world.first.refuses = True
    world.first.close_idle()

    await world.route("fallen", fallbacks=["far/big-1"])
    fallen = await world.call("fallen")
    await world.route("fallen", regions=["eu"])
    failed = await world.call("fallen")

    assert fallen.status_code == 200, fallen.text
    assert failed.status_code in (502, 503), failed.text
    assert len(world.second.requests) == 1


async def test_a_tenant_s_regions_hold_for_every_call(world: World) -> None:
    await serve(world, "confined", placed=(world.first, "eu-west4"))
    async with world.system.control() as control:
        await control.post("/tenants", {"name": "abroad", "regions": ["us"]})
        key = (await control.post("/keys", {"tenant": "abroad"}))["secret"]
        outside = await world.call("confined", key=key)
        await control.put("/tenants/abroad", {"regions": ["eu"]})
        inside = await world.call("confined", key=key)

    assert outside.status_code == 403, outside.text
    assert outside.json()["error"]["code"] == "no_allowed_target"
    assert inside.status_code == 200, inside.text
    assert len(world.first.requests) == 1


async def test_an_address_that_is_not_allowed_is_not_called(world: World) -> None:
    await serve(world, "strange", unknown=(world.stranger, ""))
    reply = await world.call("strange")

    assert reply.status_code == 502, reply.text
    assert reply.json()["error"]["code"] == "egress_denied"
    assert world.stranger.requests == []
    assert world.stranger.connections == 0
