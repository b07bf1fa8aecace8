"""GGUF files written by hand, byte by byte, so that each field can also be written wrong."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

U8, U32, BOOL, STRING, ARRAY, U64 = 0, 4, 7, 8, 9, 10
F32, Q4_0 = 0, 2
ALIGNMENT = 32


class Tensor(NamedTuple):
    """A tensor's entry in the directory; ``offset`` counts from the start of the data."""

    name: str
    shape: Sequence[int]
    kind: int
    offset: int


def text(value: str | bytes) -> bytes:
    """Return a length and the bytes."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    """Return one metadata entry."""
    return text(name) + struct.pack("<I", kind) + value


def header(tensor_count: int, key_count: int, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    """Return the fixed beginning of a file."""
    return magic + struct.pack("<IQQ", version, tensor_count, key_count)


def entry(tensor: Tensor) -> bytes:
    """Return one entry of the directory of tensors."""
    shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return text(tensor.name) + shape + struct.pack("<IQ", tensor.kind, tensor.offset)


BASIC_KEYS = (
    key("general.architecture", STRING, text("llama")),
    key("general.name", STRING, text("Small \x1b[31mand red")),
    key("general.license", STRING, text("MIT")),
    key("general.file_type", U32, struct.pack("<I", 1024)),
    key("llama.context_length", U32, struct.pack("<I", 128)),
    key("tokenizer.chat_template", STRING, text("{{ messages }}")),
    key("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("b")),
    key("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ", U32, 3) + bytes(12)),
    key("general.quantized", BOOL, b"\x01"),
)
BASIC_TENSORS = (
    Tensor("token_embd.weight", (64, 4), Q4_0, 0),  # 8 blocks of 18 bytes = 144, padded to 160
    Tensor("output_norm.weight", (8,), F32, 160),  # 32 bytes
)
BASIC_DATA_BYTES = 192


def build(
    keys: Sequence[bytes] = BASIC_KEYS,
    tensors: Sequence[Tensor] = BASIC_TENSORS,
    data_bytes: int = BASIC_DATA_BYTES,
    version: int = 3,
) -> bytes:
    """Return a whole file; by default a valid one."""
    head = header(len(tensors), len(keys), version) + b"".join(keys)
    head += b"".join(entry(tensor) for tensor in tensors)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(data_bytes)
