"""Events are the same however their bytes were cut into parts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.gateway.wire.sse import MAX_EVENT_BYTES, EventSplitter

pieces = st.sampled_from(
    [b"data: ", b"data:", b"\n", b"\n\n", b"\r\n", b"\r", b"[DONE]", b"x", b": ping", b"event: e"]
)


@given(st.lists(pieces | st.binary(max_size=3)).map(b"".join), st.data())
def test_the_events_do_not_depend_on_the_cuts(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    assert feed(parts) == feed([stream]) == feed([bytes([byte]) for byte in stream])


@given(
    st.lists(st.text(alphabet="ab: \u00e9{}").map(str.encode)),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_every_data_comes_out_once_and_in_order(texts: list[bytes], end: str) -> None:
    stream = b"".join(b"data: " + text + (end * 2).encode() for text in texts)
    # A last CR may be half of a CRLF; what follows tells.
    assert feed([stream, b":"]) == [text for text in texts if text]


def feed(parts: list[bytes]) -> list[bytes]:
    splitter = EventSplitter()
    return [event for part in parts for event in splitter.feed(part)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\ndata:b\nevent: x\nid: 1\n\n", [b"a\nb"]),
        (b": ping\n\nretry: 5\n\ndata: a\n\n", [b"a"]),
        (b"data: a\n", []),
    ],
)
def test_an_event_is_its_data_lines(stream: bytes, events: list[bytes]) -> None:
    assert feed([stream]) == events


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    half = b"data: " + b"x" * (MAX_EVENT_BYTES // 2)
    assert splitter.feed(half) == []
    with pytest.raises(PilotageError) as caught:
        splitter.feed(half)
    assert caught.value.code == "upstream_invalid"
