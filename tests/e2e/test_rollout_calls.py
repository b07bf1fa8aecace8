"""Calls of a rollout through a real gateway process: dealt by a coin that frames let one repeat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from faulty_upstream import FaultyUpstream
from gateway_harness import CLOCK, GatewayProcess, World, chat_body, make_http, make_rates, until
from pilotage.core.dealing import deal, name_unit
from pilotage.core.frames import Begun, Ended, Flag, Outcome
from pilotage.core.snapshot import AliasEntry, ArmEntry, RouteRule, Routing
from pilotage.gateway.demand import DemandFolder
from pilotage.gateway.targets import ReplicaTarget, Targets, TargetsFile

STEP = "rol_1/0"
SPLIT = {"dep_a": 7_000, "dep_b": 3_000}


def make_alias(world: World, name: str, **more: Any) -> AliasEntry:  # noqa: ANN401
    arms = [
        ArmEntry(
            id=arm,
            weight=weight,
            version_id=f"ver_{arm}",
            model=f"model-{arm}@1.0.0",
            context_tokens=2048,
            rates=make_rates(),
            can_wake=True,
        )
        for arm, weight in SPLIT.items()
    ]
    values: dict[str, Any] = {
        "project_id": world.tenant.project_id,
        "name": name,
        "created_at_us": 0,
        "salt": STEP,
        "max_output_tokens": 256,
        "arms": arms,
        "rollout": STEP,
        "unit": "session",
    }
    return AliasEntry(**values | more)


@asynccontextmanager
async def serve(path: Path) -> AsyncIterator[tuple[World, FaultyUpstream, GatewayProcess]]:
    """Serve aliases whose rollout deals by session, by call and by tenant."""
    world = World(path / "data")
    audit = Routing(rules=[RouteRule(arms=["dep_a"], purposes=["audit"])])
    world.publish(
        more_aliases=[
            make_alias(world, "by-session", routing=audit),
            make_alias(world, "by-call", unit="call"),
            make_alias(world, "by-tenant", unit="tenant"),
        ]
    )
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        world.point(dict.fromkeys(SPLIT, upstream.port))
        gateway = await stack.enter_async_context(GatewayProcess(world))
        yield world, upstream, gateway


async def post(http: httpx.AsyncClient, model: str, session: str = "", **more: Any) -> str:  # noqa: ANN401
    """Make a call; return its id."""
    headers = {"x-pilotage-session": session} if session else {}
    headers |= {f"x-pilotage-{name}": value for name, value in more.pop("said", {}).items()}
    body = chat_body({"prompt_tokens": 3}) | {"model": model} | more
    reply = await http.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-request-id"]


async def test_every_call_can_be_dealt_again_from_its_frames(tmp_path: Path) -> None:
    async with serve(tmp_path) as (world, _, gateway), make_http(gateway) as http:
        sessions = [f"chat-{n % 20}" for n in range(40)]
        by_header = [await post(http, "by-session", session) for session in sessions]
        by_body = [
            await post(http, "by-session", metadata={"session_id": session}) for session in sessions
        ]
        alone = [await post(http, "by-session") for _ in range(20)]
        alone += [await post(http, "by-call", "chat-1") for _ in range(20)]
        by_tenant = [await post(http, "by-tenant", f"chat-{n}") for n in range(3)]
        apart = await post(http, "by-session", "chat-1", said={"purpose": "audit"})
        plain = await post(http, "chat", "chat-1")
    begun = {frame.call_id: frame for frame in world.frames() if isinstance(frame, Begun)}
    ended = {frame.call_id: frame for frame in world.frames() if isinstance(frame, Ended)}
    dealt = [*by_header, *by_body, *alone, *by_tenant]
    for call_id in dealt:
        frame, end = begun[call_id], ended[call_id]
        assert (frame.rollout, frame.unit) == (end.rollout, end.unit) == (STEP, frame.unit)
        assert end.assigned == end.arm == deal(STEP, frame.unit or call_id, SPLIT)
        assert end.queue_us == -1
    tenant_id = world.tenant.id
    units = [name_unit("session", tenant_id, session=session) for session in sessions]
    assert [begun[call_id].unit for call_id in by_header] == units
    assert [begun[call_id].unit for call_id in by_body] == units
    assert {begun[call_id].unit for call_id in alone} == {""}
    assert {ended[call_id].arm for call_id in alone} == set(SPLIT)
    assert {begun[call_id].unit for call_id in by_tenant} == {name_unit("tenant", tenant_id)}
    assert (ended[apart].arm, ended[apart].rollout, ended[apart].unit) == ("dep_a", "", "")
    assert (ended[plain].rollout, ended[plain].unit) == ("", "")


async def test_a_session_that_would_have_to_be_cut_or_guessed_is_refused(tmp_path: Path) -> None:
    async with serve(tmp_path) as (_, upstream, gateway), make_http(gateway) as http:
        body = chat_body() | {"model": "by-session"}
        for session in ("x" * 201, "two words", "Gr\xfc\xdfe"):
            headers = {b"x-pilotage-session": session.encode("latin-1")}
            refused = await http.post("/v1/chat/completions", json=body, headers=headers)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "x-pilotage-session"
        assert not upstream.requests
        assert await post(http, "by-session", "!" + "~" * 199)


async def test_the_arm_of_a_lost_call_is_known(tmp_path: Path) -> None:
    async with serve(tmp_path) as (world, _, gateway), make_http(gateway) as http:
        endless = chat_body({"chunks": 100_000, "delay_ms": 20}, stream=True)
        body = endless | {"model": "by-session"}
        headers = {"x-pilotage-session": "chat-1"}
        async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
            arm = reply.headers["x-pilotage-arm"]
            await gateway.kill()
        await gateway.start()
        async with make_http(gateway) as again:
            short = chat_body({"chunks": 2}, stream=True) | {"model": "by-session"}
            said = await again.post("/v1/chat/completions", json=short, headers=headers)
            assert said.status_code == 200
        assert await gateway.stop() == 0
        ends = (frame for frame in world.frames() if isinstance(frame, Ended))
        lost, answered = (end for end in ends if Flag.PROBE not in end.flags)
    assert (answered.outcome, answered.is_stream) == (Outcome.OK, True)
    assert (lost.outcome, lost.assigned, lost.rollout) == (Outcome.LOST, "", STEP)
    assert lost.is_stream
    assert deal(lost.rollout, lost.unit, SPLIT) == arm


async def test_calls_wait_for_a_sleeping_deployment_and_are_cold_then(tmp_path: Path) -> None:
    async with serve(tmp_path) as (world, upstream, gateway), make_http(gateway) as http:
        targets, demand = TargetsFile(world.folder.targets), DemandFolder(world.folder.run)
        targets.write(Targets(n=1, can_wake=list(SPLIT)))

        def read_targets_n() -> int:
            said = demand.read(CLOCK.now_us()).get("gateway-0")
            return said.targets_n if said else 0

        def count_waiting() -> int:
            said = demand.read(CLOCK.now_us()).get("gateway-0")
            return sum(each.waiting for each in said.deployments.values()) if said else 0

        await until(lambda: read_targets_n() == 1, "the gateway to know")
        refused = await http.post("/v1/chat/completions", json=chat_body())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        calls = [asyncio.ensure_future(post(http, "by-call")) for _ in range(5)]
        await until(lambda: count_waiting() == 5, "five calls to wait")
        wake(targets, upstream.port)
        ids = await asyncio.gather(*calls)
        await until(lambda: count_waiting() == 0, "nobody to wait")
        said = demand.read(CLOCK.now_us())["gateway-0"]
        assert said.targets_n == 2
        assert sum(each.calls for each in said.deployments.values()) == 5
        assert await gateway.stop() == 0
        assert demand.read(CLOCK.now_us()) == {}
    ended = {frame.call_id: frame for frame in world.frames() if isinstance(frame, Ended)}
    for call_id in ids:
        flags = [Flag.COLD, Flag.WARMING]
        assert (ended[call_id].outcome, ended[call_id].flags) == (Outcome.OK, flags)
        assert 0 < ended[call_id].queue_us <= ended[call_id].duration_us


def wake(targets: TargetsFile, port: int) -> None:
    """Say that a replica of each arm is ready as of now."""
    now_us = CLOCK.now_us()
    ready = [
        ReplicaTarget(
            id=f"{arm}.0",
            deployment_id=arm,
            host="127.0.0.1",
            port=port,
            key="upstream-key",
            ready_at_us=now_us,
        )
        for arm in SPLIT
    ]
    targets.write(Targets(n=2, replicas=ready))
