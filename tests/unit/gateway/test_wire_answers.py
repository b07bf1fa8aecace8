"""Answers carried from one wire to another, plain and streamed: the same words, ends and counts."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic.types
import openai.types
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from bridge_lab import CALL_ID, speak
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.ids import decode_uuid
from pilotage.core.usage import Usage

HELLO = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": HELLO, "stream_options": {"include_usage": True}},
    "messages": {"messages": HELLO, "max_tokens": 20},
    "responses": {"input": "hello"},
}
PAIRS = [(door, target) for door in BODIES for target in ("openai", "anthropic")]
TRANSLATED = [pair for pair in PAIRS if pair not in (("chat", "openai"), ("messages", "anthropic"))]
RICH = {
    "thinking": "Hm. ",
    "text": "Let |me see.",
    "calls": [{"name": "look", "arguments": {"x": 1}}, {"name": "go", "arguments": {}}],
    "prompt_tokens": 20,
    "completion_tokens": 12,
    "cached": 6,
    "written": 4,
    "reasoning": 3,
}
USAGE = Usage(input=10, cache_read=6, cache_write=4, output=9, reasoning=3)
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def gather_chat(events: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the completion that the openai package makes of a stream."""
    assert events[-1] == ("", "[DONE]")
    state: Any = ChatCompletionStreamState()
    thoughts = ""
    for _, data in events[:-1]:
        for choice in data["choices"]:
            thoughts += choice["delta"].get("reasoning_content") or ""
        state.handle_chunk(openai.types.chat.ChatCompletionChunk.model_validate(data))
    completion: dict[str, Any] = state.current_completion_snapshot.to_dict()
    message = completion["choices"][0]["message"]
    if thoughts:
        message["reasoning_content"] = thoughts
    return completion


def gather_messages(events: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the message that the anthropic package makes of a stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for name, data in events:
        assert name == data["type"]
        if name == "ping":
            continue
        event: Any = TypeAdapter(anthropic.types.RawMessageStreamEvent).validate_python(data)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert events[-1][0] == "message_stop"
    return json.loads(snapshot.to_json())  # type: ignore[no-any-return]


def gather_responses(events: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the response that a stream ends with, after looking at the order of its events."""
    grown: dict[int, str] = {}
    for number, (name, data) in enumerate(events):
        assert (name, data["sequence_number"]) == (data["type"], number)
        _EVENT.validate_python(data)
        if name == "response.output_item.added":
            assert data["output_index"] == len(grown)
            grown[data["output_index"]] = ""
        elif name.endswith(".delta"):
            grown[data["output_index"]] += data["delta"]
        elif name == "response.output_item.done":
            (words,) = read_words(data["item"])
            assert grown[data["output_index"]] == words
    last: dict[str, Any] = events[-1][1]["response"]
    assert [words for item in last["output"] for words in read_words(item)] == [*grown.values()]
    return last


def read_words(item: dict[str, Any]) -> Iterator[str]:
    if item["type"] == "function_call":
        yield item["arguments"]
    for part in item.get("content") or []:
        yield part.get("text") or part.get("refusal") or ""


GATHER = {"chat": gather_chat, "messages": gather_messages, "responses": gather_responses}
MODELS: dict[str, type[Any]] = {
    "chat": openai.types.chat.ChatCompletion,
    "messages": anthropic.types.Message,
    "responses": Response,
}
# what the packages add by themselves, and what each call has its own of
NOISE = {"parsed", "parsed_arguments", "parsed_output", "citations", "created_at", "created"}


def tidy(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a reply without members that are null, empty or no matter."""
    if isinstance(value, dict):
        kept = {name: tidy(inner) for name, inner in value.items() if name not in NOISE}
        if "function" in kept:
            kept.pop("index", None)
        return {name: inner for name, inner in kept.items() if inner not in (None, [], "")}
    return [tidy(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("door", "target"), TRANSLATED)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_has_all_its_parts(door: str, target: str, is_stream: bool) -> None:
    spoken = speak(door, target, {**BODIES[door], "stream": is_stream}, RICH)
    reply = GATHER[door](spoken.events) if is_stream else spoken.reply
    MODELS[door].model_validate(reply)
    own_id = CALL_ID.removeprefix("call_")
    assert reply["model"] == "chat"
    call = spoken.call
    assert call.usage == USAGE
    assert call.answered_by == "their-name"
    assert call.flags == set()
    ids = ["toolu_0", "toolu_1"] if target == "anthropic" else ["call_0", "call_1"]
    if door == "chat":
        assert reply["id"] == f"chatcmpl-{own_id}"
        assert reply["created"] == (decode_uuid(CALL_ID) >> 80) // 1000
        (choice,) = reply["choices"]
        assert choice["finish_reason"] == "tool_calls"
        message = choice["message"]
        assert (message["content"], message["reasoning_content"]) == ("Let me see.", "Hm. ")
        made = [
            (c["id"], c["function"]["name"], c["function"]["arguments"])
            for c in message["tool_calls"]
        ]
        assert made == [(ids[0], "look", '{"x": 1}'), (ids[1], "go", "{}")]
        assert reply["usage"] == {
            "prompt_tokens": 20,
            "completion_tokens": 12,
            "total_tokens": 32,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
    elif door == "messages":
        assert (reply["id"], reply["stop_reason"]) == (f"msg_{own_id}", "tool_use")
        assert tidy(reply["content"]) == [
            {"type": "thinking", "thinking": "Hm. "},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": ids[0], "name": "look", "input": {"x": 1}},
            {"type": "tool_use", "id": ids[1], "name": "go", "input": {}},
        ]
        assert tidy(reply["usage"]) == {
            "input_tokens": 10,
            "output_tokens": 12,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 6,
            "output_tokens_details": {"thinking_tokens": 3},
        }
    else:
        assert (reply["id"], reply["status"]) == (f"resp_{own_id}", "completed")
        kinds = [item["type"] for item in reply["output"]]
        assert kinds == ["reasoning", "message", "function_call", "function_call"]
        said = [words for item in reply["output"] for words in read_words(item)]
        assert said == ["Hm. ", "Let me see.", '{"x": 1}', "{}"]
        assert [item.get("call_id") for item in reply["output"][2:]] == ids
        assert reply["usage"] == {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 4},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 32,
        }


words = st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"]), max_size=6)
plans = st.fixed_dictionaries(
    {"text": st.lists(words, max_size=4).map("|".join), "thinking": words},
    optional={
        "calls": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["look", "go"]),
                    "arguments": st.dictionaries(words, words, max_size=2),
                }
            ),
            max_size=3,
        )
    },
)


@given(st.sampled_from(PAIRS), plans, st.integers(1, 400))
def test_a_stream_says_what_a_plain_reply_says(
    pair: tuple[str, str], plan: dict[str, Any], size: int
) -> None:
    door, target = pair
    whole = speak(door, target, BODIES[door], plan)
    spoken = speak(door, target, {**BODIES[door], "stream": True}, plan, size=size)
    streamed, reply = tidy(GATHER[door](spoken.events)), tidy(whole.reply)
    for each in (streamed, reply):
        each.pop("object", None)  # a chunk is another object than a completion
        for message in [choice["message"] for choice in each.get("choices", [])]:
            message.pop("role", None)
    assert streamed == reply
    assert (spoken.call.usage, spoken.call.finish_reason) == (
        whole.call.usage,
        whole.call.finish_reason,
    )


@pytest.mark.parametrize(
    ("target", "said", "chat", "messages", "status"),
    [
        ("openai", "stop", "stop", "end_turn", "completed"),
        ("openai", "length", "length", "max_tokens", "incomplete"),
        ("openai", "content_filter", "content_filter", "refusal", "incomplete"),
        ("openai", "something_new", None, "end_turn", "completed"),
        ("anthropic", "end_turn", "stop", "end_turn", "completed"),
        ("anthropic", "stop_sequence", "stop", "stop_sequence", "completed"),
        ("anthropic", "max_tokens", "length", "max_tokens", "incomplete"),
        ("anthropic", "model_context_window_exceeded", "length", None, "incomplete"),
        ("anthropic", "refusal", "content_filter", "refusal", "incomplete"),
        ("anthropic", "pause_turn", "stop", None, "completed"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_why_an_answer_ended(
    target: str, said: str, chat: str | None, messages: str | None, status: str, is_stream: bool
) -> None:
    for door, reason in (("chat", chat), ("messages", messages), ("responses", status)):
        if reason is None or (door == "chat" and target == "openai"):
            continue
        spoken = speak(door, target, {**BODIES[door], "stream": is_stream}, {"finish": said})
        reply = GATHER[door](spoken.events) if is_stream else spoken.reply
        found = {
            "chat": lambda reply: reply["choices"][0]["finish_reason"],
            "messages": lambda reply: reply["stop_reason"],
            "responses": lambda reply: reply["status"],
        }[door](reply)
        assert found == reason, door
        assert spoken.call.finish_reason == said


def test_tool_calls_are_the_end_whatever_the_model_says() -> None:
    plan = {"calls": [{"name": "look", "arguments": {}}], "finish": "stop"}
    assert speak("messages", "openai", BODIES["messages"], plan).reply["stop_reason"] == "tool_use"


def test_usage_is_only_shown_to_who_asked() -> None:
    body = {"messages": HELLO, "stream": True}
    silent = speak("chat", "anthropic", body, {})
    assert all("usage" not in data for _, data in silent.events[:-1])
    asked = speak("chat", "anthropic", {**body, "stream_options": {"include_usage": True}}, {})
    *_, last, done = asked.events
    assert (last[1]["choices"], done[1]) == ([], "[DONE]")
    assert last[1]["usage"]["total_tokens"] == 14


def test_a_refusal_is_words_elsewhere() -> None:
    def refuse(whole: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": None, "refusal": "I cannot."}
        return {**whole, "choices": [{**whole["choices"][0], "message": message}]}

    said = speak("messages", "openai", BODIES["messages"], spoil=refuse).reply
    assert tidy(said["content"]) == [{"type": "text", "text": "I cannot."}]
    shown = speak("responses", "openai", BODIES["responses"], spoil=refuse).reply
    assert shown["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]


@pytest.mark.parametrize(("door", "target"), PAIRS)
def test_a_model_that_counts_nothing_is_flagged(door: str, target: str) -> None:
    def forget(whole: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in whole.items() if name != "usage"}

    call = speak(door, target, BODIES[door], spoil=forget).call
    assert (call.usage, call.flags) == (None, {Flag.USAGE_MISSING})
    lied = speak(door, target, BODIES[door], {"prompt_tokens": 1, "cached": 5}).call
    assert (lied.usage, lied.flags) == (None, {Flag.USAGE_INVALID})


FINISHES = {"openai": b'"finish_reason": "stop"', "anthropic": b"event: message_delta"}
DONE = {
    "openai": b"data: [DONE]\n\n",
    "anthropic": b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
}


def end_before(stream: bytes, mark: bytes) -> bytes:
    """Return the whole events before the one that has a mark."""
    head = stream[: stream.index(mark)]
    return head[: head.rindex(b"\n\n") + 2]


@pytest.mark.parametrize(("door", "target"), PAIRS)
def test_a_stream_is_a_success_only_at_its_end(door: str, target: str) -> None:
    def stop_unfinished(stream: bytes) -> bytes:
        return end_before(stream, FINISHES[target])

    def stop_without_terminator(stream: bytes) -> bytes:
        return stream.removesuffix(DONE[target])

    def terminate_unfinished(stream: bytes) -> bytes:
        return stop_unfinished(stream) + DONE[target]

    body = {**BODIES[door], "stream": True}
    assert speak(door, target, body).events
    for spoil in (stop_unfinished, stop_without_terminator, terminate_unfinished):
        with pytest.raises(PilotageError) as caught:
            speak(door, target, body, spoil=spoil)
        assert caught.value.code == "upstream_cut"


@pytest.mark.parametrize(("door", "target"), PAIRS)
@pytest.mark.parametrize(
    ("kind", "code"), [("api_error", "upstream_error"), ("overloaded_error", "upstream_overloaded")]
)
def test_an_error_within_a_stream(door: str, target: str, kind: str, code: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "x"}}

    def spoil(stream: bytes) -> bytes:
        event = f"event: error\ndata: {json.dumps(error)}\n\n".encode()
        return end_before(stream, b"tok1") + event

    with pytest.raises(PilotageError) as caught:
        speak(door, target, {**BODIES[door], "stream": True}, {}, spoil=spoil)
    assert caught.value.code == (code if target == "anthropic" else "upstream_error")


@pytest.mark.parametrize(("door", "target"), PAIRS)
def test_answers_that_cannot_be_read(door: str, target: str) -> None:
    for spoil in (
        lambda whole: [whole],
        lambda whole: {**whole, "choices": 5, "content": 5, "model": 5},
    ):
        with pytest.raises(PilotageError) as caught:
            speak(door, target, BODIES[door], {}, spoil=spoil)
        assert caught.value.code == "upstream_invalid"
    with pytest.raises(PilotageError) as caught:
        speak(
            door,
            target,
            {**BODIES[door], "stream": True},
            {},
            spoil=lambda stream: b"data: {nonsense\n\n" + stream,
        )
    assert caught.value.code == "upstream_invalid"


@pytest.mark.parametrize("door", ["messages", "responses"])
def test_tool_calls_that_are_mixed_up_are_refused(door: str) -> None:
    def mix(stream: bytes) -> bytes:
        late = {
            "choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}}]
        }
        return stream.replace(b'data: {"id"', b"data: @", 0).replace(
            b"data: [DONE]", f"data: {json.dumps(late)}\n\ndata: [DONE]".encode()
        )

    calls = [{"name": "look", "arguments": {}}, {"name": "go", "arguments": {}}]
    with pytest.raises(PilotageError) as caught:
        speak(door, "openai", {**BODIES[door], "stream": True}, {"calls": calls}, spoil=mix)
    assert caught.value.code == "upstream_invalid"


def test_a_tool_call_with_broken_arguments_is_no_message() -> None:
    def spoil(whole: dict[str, Any]) -> dict[str, Any]:
        whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = '{"x": '
        return whole

    with pytest.raises(PilotageError) as caught:
        plan = {"calls": [{"name": "look", "arguments": {}}]}
        speak("messages", "openai", BODIES["messages"], plan, spoil=spoil)
    assert caught.value.code == "upstream_invalid"


# Anthropic as it came


def test_messages_pass_as_they_came_but_for_the_name() -> None:
    body = {**BODIES["messages"], "stream": True, "tools": [{"type": "bash_20250124", "name": "b"}]}
    spoken = speak("messages", "anthropic", body, RICH)
    assert spoken.sent == {**body, "model": "their-name"}
    start = spoken.events[0][1]["message"]
    assert start["model"] == "chat"
    assert gather_messages(spoken.events)["content"][0]["signature"] == "c2lnbmVk"
    assert spoken.call.usage == USAGE
    assert [name for name, _ in spoken.events][:2] == ["message_start", "ping"]
    plain = speak("messages", "anthropic", {**BODIES["messages"]}, RICH)
    assert plain.reply["model"] == "chat"
    assert plain.call.usage == USAGE


def test_the_output_limit_is_the_least_one() -> None:
    body = {"messages": HELLO, "max_tokens": 20}
    assert speak("messages", "anthropic", body, ceiling=7).sent["max_tokens"] == 7
    assert speak("messages", "anthropic", body, ceiling=70).sent["max_tokens"] == 20
    assert speak("messages", "openai", body, ceiling=7).sent["max_completion_tokens"] == 7
    assert speak("responses", "anthropic", {"input": "x"}, ceiling=7).sent["max_tokens"] == 7
    budget = {**body, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    with pytest.raises(PilotageError) as caught:
        speak("messages", "anthropic", budget, ceiling=1000)
    assert caught.value.param == "thinking.budget_tokens"
    assert speak("messages", "anthropic", budget, ceiling=1025).sent["max_tokens"] == 1025
