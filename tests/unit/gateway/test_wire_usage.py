"""Usage as each kind of server reports it, made disjoint; golden ones are in fixtures."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lab import speak
from pilotage.core.frames import Flag
from pilotage.core.usage import Usage
from pilotage.gateway.wire import anthropic, chat_talk, messages_talk, openai, responses_writer

GOLDEN = json.loads((Path(__file__).parent / "fixtures" / "usage.json").read_text())
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def normalise(wire: str, said: dict[str, Any]) -> Usage | None:
    if wire == "anthropic":
        return anthropic.normalise_usage(msgspec.convert(said, anthropic.MessageUsage))
    return openai.normalise_usage(msgspec.convert(said, openai.WireUsage))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_reports(case: dict[str, Any]) -> None:
    expected = case["usage"]
    usage = normalise(case["wire"], case["said"])
    assert usage == (None if expected is None else Usage(**expected))


def test_a_message_is_counted_over_its_stream() -> None:
    counted = anthropic.MessageUsage()
    first = {"input_tokens": 25, "cache_read_input_tokens": 7, "output_tokens": 1}
    counted.update(msgspec.convert(first, anthropic.MessageUsage))
    counted.update(msgspec.convert({"output_tokens": 9}, anthropic.MessageUsage))
    counted.update(
        msgspec.convert({"input_tokens": 30, "output_tokens": 15}, anthropic.MessageUsage)
    )
    assert anthropic.normalise_usage(counted) == Usage(input=30, cache_read=7, output=15)


usages = st.builds(Usage, *[st.integers(0, 10**6)] * 5)


@given(usages)
def test_what_is_shown_is_read_again(usage: Usage) -> None:
    assert normalise("openai", chat_talk.show_usage(usage)) == usage
    assert normalise("anthropic", messages_talk.show_usage(usage)) == usage
    shown = responses_writer.show_usage(usage)
    assert shown["input_tokens"] + shown["output_tokens"] == shown["total_tokens"] == usage.total
    assert shown["input_tokens_details"]["cached_tokens"] == usage.cache_read


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_engine_that_counts_one_choice_is_billed_for_all(is_stream: bool) -> None:
    timings = {"prompt_n": 1, "predicted_n": 5}

    def add_timings(whole: Any) -> Any:  # noqa: ANN401 - a reply or a stream
        if isinstance(whole, bytes):
            return whole.replace(b'"usage":', b'"timings": {"n": 1}, "usage":')
        return {**whole, "timings": timings}

    body = {**HELLO, "stream": is_stream}
    three = speak("chat", "openai", {**body, "n": 3}, is_ours=True, spoil=add_timings).call
    assert (three.usage, three.flags) == (Usage(input=9, output=15), {Flag.USAGE_INVALID})
    one = speak("chat", "openai", body, is_ours=True, spoil=add_timings).call
    assert (one.usage, one.flags) == (Usage(input=9, output=5), set())
    other = speak("chat", "openai", {**body, "n": 3}).call
    assert (other.usage, other.flags) == (Usage(input=9, output=5), set())


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_engine_that_counts_one_prompt_is_billed_by_the_bound(is_stream: bool) -> None:
    def add_timings(whole: Any) -> Any:  # noqa: ANN401 - a reply or a stream
        if isinstance(whole, bytes):
            return whole.replace(b'"usage":', b'"timings": {"n": 1}, "usage":')
        return {**whole, "timings": {"n": 1}}

    body = {"prompt": ["one", "and two"], "stream": is_stream}
    two = speak("completions", "openai", body, is_ours=True, spoil=add_timings).call
    assert (two.usage, two.flags) == (
        Usage(input=two.input_bound, output=10),
        {Flag.USAGE_INVALID},
    )
    one = speak("completions", "openai", {**body, "prompt": "one"}, is_ours=True, spoil=add_timings)
    assert (one.call.usage, one.call.flags) == (Usage(input=9, output=5), set())
