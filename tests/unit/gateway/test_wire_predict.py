"""The wire of predictions: instances become chat requests, replies become predictions."""

import json
from typing import Any

import msgspec
import pytest

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.predict import (
    MOST_INSTANCES,
    MOST_SHARED_BYTES,
    Answered,
    Asked,
    decode_request,
    encode_reply,
    find_endpoint,
    read_prediction,
)


def read(instances: list[Any], **parameters: object) -> list[dict[str, Any]]:
    body = json.dumps({"instances": instances, "parameters": parameters}).encode()
    return [json.loads(one.body) for one in decode_request("chat", body)]


def completion(text: str = "hi") -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3}}).encode()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/endpoints/chat:predict", "chat"),
        ("/v1/endpoints/team/chat:predict", "team/chat"),
        ("/v1/projects/p/locations/l/endpoints/chat:predict", "chat"),
        ("/v1/projects/p/endpoints/chat:predict", ""),
        ("/v1/other/p/locations/l/endpoints/chat:predict", ""),
        ("/v1/endpoints/chat", ""),
        ("/v1/endpoints/:predict", ""),
        ("/v1/models/chat:predict", ""),
    ],
)
def test_a_path_names_its_endpoint(path: str, name: str) -> None:
    assert find_endpoint(path) == name


def test_every_shape_of_an_instance_is_a_chat_request() -> None:
    own = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "go"}]
    found = read(
        [
            "one",
            {"prompt": "two", "temperature": 0.5},
            {"content": "three"},
            {"@requestFormat": "chatCompletions", "messages": own},
        ],
        maxOutputTokens=7,
        temperature=0,
        topP=None,
    )
    said = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    assert [one["messages"] for one in found] == [*([each] for each in said), own]
    assert [one["temperature"] for one in found] == [0, 0.5, 0, 0]
    assert all(one["max_tokens"] == 7 and one["model"] == "chat" for one in found)
    assert all("top_p" not in one for one in found)


@pytest.mark.parametrize(
    ("instances", "parameters", "code", "param"),
    [
        ([], {}, "invalid_request", "instances"),
        (["x"] * (MOST_INSTANCES + 1), {}, "invalid_request", "instances"),
        ([{}], {}, "invalid_request", "instances[0]"),
        (["a", {"prompt": "b", "content": "c"}], {}, "invalid_request", "instances[1]"),
        ([{"prompt": 3}], {}, "invalid_request", "instances[0]"),
        ([["a"]], {}, "invalid_request", "instances[0]"),
        ([{"messages": []}], {}, "invalid_request", "messages"),
        ([{"@requestFormat": "other", "messages": []}], {}, "invalid_request", "instances[0]"),
        ([{"prompt": "a", "topK": 3}], {}, "unsupported", "instances[0].topK"),
        (["a"], {"echo": True}, "unsupported", "parameters.echo"),
        (["a"], {"max_tokens": 1, "maxOutputTokens": 1}, "invalid_request", None),
        (["a"], {"max_tokens": 0}, "invalid_request", "max_tokens"),
        (["a"], {"stop": "x" * MOST_SHARED_BYTES}, "invalid_request", "parameters"),
    ],
)
def test_what_cannot_be_is_refused(
    instances: list[Any], parameters: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(PilotageError) as refused:
        read(instances, **parameters)
    assert refused.value.code == code
    assert param is None or refused.value.param == param


def test_broken_bodies_are_refused() -> None:
    for body in (b"{", b"[]", b'{"instances": ["a"], "more": 1}'):
        with pytest.raises(PilotageError):
            decode_request("chat", body)


def test_no_request_becomes_much_larger_than_it_was() -> None:
    stop = "x" * (MOST_SHARED_BYTES - 2)
    asked = read(["a"] * MOST_INSTANCES, stop=stop)
    assert {one["stop"] for one in asked} == {stop}
    own = [{"prompt": "a", "stop": "x" * MOST_SHARED_BYTES}, "b"]
    assert [len(one.get("stop", "")) for one in read(own)] == [MOST_SHARED_BYTES, 0]


def test_a_prediction_is_the_text_or_the_whole_completion() -> None:
    assert read_prediction(Asked(b"", is_whole=False), completion("hi")) == {
        "content": "hi",
        "finish_reason": "stop",
        "usage": msgspec.Raw(b'{"prompt_tokens": 3}'),
    }
    assert read_prediction(Asked(b"", is_whole=True), completion()) == msgspec.Raw(completion())


def test_a_reply_says_who_answered_where_it_was_one() -> None:
    one = [Answered("call_1", {"content": "hi"}, "dep_1", "m@1.0.0")]
    one.append(one[0]._replace(call_id="call_2"))
    reply = json.loads(encode_reply(one))
    assert reply["predictions"] == [{"content": "hi"}] * 2
    assert (reply["deployedModelId"], reply["model"]) == ("dep_1", "m@1.0.0")
    assert [call["id"] for call in reply["metadata"]["calls"]] == ["call_1", "call_2"]
    two = [one[0], one[1]._replace(arm_id="dep_2")]
    assert "deployedModelId" not in json.loads(encode_reply(two))


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"choices": []}'])
def test_an_answer_without_a_text_is_the_models_fault(body: bytes) -> None:
    with pytest.raises(PilotageError) as refused:
        read_prediction(Asked(b"", is_whole=False), body)
    assert refused.value.code == "upstream_invalid"
