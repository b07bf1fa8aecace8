"""Call frames: the record that a call began and the record of how it ended.

They are the one source of traffic, cost and evidence. A frame is msgpack of a tagged array
(``["begun", 1, ...]``); new fields are appended with a default, so that a reader of version v
also reads v-1. An Ended frame repeats who called, so that a consumer needs no memory of Begun.
"""

from enum import StrEnum

import msgspec

from pilotage.core.usage import Usage

FRAME_VERSION = 1


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


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="begun", kw_only=True):
    """A call was admitted; written before anything is asked of an upstream."""

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


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended", kw_only=True):
    """How, when and at what cost the call ended. Durations are microseconds, -1 where unknown."""

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


Frame = Begun | Ended

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
    )
