"""Predictions through a real gateway process: each instance is a call, on record and billed."""

import asyncio
import json
from pathlib import Path

import pytest

from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, make_http, until
from pilotage.core.frames import Ended, Outcome
from pilotage.core.key_scopes import EMBEDDINGS, KeyScope

PATH = "/v1/endpoints/chat:predict"
VERTEX_PATH = "/v1/projects/p/locations/us-central1/endpoints/chat:predict"


def plan(**more: object) -> dict[str, str]:
    return {"prompt": json.dumps({"prompt_tokens": 3, "chunks": 4} | more)}


async def test_instances_are_answered_recorded_and_billed_one_by_one(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            for path in (PATH, VERTEX_PATH):
                body = {"instances": [plan()] * 3, "parameters": {"maxOutputTokens": 50}}
                reply = await http.post(path, json=body)
                assert reply.status_code == 200, reply.text
                shown = reply.json()
                assert len(shown["predictions"]) == 3
                assert all(one["content"] for one in shown["predictions"])
                assert shown["deployedModelId"] == "dep_a"
                assert shown["model"] == "model-dep_a@1.0.0"
            ids = {call["id"] for call in shown["metadata"]["calls"]}
    ends = {frame.call_id: frame for frame in world.frames() if isinstance(frame, Ended)}
    assert len(ends) == 6
    assert ids < set(ends)
    assert all(end.outcome is Outcome.OK and end.cost_nano > 0 for end in ends.values())


async def test_what_is_wrong_is_said_and_ends_the_others(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            slow = plan(fault="hang_before_headers")
            failed = await http.post(
                PATH, json={"instances": [slow, plan(fault="status", status=400)]}
            )
            assert failed.status_code == 400, failed.text
            ended = [frame for frame in world.frames() if isinstance(frame, Ended)]
            refused = [end.call_id for end in ended if end.outcome is Outcome.REFUSED]
            assert [failed.headers["x-request-id"]] == refused
            assert "refused before it was a call" not in gateway.log()  # it was one
            unknown = await http.post(PATH.replace("chat", "nobody"), json={"instances": ["x"]})
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (
                404,
                "model_not_found",
            )
            assert (await http.get(PATH)).status_code == 405
            assert (await http.post(PATH, json={"instances": []})).status_code == 400
            nobody = await http.post(
                PATH, json={"instances": ["x"]}, headers={"authorization": "Bearer x"}
            )
            assert nobody.status_code == 401
    outcomes = sorted(frame.outcome for frame in world.frames() if isinstance(frame, Ended))
    assert outcomes == [Outcome.CANCELLED, Outcome.REFUSED, Outcome.REFUSED]


async def test_a_key_for_something_else_predicts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.keys = [world.keys[0]._replace(scope=1)]
    world.publish(scopes={1: KeyScope(operations=(EMBEDDINGS,))})
    async with GatewayProcess(world) as gateway, make_http(gateway) as http:
        refused = await http.post(PATH, json={"instances": ["x"]})
    assert refused.status_code == 403


async def test_a_client_that_leaves_takes_its_calls_along(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            slow = plan(fault="hang_before_headers")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await http.post(PATH, json={"instances": [slow] * 2})
            await until(
                lambda: sum(isinstance(frame, Ended) for frame in world.frames()) == 2,
                "both calls to end",
            )
    ends = [frame for frame in world.frames() if isinstance(frame, Ended)]
    assert {end.outcome for end in ends} == {Outcome.CLIENT_GONE}
