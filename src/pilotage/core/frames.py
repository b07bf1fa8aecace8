"""Call frames: that a call began, how it ended, and what became known of its answer.

They are the one source of traffic, cost and evidence. A frame is msgpack of a tagged array
(``["begun", 1, ...]``); new fields are appended with a default, so that a reader of version v
also reads v-1. An Ended frame repeats who called, so that a consumer needs no memory of Begun.
"""

from enum import StrEnum

import msgspec

from pilotage.core.usage import Usage

FRAME_VERSION = 5


class Outcome(StrEnum):
    """How a call ended; closed: every call has exactly one."""

    OK = "ok"
    REFUSED = "refused"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_STALL = "upstream_stall"
    CLIENT_GONE = "client_gone"
    DEADLINE = "deadline"
    READER_STALLED = "reader_stalled"
    DRAINING = "draining"
    CANCELLED = "cancelled"
    INTERNAL_ERROR = "internal_error"
    LOST = "lost"


class Flag(StrEnum):
    """What else is worth knowing of a call; closed."""

    BUDGET_OVERRUN = "budget_overrun"  # it cost more than its worst case
    USAGE_INVALID = "usage_invalid"  # the upstream's counts do not add up
    USAGE_MISSING = "usage_missing"  # the upstream gave none
    LIMIT_WARNED = "limit_warned"  # over a limit that only warns
    LIMIT_UNKNOWN = "limit_unknown"  # a limit could not be looked up and is declared open
    DOWNGRADED = "downgraded"  # a limit moved it to a cheaper model
    OUTPUT_CUT = "output_cut"  # its output limit was lowered to what a budget could pay
    FELL_BACK = "fell_back"  # another arm than the chosen one answered
    RETRIED = "retried"  # an arm was asked more than once
    SHADOW = "shadow"  # a copy that no client waited for
    COLD = "cold"  # its replica had only just become ready
    WARMING = "warming"  # one was cold, or there was none, in an arm that it might be dealt
    PROBE = "probe"  # nobody's call: it was made up to see what becomes of it


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="begun", kw_only=True):
    """A call was admitted; written before anything is asked of an upstream.

    ``counters`` names the limits' counters that it reserves its worst case from; ``prompt`` is the
    ``NAME@VERSION`` that its messages were made of, if it named one. ``rollout`` is the step
    (``ROLLOUT_ID/STEP``) whose coin decides its arm, ``unit`` what that is tossed for ("": for the
    call's id).
    """

    v: int = FRAME_VERSION
    call_id: str
    at_us: int
    project_id: str
    tenant_id: str
    key_id: str
    alias: str
    wire: str
    is_stream: bool
    worst_nano: int
    snapshot_n: int
    purpose: str = ""
    user: str = ""
    feature: str = ""
    worst_tokens: int = 0
    counters: list[str] = []
    trace_id: str = ""
    prompt: str = ""
    rollout: str = ""
    unit: str = ""


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended", kw_only=True):
    """How, when and at what cost the call ended. Durations are microseconds, -1 where unknown.

    ``cost_nano`` is all that it cost, abandoned attempts included, and ``usage`` all it used;
    ``counters`` names the limits' counters that it was charged to; ``flags`` is a set of
    :class:`Flag` values; ``assigned`` is the arm that the call was dealt, ``arm`` the one that
    answered it; ``answered_by`` and ``fingerprint`` are what the upstream itself said. ``rollout``,
    ``unit`` and ``is_stream`` are as in Begun.
    """

    v: int = FRAME_VERSION
    call_id: str
    at_us: int
    project_id: str
    tenant_id: str
    key_id: str
    alias: str
    outcome: Outcome
    status: int
    usage: Usage
    cost_nano: int
    is_estimated: bool
    duration_us: int
    ttft_us: int
    chunks: int
    attempts: int
    arm: str = ""
    version_id: str = ""
    model: str = ""
    price_id: str = ""
    code: str = ""
    snapshot_n: int = 0
    user: str = ""
    feature: str = ""
    upstream_id: str = ""
    answered_by: str = ""
    fingerprint: str = ""
    finish_reason: str = ""
    counters: list[str] = []
    flags: list[str] = []
    trace_id: str = ""
    shadow_of: str = ""
    queue_us: int = -1
    assigned: str = ""
    prompt: str = ""
    rollout: str = ""
    unit: str = ""
    is_stream: bool = False


class Measured(msgspec.Struct, frozen=True, array_like=True, tag="measured", kw_only=True):
    """What was measured of the texts of a call that went well, never a word of them.

    Written after its Ended, for the share of calls that the tenant allows. Lengths are letters, -1
    where unknown; languages are ISO 639-1, ``und`` where undetermined and "" where there is no text
    to tell it from.
    """

    v: int = FRAME_VERSION
    call_id: str
    at_us: int
    project_id: str
    tenant_id: str
    alias: str
    version_id: str = ""
    model: str = ""
    prompt_letters: int = -1
    prompt_language: str = ""
    answer_letters: int = -1
    answer_language: str = ""
    is_refusal: bool = False


class Feedback(msgspec.Struct, frozen=True, array_like=True, tag="feedback", kw_only=True):
    """What a client said of the answer to a call of its tenant, as it claims.

    ``score`` is in millionths of the best, -1 where none was given; ``comment`` is sealed, so that
    only the control plane opens it. Whether there is such a call of that tenant is for whoever
    reads this to find out.
    """

    v: int = FRAME_VERSION
    call_id: str
    at_us: int
    feedback_id: str
    project_id: str
    tenant_id: str
    key_id: str
    score: int = -1
    label: str = ""
    comment: bytes = b""


class Compared(msgspec.Struct, frozen=True, array_like=True, tag="compared", kw_only=True):
    """How the answer to a copy of a call compares with the call's own, never a word of either.

    ``call_id`` is the call, ``copy_id`` its copy, ``baseline`` and ``candidate`` are the arms that
    answered them; ``rollout`` is the step that copies were made for. ``similarity`` is in
    millionths, marks in thousandths (:mod:`pilotage.core.comparison`), ``is_schema_kept`` 1 or 0;
    these and lengths are -1 where there is nothing to compare. A call that failed has the mark 0.
    """

    v: int = FRAME_VERSION
    call_id: str
    at_us: int
    copy_id: str
    project_id: str
    tenant_id: str
    alias: str
    baseline: str
    candidate: str
    rollout: str = ""
    is_exact: bool = False
    is_schema_kept: int = -1
    similarity: int = -1
    baseline_letters: int = -1
    candidate_letters: int = -1
    baseline_mark: int = 0
    candidate_mark: int = 0
    baseline_nano: int = 0
    candidate_nano: int = 0
    baseline_us: int = -1
    candidate_us: int = -1


Frame = Begun | Ended | Measured | Feedback | Compared

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    return _ENCODER.encode(frame)


def decode_frame(payload: bytes) -> Frame:
    """Read a frame; raise ValueError for bytes that are none or come from a newer writer."""
    try:
        frame = _DECODER.decode(payload)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not a call frame: {broken}") from broken
    if frame.v > FRAME_VERSION:
        raise ValueError(f"frame version {frame.v} is newer than {FRAME_VERSION}")
    return frame


def make_lost(begun: Begun, at_us: int) -> Ended:
    """End a call whose process died: at its worst case, marked as an estimate."""
    return Ended(
        call_id=begun.call_id,
        at_us=at_us,
        project_id=begun.project_id,
        tenant_id=begun.tenant_id,
        key_id=begun.key_id,
        alias=begun.alias,
        outcome=Outcome.LOST,
        status=0,
        usage=Usage(),
        cost_nano=begun.worst_nano,
        is_estimated=True,
        duration_us=-1,
        ttft_us=-1,
        chunks=0,
        attempts=0,
        code="lost",
        snapshot_n=begun.snapshot_n,
        user=begun.user,
        feature=begun.feature,
        counters=begun.counters,
        trace_id=begun.trace_id,
        prompt=begun.prompt,
        rollout=begun.rollout,
        unit=begun.unit,
        is_stream=begun.is_stream,
    )
