"""Feedback and measures through a real gateway process: frames, and not a word at rest."""

from pathlib import Path

import msgspec

from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, chat_body, make_http, until
from pilotage.core.frames import Ended, Feedback, Measured
from pilotage.core.key_scopes import CHAT, KeyScope

SECRET = "Zebrafink"


async def test_feedback_and_measures_follow_their_calls(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.tenant = msgspec.structs.replace(world.tenant, measure_share=10_000)
    world.publish()
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            body = chat_body({"prompt_tokens": 3, "chunks": 4}, max_tokens=50)
            body["messages"].append(
                {"role": "user", "content": f"What is a {SECRET} and is it big?"}
            )
            replies = [
                await http.post("/v1/chat/completions", json=body | {"stream": is_stream})
                for is_stream in (False, True)
            ]
            assert [reply.status_code for reply in replies] == [200, 200]
            ids = [reply.headers["x-request-id"] for reply in replies]
            said = {"request_id": ids[0], "score": 0.5, "label": "wrong", "comment": SECRET}
            taken = await http.post("/v1/feedback", json=said)
            assert taken.status_code == 202, taken.text
            assert taken.json()["comment"] == "dropped"
            refused = await http.post("/v1/feedback", json={"request_id": "x", "score": 1})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "request_id")
            long = await http.post("/v1/feedback", json=said | {"comment": "x" * 20_000})
            assert (long.status_code, long.json()["error"]["param"]) == (400, "comment")
            longest = await http.post(
                "/v1/feedback", json=said | {"comment": "\N{SNOWMAN}" * 4_000}
            )
            assert longest.status_code == 202, longest.text
            large = await http.post("/v1/feedback", json=said | {"comment": "x" * 40_000})
            assert large.status_code == 413
            assert (await http.get("/v1/feedback")).status_code == 405
            await until(
                lambda: sum(isinstance(frame, Measured) for frame in world.frames()) == 2,
                "both calls to be measured",
            )
    frames = world.frames()
    feedback, longest_one = (frame for frame in frames if isinstance(frame, Feedback))
    assert feedback.comment == longest_one.comment == b""
    assert (feedback.call_id, feedback.score, feedback.label) == (ids[0], 500_000, "wrong")
    assert feedback.tenant_id == world.tenant.id
    measures = {frame.call_id: frame for frame in frames if isinstance(frame, Measured)}
    ended = {frame.call_id: frame for frame in frames if isinstance(frame, Ended)}
    assert set(measures) == set(ids) == set(ended)
    for call_id in ids:
        assert measures[call_id].prompt_language == "en"
        assert measures[call_id].version_id == ended[call_id].version_id
        assert measures[call_id].answer_letters > 0
    at_rest = b"".join(
        path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    )
    assert SECRET.encode() not in at_rest


async def test_nothing_that_is_sent_ends_a_gateway_that_measures(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.tenant = msgspec.structs.replace(world.tenant, measure_share=10_000)
    world.publish()
    deep: object = "x" * 40
    for _ in range(500):
        deep = [deep]
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            for system in (deep, "Be brief.", deep):
                body = chat_body({"prompt_tokens": 3}, max_tokens=50) | {"system": system}
                before = len([frame for frame in world.frames() if isinstance(frame, Measured)])
                reply = await http.post("/v1/chat/completions", json=body)
                assert reply.status_code == 200, reply.text
                await until(
                    lambda count=before: (  # type: ignore[misc]
                        sum(isinstance(frame, Measured) for frame in world.frames()) > count
                    ),
                    "the call to be measured",
                )
    measured = [frame for frame in world.frames() if isinstance(frame, Measured)]
    assert len(measured) == 3
    assert measured[0].prompt_letters == measured[2].prompt_letters > 40


async def test_a_key_that_is_not_for_feedback_gives_none(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.keys[0] = world.keys[0]._replace(scope=1)
    world.publish(scopes={1: KeyScope(operations=(CHAT,))})
    async with GatewayProcess(world) as gateway, make_http(gateway) as http:
        refused = await http.post("/v1/feedback", json={"request_id": "x", "score": 1})
    assert refused.status_code == 403
    assert not [frame for frame in world.frames() if isinstance(frame, Feedback)]
