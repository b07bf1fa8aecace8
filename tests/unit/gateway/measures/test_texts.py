"""The words of requests and answers, by every wire, and of bytes that are none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.measures.texts import Prompt, read_answer, read_prompt

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "input",
                    "content",
                    "text",
                    "role",
                    "delta",
                    "choices",
                    "type",
                    "index",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)


@pytest.mark.parametrize(
    ("request_", "whole", "last"),
    [
        (
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "One?"},
                    {"role": "assistant", "content": "Two."},
                    {"role": "user", "content": [{"type": "text", "text": "Three?"}]},
                ]
            },
            ["Be brief.", "One?", "Two.", "Three?"],
            "Three?",
        ),
        (
            {
                "system": "Be brief.",
                "messages": [
                    {"role": "user", "content": "One?"},
                    {"role": "assistant", "content": "Well"},
                ],
            },
            ["Be brief.", "One?", "Well"],
            "One?",
        ),
        ({"prompt": "Go on"}, ["Go on"], "Go on"),
        ({"prompt": ["One", "Two"]}, ["One", "Two"], "Two"),
        ({"prompt": [1, 2, 3]}, [], ""),
        ({"instructions": "Be brief.", "input": "Why?"}, ["Be brief.", "Why?"], "Why?"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]},
            ["Why?"],
            "Why?",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, [], ""),
        ([], [], ""),
    ],
)
def test_a_prompt_is_what_was_told_and_what_was_asked_last(
    request_: object, whole: list[str], last: str
) -> None:
    assert read_prompt(json.dumps(request_).encode()) == Prompt(whole, last)


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": "Hello."}}, {"message": {"content": "Hi."}}]},
        {"choices": [{"message": {"content": None, "refusal": "Hello."}}]},
        {"choices": [{"text": "Hello."}]},
        {"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hello."}]},
        {
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]},
            ]
        },
    ],
)
def test_an_answer_is_what_its_reader_sees(answer: object) -> None:
    assert read_answer(json.dumps(answer).encode(), is_stream=False) == "Hello."


@pytest.mark.parametrize(
    "events",
    [
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
            {"choices": [{"index": 1, "delta": {"content": "Another"}}]},
            {"choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {}},
        ],
        [{"choices": [{"text": "Hel"}]}, {"choices": [{"text": "lo."}]}],
        [
            {"type": "message_start", "message": {"content": []}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello."}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "x"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ],
        [
            {"type": "response.output_text.delta", "delta": "Hello."},
            {"type": "response.completed", "response": {"output": [{"content": "Hello."}]}},
        ],
    ],
)
def test_a_stream_is_read_as_the_answer_that_it_is(events: list[object]) -> None:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert read_answer(body + b"data: [DONE]\n\n", is_stream=True) == "Hello."


@given(st.binary(max_size=100) | JSON.map(lambda said: json.dumps(said).encode()))
def test_whatever_comes_nothing_raises(body: bytes) -> None:
    read_prompt(body)
    read_answer(body, is_stream=False)
    read_answer(b"data: " + body + b"\n\n", is_stream=True)


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"content":', "}")])
def test_words_are_found_however_deep_they_are(open_: str, close: str) -> None:
    deep = open_ * 900 + '"Hi"' + close * 900
    told = read_prompt(f'{{"system":{deep},"messages":[{{"content":{deep}}}]}}'.encode())
    assert told == Prompt(["Hi", "Hi"], "Hi")
    assert read_answer(f'{{"content":{deep}}}'.encode(), is_stream=False) == "Hi"


def test_an_event_without_end_has_no_words() -> None:
    assert read_answer(b"data: " + b"x" * (2 << 20), is_stream=True) == ""
