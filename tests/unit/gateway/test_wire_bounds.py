"""Bounds of prompts: never below what any tokenizer makes of them, whatever the JSON looks like."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.gateway.http import WIRES
from pilotage.gateway.wire import bounds
from pilotage.gateway.wire.door import Wire

DOORS = {wire.name: wire for wire in WIRES.values()}
IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}


def bound(wire: Wire, body: dict[str, Any], **layout: Any) -> int:  # noqa: ANN401 - of json.dumps
    payload = json.dumps({"model": "m", **body}, **layout).encode()
    return wire.decode_request(payload).bound_input(payload)


def bound_content(content: Any, **layout: Any) -> int:  # noqa: ANN401 - any JSON
    return bound(DOORS["chat"], {"messages": [{"role": "user", "content": content}]}, **layout)


PLAIN = bound_content("")


@given(st.lists(st.text(), min_size=1, max_size=4), st.booleans())
def test_no_text_has_more_tokens_than_its_bound(texts: list[str], is_ascii: bool) -> None:
    size = sum(len(text.encode()) for text in texts)
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"messages": [{"role": "user", "content": text} for text in texts]},
        "messages": {
            "max_tokens": 1,
            "system": texts[0],
            "messages": [{"role": "user", "content": text} for text in texts[1:] or [""]],
        },
        "responses": {"input": [{"role": "user", "content": text} for text in texts]},
        "completions": {"prompt": texts},
        "embeddings": {"input": texts},
    }
    assert bodies.keys() == DOORS.keys()
    for name, body in bodies.items():
        assert bound(DOORS[name], body, ensure_ascii=is_ascii) >= size + len(texts), name


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1), min_size=1, max_size=4))
def test_tokens_are_counted_one_by_one(prompts: list[list[int]]) -> None:
    count = sum(len(tokens) for tokens in prompts)
    for name, field in (("completions", "prompt"), ("embeddings", "input")):
        found = bound(DOORS[name], {field: prompts})
        assert found == count + bounds.MESSAGE_TOKENS * len(prompts)
        assert bound(DOORS[name], {field: prompts[0]}) == len(prompts[0]) + bounds.MESSAGE_TOKENS


def test_what_shall_follow_is_read_too() -> None:
    body = {"prompt": ["a", "b"], "suffix": "end"}
    assert bound(DOORS["completions"], body) == 2 * (1 + 3 + bounds.MESSAGE_TOKENS)


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (IMAGE, bounds.IMAGE_TOKENS),
        (
            {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
            bounds.SMALL_IMAGE_TOKENS,
        ),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, bounds.IMAGE_TOKENS),
        ({"type": "input_image", "image_url": "u", "detail": "low"}, bounds.SMALL_IMAGE_TOKENS),
        ({"type": "file", "file": {"file_id": "f"}}, bounds.FILE_TOKENS),
        ({"type": "document", "source": {"type": "file"}}, bounds.FILE_TOKENS),
        ({"type": "input_file", "file_id": "f"}, bounds.FILE_TOKENS),
        ({"type": "tool_result", "content": [IMAGE, IMAGE]}, 2 * bounds.IMAGE_TOKENS),
        ({"type": "text", "text": "an image"}, 0),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " :\n")])
@pytest.mark.parametrize("escape", ["", "type", "image", "image_url", "file", "document", "input"])
def test_media_have_a_bound_of_their_own(
    part: dict[str, Any], tokens: int, separators: tuple[str, str], escape: str
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    text = json.dumps(body, separators=separators)
    if escape:  # the same words, written so that nobody finds them by looking at bytes
        text = text.replace(f'"{escape}', f'"\\u{ord(escape[0]):04x}{escape[1:]}')
    assert json.loads(text) == body
    payload = text.encode()
    found = DOORS["chat"].decode_request(payload).bound_input(payload)
    assert found == len(payload) + bounds.CALL_TOKENS + bounds.MESSAGE_TOKENS + tokens


@pytest.mark.parametrize(
    ("name", "body", "more"),
    [
        ("chat", {"messages": [{"role": "user", "content": "x"}]}, {"tools": [{"a": 1}]}),
        ("chat", {"messages": [{"role": "user", "content": "x"}]}, {"response_format": {"a": 1}}),
        (
            "messages",
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
            {"tools": [{}]},
        ),
        ("responses", {"input": "x"}, {"text": {}}),
    ],
)
def test_tools_and_schemas_come_with_instructions(
    name: str, body: dict[str, Any], more: dict[str, Any]
) -> None:
    wire = DOORS[name]
    grown = len(json.dumps({"model": "m", **body, **more})) - len(
        json.dumps({"model": "m", **body})
    )
    assert bound(wire, {**body, **more}) - bound(wire, body) == grown + bounds.TOOLS_TOKENS


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [[1], [2]], "n": 2, "best_of": 5}, 10),
    ],
)
def test_all_answers_of_completions_are_counted(body: dict[str, Any], choices: int) -> None:
    payload = json.dumps({"model": "m", **body}).encode()
    assert DOORS["completions"].decode_request(payload).choices == choices


@pytest.mark.parametrize(
    ("name", "body", "ceiling", "limit"),
    [
        ("chat", {"messages": [{}]}, 50, 50),
        ("chat", {"messages": [{}], "max_tokens": 9, "max_completion_tokens": 7}, 50, 7),
        ("messages", {"messages": [{}], "max_tokens": 9}, 50, 9),
        ("messages", {"messages": [{}], "max_tokens": 0}, 50, 0),
        ("messages", {"messages": [{}], "max_tokens": 99}, 50, 50),
        ("responses", {"input": "x"}, 50, 50),
        ("responses", {"input": "x", "max_output_tokens": 9}, 50, 9),
        ("completions", {"prompt": "x"}, 50, 16),
        ("completions", {"prompt": "x"}, 5, 5),
        ("completions", {"prompt": "x", "max_tokens": 0}, 50, 0),
        ("completions", {"prompt": "x", "max_tokens": 20, "n_predict": 3}, 50, 3),
        ("embeddings", {"input": "x"}, 50, 0),
    ],
)
def test_the_output_limit(name: str, body: dict[str, Any], ceiling: int, limit: int) -> None:
    payload = json.dumps({"model": "m", **body}).encode()
    assert DOORS[name].decode_request(payload).limit_output(ceiling) == limit


@pytest.mark.parametrize("name", sorted(DOORS))
@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"model":5}', b"{", b"[" * 100_000])
def test_what_is_no_request_is_refused(name: str, payload: bytes) -> None:
    with pytest.raises(PilotageError) as caught:
        DOORS[name].decode_request(payload)
    assert caught.value.code in ("invalid_json", "invalid_request")
