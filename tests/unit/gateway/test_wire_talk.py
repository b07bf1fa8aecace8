"""Requests carried from one wire to another: what is said again, and what is refused by name."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lab import open_call, refuse, speak
from pilotage.gateway.providers.anthropic_talk import AnthropicSpeech
from pilotage.gateway.providers.openai_talk import OpenAiSpeech
from pilotage.gateway.wire import chat_talk, messages_talk, responses_talk, talk

TRANSLATIONS = json.loads((Path(__file__).parent / "fixtures" / "translations.json").read_text())
PIXEL = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
HELLO = [{"role": "user", "content": "hello"}]
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": SCHEMA, "strict": True},
}
TOOL = {"name": "look", "description": "Look.", "input_schema": SCHEMA, "strict": True}


def send(door: str, target: str, body: dict[str, Any], *, is_ours: bool = False) -> dict[str, Any]:
    """Return what is sent for a body, without the model and the messages' frame."""
    return speak(door, target, body, is_ours=is_ours).sent


@pytest.mark.parametrize("case", TRANSLATIONS, ids=lambda case: case["name"])
def test_golden_translations(case: dict[str, Any]) -> None:
    assert send(case["door"], case["target"], case["body"]) == case["sent"]


# chat -> anthropic


def test_a_chat_without_a_limit_gets_the_aliass() -> None:
    assert send("chat", "anthropic", {"messages": HELLO})["max_tokens"] == 64


def test_a_system_message_within_a_chat_stays_where_it_is() -> None:
    late = {"role": "system", "content": "Now in French."}
    sent = send("chat", "anthropic", {"messages": [*HELLO, late, *HELLO]})
    assert "system" not in sent
    assert [message["role"] for message in sent["messages"]] == ["user", "system", "user"]


@pytest.mark.parametrize(
    ("choice", "is_parallel", "said"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", True, {"type": "any"}),
    ],
)
def test_tool_choices(choice: str | None, is_parallel: bool | None, said: object) -> None:
    body = {"messages": HELLO, "tools": [CHAT_TOOL], "tool_choice": choice}
    sent = send("chat", "anthropic", {**body, "parallel_tool_calls": is_parallel})
    assert sent.get("tool_choice") == said
    assert send("chat", "anthropic", {"messages": HELLO, "tool_choice": choice}).keys() == {
        "model",
        "max_tokens",
        "messages",
    }


def test_a_schema_becomes_an_output_format() -> None:
    wanted = {"name": "point", "schema": SCHEMA, "strict": True}
    formatted = {"type": "json_schema", "json_schema": wanted}
    sent = send("chat", "anthropic", {"messages": HELLO, "response_format": formatted})
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    plain = send("chat", "anthropic", {"messages": HELLO, "response_format": {"type": "text"}})
    assert "output_config" not in plain


# messages -> openai


def test_local_engines_are_asked_in_their_own_words() -> None:
    body = {"max_tokens": 30, "messages": HELLO, "top_k": 5, "stream": True}
    sent = send("messages", "openai", body, is_ours=True)
    assert sent == {
        "model": "chat",
        "messages": HELLO,
        "max_tokens": 30,
        "top_k": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


# refusals

IMAGE_BLOCK = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE_BLOCK]}
CALLED = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
}
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("chat", "anthropic", {"n": 2}, "n"),
    ("chat", "anthropic", {"logprobs": True}, "logprobs"),
    ("chat", "anthropic", {"seed": 7}, "seed"),
    ("chat", "anthropic", {"frequency_penalty": 0.1}, "frequency_penalty"),
    ("chat", "anthropic", {"logit_bias": {"5": 1}}, "logit_bias"),
    ("chat", "anthropic", {"store": True}, "store"),
    ("chat", "anthropic", {"modalities": ["text", "audio"]}, "modalities"),
    ("chat", "anthropic", {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ("chat", "anthropic", {"verbosity": "low"}, "verbosity"),
    ("chat", "anthropic", {"temperature": 1.5}, "temperature"),
    ("chat", "anthropic", {"reasoning_effort": "enormous"}, "reasoning_effort"),
    ("chat", "anthropic", {"response_format": {"type": "json_object"}}, "response_format"),
    ("chat", "anthropic", {"response_format": {"type": "regex"}}, "response_format.type"),
    ("chat", "anthropic", {"functions": []}, "functions"),
    ("chat", "anthropic", {"guided_regex": "a"}, "guided_regex"),
    (
        "chat",
        "anthropic",
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        "tools[0].type",
    ),
    ("chat", "anthropic", {"tool_choice": "sometimes"}, "tool_choice"),
    (
        "chat",
        "anthropic",
        {"messages": [*HELLO, {"role": "assistant", "content": "A"}]},
        "messages",
    ),
    (
        "chat",
        "anthropic",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0].type",
    ),
    (
        "chat",
        "anthropic",
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "messages[0].content[0].file.file_id",
    ),
    (
        "messages",
        "openai",
        {"messages": [*HELLO, {"role": "assistant", "content": "A"}]},
        "messages[1]",
    ),
    ("messages", "openai", {"top_k": 5}, "top_k"),
    ("messages", "openai", {"max_tokens": 0}, "max_tokens"),
    ("messages", "openai", {"container": "c"}, "container"),
    ("messages", "openai", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
    ("messages", "openai", {"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
    (
        "messages",
        "openai",
        {"messages": [*HELLO, CALLED, {"role": "user", "content": [RESULT]}]},
        "tool_result.content",
    ),
    (
        "messages",
        "openai",
        {"messages": [{"role": "user", "content": [{"type": "search_result"}]}]},
        "messages[0].content[0].type",
    ),
    (
        "messages",
        "anthropic",
        {"tools": [{"type": "web_search_20250305", "name": "s"}]},
        "tools[0].type",
    ),
    ("messages", "anthropic", {"mcp_servers": [{"url": "https://a.example"}]}, "mcp_servers"),
    ("messages", "anthropic", {"speed": "fast"}, "speed"),
    ("messages", "anthropic", {"inference_geo": "us"}, "inference_geo"),
    ("chat", "openai", {"service_tier": "priority"}, "service_tier"),
    ("chat", "openai", {"web_search_options": {}}, "web_search_options"),
    ("responses", "openai", {"store": True}, "store"),
    ("responses", "openai", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", "openai", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ("responses", "openai", {"background": True}, "background"),
    ("responses", "openai", {"conversation": "c"}, "conversation"),
    ("responses", "openai", {"truncation": "auto"}, "truncation"),
    ("responses", "openai", {"text": {"verbosity": "low"}}, "text.verbosity"),
    ("responses", "openai", {"include": ["message.output_text.logprobs"]}, "include"),
    ("responses", "openai", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    (
        "responses",
        "openai",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    ("completions", "anthropic", {}, ""),
    ("embeddings", "anthropic", {}, ""),
]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": HELLO},
    "messages": {"messages": HELLO, "max_tokens": 9},
    "responses": {"input": "hello"},
    "completions": {"prompt": "hello"},
    "embeddings": {"input": "hello"},
}


@pytest.mark.parametrize(("door", "target", "more", "param"), REFUSED)
def test_what_cannot_be_said_is_refused_by_name(
    door: str, target: str, more: dict[str, Any], param: str
) -> None:
    error = refuse(door, target, {**BODIES[door], **more})
    assert (error.param or "") == param
    assert (error.status, error.code) == (400, "unsupported")


@pytest.mark.parametrize(
    ("door", "more", "param"),
    [
        ("chat", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("chat", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("messages", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ("messages", {"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ("messages", {"temperature": "hot"}, "temperature"),
        ("responses", {"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ("responses", {"input": [{"type": "reasoning"}]}, "input"),
    ],
)
def test_what_is_malformed_is_the_clients_mistake(
    door: str, more: dict[str, Any], param: str
) -> None:
    target = "anthropic" if door == "chat" else "openai"
    error = refuse(door, target, {**BODIES[door], **more})
    assert (error.code, error.param) == ("invalid_request", param)


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,***", "data:image/tiff;base64,AAAA", "data:image/png,AAAA", "ftp://x"],
)
def test_media_that_no_model_reads_is_refused(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    error = refuse("chat", "anthropic", {"messages": [{"role": "user", "content": [part]}]})
    assert (error.code, error.param) == ("invalid_request", "messages[0].content")


def test_arguments_that_are_no_object_are_refused() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO]
    error = refuse("chat", "anthropic", {"messages": messages})
    assert error.code == "invalid_request"


# whatever is said is read again

words = st.text(min_size=1, max_size=8)
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
texts = st.builds(talk.Text, words)
images = st.builds(
    talk.Image, st.sampled_from(["https://a.example/b", f"data:image/png;base64,{PIXEL}"])
)
calls = st.builds(talk.ToolCall, names, names, st.just('{"x":1}'))
results = st.builds(talk.ToolResult, names, st.lists(texts, min_size=1, max_size=1))
tools = st.builds(
    talk.Tool,
    names,
    st.none() | words,
    st.just(msgspec.Raw(b'{"type":"object"}')),
    st.none() | st.booleans(),
)
shares = st.floats(0, 1, allow_nan=False)


@st.composite
def talks(draw: st.DrawFn) -> talk.Talk:
    """Return a talk that begins with instructions, or not, and ends with the user."""
    turns = []
    if draw(st.booleans()):
        turns.append(talk.Turn("system", [draw(texts)]))
    for _ in range(draw(st.integers(0, 2))):
        turns.append(talk.Turn("user", draw(st.lists(texts | images, min_size=1, max_size=3))))
        answer: list[talk.Part] = [draw(texts), *draw(st.lists(calls, max_size=2))]
        turns.append(talk.Turn("assistant", answer))
    turns.append(talk.Turn("user", draw(st.lists(texts | images, min_size=1, max_size=3))))
    offered = draw(st.lists(tools, max_size=2))
    choice = draw(st.sampled_from(["", "auto", "any", "none", "one"])) if offered else ""
    return talk.Talk(
        turns=turns,
        tools=offered,
        tool_choice=choice,
        tool_name="f" if choice == "one" else "",
        schema=draw(st.none() | st.just(talk.Schema(msgspec.Raw(b"{}"), is_strict=True))),
        stop=draw(st.lists(words, max_size=2)),
        temperature=draw(st.none() | shares),
        top_p=draw(st.none() | shares),
        effort=draw(st.sampled_from([None, "low", "high"])),
        user=draw(st.just("") | names),
    )


def plain(value: object) -> Any:  # noqa: ANN401 - structs, by what they hold
    return json.loads(msgspec.json.encode(value))


async def write_both(said: talk.Talk) -> tuple[bytes, bytes]:
    call = open_call("chat", {"messages": HELLO})
    return OpenAiSpeech().write(call, said), AnthropicSpeech().write(call, said)


@given(talks())
def test_a_talk_survives_both_wires(said: talk.Talk) -> None:
    chat, messages = asyncio.run(write_both(said))
    assert plain(chat_talk.read_request(chat, "x")) == plain(said)
    read = plain(messages_talk.read_request(messages, "x"))
    assert read == plain(said)


@given(results, texts)
def test_a_tools_result_survives_both_wires(result: talk.ToolResult, text: talk.Text) -> None:
    said = talk.Talk(turns=[talk.Turn("user", [result, text])])
    chat, messages = asyncio.run(write_both(said))
    assert plain(messages_talk.read_request(messages, "x")) == plain(said)
    split = talk.Talk(turns=[talk.Turn("user", [result]), talk.Turn("user", [text])])
    assert plain(chat_talk.read_request(chat, "x")) == plain(split)


@pytest.mark.parametrize("module", [chat_talk, messages_talk, responses_talk])
def test_every_field_that_may_ask_for_nothing_is_one_of_the_request(module: Any) -> None:  # noqa: ANN401
    assert set(module.ASK_NOTHING) <= set(module.Request.__struct_fields__)
    for name, values in module.ASK_NOTHING.items():
        assert None in values, name


def read_section(title: str) -> dict[str, str]:
    """Return the rows of a table of the reference page, by wire."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "wires.md").read_text()
    section = page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


@pytest.mark.parametrize(
    ("wire", "module"),
    [("chat", chat_talk), ("messages", messages_talk), ("responses", responses_talk)],
)
def test_the_reference_page_knows_every_field(wire: str, module: Any) -> None:  # noqa: ANN401
    page = (Path(__file__).parents[3] / "docs" / "reference" / "wires.md").read_text()
    asks_nothing = read_section("What is refused unless it asks for nothing")[wire]
    named = set(re.findall(r"`([a-z_.]+)`", asks_nothing)) - {"text.verbosity"}
    assert named == set(module.ASK_NOTHING)
    left_out = read_section("What is left out of a translated call")[wire]
    carried = page.split("## What is carried over", 1)[1].split("\n## ", 1)[0]
    for field in set(module.Request.__struct_fields__) - named - {"model"}:
        assert f"`{field}" in left_out + carried, field
