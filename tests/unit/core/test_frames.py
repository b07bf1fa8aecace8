"""Call frames on the wire: round trips, the versions that are read, lost calls."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.frames import (
    FRAME_VERSION,
    Begun,
    Compared,
    Ended,
    Feedback,
    Flag,
    Frame,
    Measured,
    Outcome,
    decode_frame,
    encode_frame,
    make_lost,
)
from pilotage.core.usage import Usage

TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 2**62)
BEGUN = st.builds(
    Begun,
    v=st.just(FRAME_VERSION),
    call_id=TEXTS,
    at_us=COUNTS,
    project_id=TEXTS,
    tenant_id=TEXTS,
    key_id=TEXTS,
    alias=TEXTS,
    wire=st.just("openai"),
    is_stream=st.booleans(),
    worst_nano=COUNTS,
    snapshot_n=COUNTS,
    purpose=TEXTS,
    user=TEXTS,
    feature=TEXTS,
    worst_tokens=COUNTS,
    counters=st.lists(TEXTS, max_size=3),
    trace_id=TEXTS,
    prompt=TEXTS,
    rollout=TEXTS,
    unit=TEXTS,
)
ENDED = st.builds(
    Ended,
    v=st.just(FRAME_VERSION),
    call_id=TEXTS,
    at_us=COUNTS,
    project_id=TEXTS,
    tenant_id=TEXTS,
    key_id=TEXTS,
    alias=TEXTS,
    outcome=st.sampled_from(Outcome),
    status=st.integers(0, 599),
    usage=st.builds(Usage, *[COUNTS] * 5),
    cost_nano=COUNTS,
    is_estimated=st.booleans(),
    duration_us=st.integers(-1, 2**62),
    ttft_us=st.integers(-1, 2**62),
    chunks=COUNTS,
    attempts=COUNTS,
    arm=TEXTS,
    code=TEXTS,
    counters=st.lists(TEXTS, max_size=3),
    flags=st.lists(st.sampled_from([flag.value for flag in Flag]), unique=True),
    shadow_of=TEXTS,
    prompt=TEXTS,
    rollout=TEXTS,
    unit=TEXTS,
)

FEATURES = st.builds(
    Measured,
    v=st.just(FRAME_VERSION),
    call_id=TEXTS,
    at_us=COUNTS,
    project_id=TEXTS,
    tenant_id=TEXTS,
    alias=TEXTS,
    version_id=TEXTS,
    model=TEXTS,
    prompt_letters=st.integers(-1, 2**62),
    prompt_language=TEXTS,
    answer_letters=st.integers(-1, 2**62),
    answer_language=TEXTS,
    is_refusal=st.booleans(),
)
FEEDBACK = st.builds(
    Feedback,
    v=st.just(FRAME_VERSION),
    call_id=TEXTS,
    at_us=COUNTS,
    feedback_id=TEXTS,
    project_id=TEXTS,
    tenant_id=TEXTS,
    key_id=TEXTS,
    score=st.integers(-1, 1_000_000),
    label=TEXTS,
)
COMPARED = st.builds(
    Compared,
    v=st.just(FRAME_VERSION),
    call_id=TEXTS,
    at_us=COUNTS,
    copy_id=TEXTS,
    project_id=TEXTS,
    tenant_id=TEXTS,
    alias=TEXTS,
    baseline=TEXTS,
    candidate=TEXTS,
    rollout=TEXTS,
    is_exact=st.booleans(),
    similarity=st.integers(-1, 1_000_000),
    candidate_mark=st.integers(0, 1_000),
    candidate_nano=COUNTS,
)
FRAMES = st.one_of(BEGUN, ENDED, FEATURES, FEEDBACK, COMPARED)


def fields_of(frame: Frame) -> list[object]:
    decoded: list[object] = msgspec.msgpack.decode(encode_frame(frame))
    return decoded


@given(FRAMES)
def test_a_frame_is_read_back(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(FRAMES)
def test_a_frame_is_an_array_that_begins_with_its_tag_and_version(frame: Frame) -> None:
    tag, version, call_id, at_us, *_ = fields_of(frame)

    assert (tag, version) == (type(frame).__name__.lower(), FRAME_VERSION)
    assert (call_id, at_us) == (frame.call_id, frame.at_us)


@given(FRAMES)
def test_a_frame_of_a_newer_version_is_refused(frame: Frame) -> None:
    newer = fields_of(frame)
    newer[1] = FRAME_VERSION + 1

    with pytest.raises(ValueError, match=f"version {FRAME_VERSION + 1} is newer"):
        decode_frame(msgspec.msgpack.encode([*newer, "a field of tomorrow"]))


def optional(frame: type[Frame]) -> int:
    return sum(1 for field in msgspec.structs.fields(frame) if not field.required) - 1  # without v


@given(FRAMES, st.data())
def test_an_older_frame_lacks_the_newest_fields(frame: Frame, data: st.DataObject) -> None:
    missing = data.draw(st.integers(1, optional(type(frame))))
    older = decode_frame(msgspec.msgpack.encode(fields_of(frame)[:-missing]))

    fields = msgspec.structs.fields(type(frame))
    for field in fields[:-missing]:
        assert getattr(older, field.name) == getattr(frame, field.name)
    for field in fields[-missing:]:
        default = [] if field.default_factory is list else field.default
        assert getattr(older, field.name) == default


def test_frames_of_version_1_are_read() -> None:
    begun = decode_frame(
        msgspec.msgpack.encode(
            ["begun", 1, "call_1", 5, "prj", "ten", "key", "chat", "chat", False, 9, 3, "why"]
        )
    )
    assert isinstance(begun, Begun)
    assert (begun.call_id, begun.worst_nano, begun.purpose) == ("call_1", 9, "why")
    assert (begun.user, begun.counters, begun.worst_tokens) == ("", [], 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"not msgpack at all",
        msgspec.msgpack.encode(["begun", 1]),
        msgspec.msgpack.encode(["other", 1, "call_1"]),
        msgspec.msgpack.encode({"tag": "begun"}),
    ],
)
def test_anything_else_is_no_frame(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a call frame"):
        decode_frame(payload)


def test_an_outcome_that_is_not_known_is_no_frame() -> None:
    payload = msgspec.msgpack.encode(
        ["ended", 1, "c", 1, "p", "t", "k", "a", "vanished", 200, [1], 0, False, 1, 1, 1, 1]
    )

    with pytest.raises(ValueError, match="not a call frame"):
        decode_frame(payload)


@given(BEGUN, COUNTS)
def test_a_lost_call_ends_at_its_worst_case_as_an_estimate(begun: Begun, at_us: int) -> None:
    ended = make_lost(begun, at_us)

    assert (ended.outcome, ended.status, ended.code) == (Outcome.LOST, 0, "lost")
    assert (ended.cost_nano, ended.is_estimated) == (begun.worst_nano, True)
    assert (ended.usage.total, ended.duration_us, ended.ttft_us) == (0, -1, -1)
    who = ("call_id", "project_id", "tenant_id", "key_id", "user", "feature", "alias")
    for name in (*who, "counters", "snapshot_n", "trace_id", "rollout", "unit", "is_stream"):
        assert getattr(ended, name) == getattr(begun, name)
