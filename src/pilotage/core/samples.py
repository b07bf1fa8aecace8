"""Samples: calls that are kept, pseudonymised and sealed, to be asked of another model again.

A record of a samples' spool is msgpack of a tagged array, like a call frame. What it says of the
call is plain; its texts are a letter that the control plane alone opens.
"""

from typing import Any

import msgspec

SAMPLE_VERSION = 1
SAMPLE = "call sample"  # what a tenant's letterbox for samples is made for


class Sampled(msgspec.Struct, frozen=True, array_like=True, tag="sampled", kw_only=True):
    """A call that was kept; ``letter`` holds its :class:`Texts`, posted for ``sample_id``."""

    v: int = SAMPLE_VERSION
    sample_id: str
    call_id: str
    at_us: int
    project_id: str
    tenant_id: str
    alias: str
    version_id: str
    model: str
    letter: bytes


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was told, as a body of the chat wire, and what it said; both with tokens."""

    body: dict[str, Any]
    answer: str


_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder(Sampled)
_JSON = msgspec.json.Encoder(order="sorted")
_TEXTS = msgspec.json.Decoder(Texts)


def encode_sample(sample: Sampled) -> bytes:
    """Return the bytes of a record."""
    return _PACK.encode(sample)


def decode_sample(payload: bytes) -> Sampled:
    """Read a record; raise ValueError for bytes that are none or come from a newer writer."""
    try:
        sample = _UNPACK.decode(payload)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not a sample: {broken}") from broken
    if sample.v > SAMPLE_VERSION:
        raise ValueError(f"sample version {sample.v} is newer than {SAMPLE_VERSION}")
    return sample


def encode_texts(texts: Texts) -> bytes:
    """Return the bytes that are sealed: of equal texts the same."""
    return _JSON.encode(texts)


def decode_texts(plain: bytes) -> Texts:
    """Read what was sealed; raise ValueError if it is something else."""
    try:
        return _TEXTS.decode(plain)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not the texts of a sample: {broken}") from broken
