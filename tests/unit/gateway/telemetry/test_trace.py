"""Trace contexts: what is read of ``traceparent``, and what is made of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.telemetry.trace import Contexts, pass_on

HEX = "0123456789abcdef"
TRACE_IDS = st.text(HEX, min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})
SPAN_IDS = st.text(HEX, min_size=16, max_size=16).filter(lambda text: set(text) != {"0"})
HEADER = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@given(TRACE_IDS, SPAN_IDS, st.integers(0, 255), st.integers(0, 2**32))
def test_a_valid_header_is_continued(trace: str, span: str, flags: int, seed: int) -> None:
    context = Contexts(seed).begin(f"00-{trace}-{span}-{flags:02x}", share=0.0)
    assert (context.trace_id, context.parent_id) == (trace, span)
    assert context.is_sampled == bool(flags & 1)
    assert context.span_id != span
    assert context.header.startswith(f"00-{trace}-{context.span_id}-")
    assert HEADER.fullmatch(context.header)


INVALID = [
    "",
    "00",
    f"00-{'0' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'0' * 16}-01",
    f"ff-{'1' * 32}-{'1' * 16}-01",
    f"00-{'A' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'1' * 16}-01-more",
    f"00-{'1' * 31}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'1' * 16}-01\r\nx-evil: 1",
    f"01-{'1' * 32}-{'1' * 16}-01.more",
]


@pytest.mark.parametrize("header", INVALID)
def test_anything_else_begins_a_new_trace(header: str) -> None:
    context = Contexts(1).begin(header, share=0.0)
    assert context.parent_id == ""
    assert context.trace_id != "1" * 32
    assert HEADER.fullmatch(context.header)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = Contexts(1).begin(f"01-{'1' * 32}-{'2' * 16}-01-future", share=0.0)
    assert (context.trace_id, context.parent_id) == ("1" * 32, "2" * 16)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_share_of_new_traces_is_sampled(share: float) -> None:
    contexts = Contexts(7)
    sampled = sum(contexts.begin("", share).is_sampled for _ in range(20_000))
    assert sampled == pytest.approx(20_000 * share, abs=300)


@given(TRACE_IDS, st.floats(0, 1))
def test_all_who_see_a_trace_decide_alike(trace: str, share: float) -> None:
    header = f"00-{trace}-{'1' * 16}-00"
    decisions = {Contexts(seed).begin(header, share).is_sampled for seed in range(3)}
    assert len(decisions) == 1


@given(TRACE_IDS, SPAN_IDS, st.integers(0, 255))
def test_without_spans_a_valid_header_goes_on_as_it_came(trace: str, span: str, flags: int) -> None:
    header = f"00-{trace}-{span}-{flags:02x}"
    assert pass_on(header) == (trace, header)


@pytest.mark.parametrize("header", INVALID)
def test_without_spans_anything_else_goes_nowhere(header: str) -> None:
    assert pass_on(header) == ("", "")


def test_what_a_later_version_adds_is_not_sent_on() -> None:
    header = f"01-{'1' * 32}-{'2' * 16}-03-future\rx-evil: 1"
    assert pass_on(header) == ("1" * 32, f"00-{'1' * 32}-{'2' * 16}-03")


@given(st.text(max_size=80))
def test_no_text_makes_a_header_that_is_none(text: str) -> None:
    assert HEADER.fullmatch(Contexts(1).begin(text, share=0.5).header)
    _, sent = pass_on(text)
    assert not sent or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", sent)
