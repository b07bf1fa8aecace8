"""A strict reader of what a GGUF file says of itself, for files that nobody has vouched for.

Format: "GGUF", docs/gguf.md of the ggml project, versions 2 and 3, little-endian; the tensor types
and their block sizes are those of ggml.h. Stricter than the specification where a loader would
have to trust the file: every count and length is bounded before it is used, names are unique,
arrays hold no arrays, and each tensor lies aligned inside the file and overlaps no other.

The weights are never read, and of arrays only the length is kept.
"""

import math
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pilotage.registry.matrices import Matrices, list_matrices

MODEL, ADAPTER = "model", "adapter"
MAX_METADATA_BYTES = 64 << 20  # the largest vocabularies in use need about 16 MiB
MAX_KEYS = 4096
MAX_KEY_BYTES = 0xFFFF
MAX_STRING_BYTES = 4 << 20
MAX_TENSORS = 65_536
MAX_TENSOR_NAME_BYTES = 64
MAX_DIMENSIONS = 4
MAX_CONTEXT_TOKENS = 1 << 31
_MAX_SHOWN_LETTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufInfo:
    """What a model file is: ``parameters`` is the number of weights, None means "not stated".

    ``kind`` is ``general.type``: a model, or a LoRA adapter that is put on one; ``matrices`` are
    those that it has, or changes.
    """

    architecture: str
    name: str | None
    parameters: int
    quantization: str
    context_length: int | None
    file_bytes: int
    license: str | None
    has_chat_template: bool
    tensor_count: int
    metadata_count: int
    matrices: Matrices
    kind: str = MODEL


def read_gguf(path: Path) -> GgufInfo:
    """Read the metadata of a model file; raise ValueError that says what is wrong with it."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise ValueError("it is not a regular file")
    with path.open("rb", buffering=1 << 18) as file:
        return _read(_Cursor(file, os.fstat(file.fileno()).st_size))


class _TensorType(NamedTuple):
    """How weights are packed: so many per block of so many bytes."""

    name: str
    block_weights: int
    block_bytes: int


class _Tensor(NamedTuple):
    name: str
    kind: _TensorType
    shape: tuple[int, ...]
    offset: int

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.weights // self.kind.block_weights * self.kind.block_bytes


_Value = str | int | float | bool | None  # None stands for an array

# Q8_1 and Q8_K exist in memory only and are not files' business
_TENSOR_TYPES = {
    0: _TensorType("F32", 1, 4),
    1: _TensorType("F16", 1, 2),
    2: _TensorType("Q4_0", 32, 18),
    3: _TensorType("Q4_1", 32, 20),
    6: _TensorType("Q5_0", 32, 22),
    7: _TensorType("Q5_1", 32, 24),
    8: _TensorType("Q8_0", 32, 34),
    10: _TensorType("Q2_K", 256, 84),
    11: _TensorType("Q3_K", 256, 110),
    12: _TensorType("Q4_K", 256, 144),
    13: _TensorType("Q5_K", 256, 176),
    14: _TensorType("Q6_K", 256, 210),
    16: _TensorType("IQ2_XXS", 256, 66),
    17: _TensorType("IQ2_XS", 256, 74),
    18: _TensorType("IQ3_XXS", 256, 98),
    19: _TensorType("IQ1_S", 256, 50),
    20: _TensorType("IQ4_NL", 32, 18),
    21: _TensorType("IQ3_S", 256, 110),
    22: _TensorType("IQ2_S", 256, 82),
    23: _TensorType("IQ4_XS", 256, 136),
    24: _TensorType("I8", 1, 1),
    25: _TensorType("I16", 1, 2),
    26: _TensorType("I32", 1, 4),
    27: _TensorType("I64", 1, 8),
    28: _TensorType("F64", 1, 8),
    29: _TensorType("IQ1_M", 256, 56),
    30: _TensorType("BF16", 1, 2),
    34: _TensorType("TQ1_0", 256, 54),
    35: _TensorType("TQ2_0", 256, 66),
    39: _TensorType("MXFP4", 32, 17),
    40: _TensorType("NVFP4", 64, 36),
    41: _TensorType("Q1_0", 128, 18),
}

# general.file_type: the name of the mix, where it says more than the commonest tensor type
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    32: "BF16",
}

_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIGNMENTS = [1 << power for power in range(3, 17)]
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<B"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]
_BIG_ENDIAN_VERSIONS = {0x0200_0000, 0x0300_0000}


class _Cursor:
    """Takes bytes off the front of a file, never beyond its end or the metadata limit."""

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
        self.file_bytes = file_bytes
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        """Return the next bytes."""
        self._claim(size, what)
        taken = self._file.read(size)
        if len(taken) != size:  # it was cut while being read
            raise ValueError(f"the file ends inside {what}")
        return taken

    def skip(self, size: int, what: str) -> None:
        """Pass over the next bytes."""
        self._claim(size, what)
        self._file.seek(size, os.SEEK_CUR)

    def _claim(self, size: int, what: str) -> None:
        self.position += size
        if self.position > self.file_bytes:
            raise ValueError(f"the file ends inside {what}")
        if self.position > MAX_METADATA_BYTES:
            raise ValueError(f"its metadata is larger than {MAX_METADATA_BYTES >> 20} MiB")

    def number(self, packing: struct.Struct, what: str) -> int:
        """Return the next integer."""
        return int(packing.unpack(self.take(packing.size, what))[0])

    def count(self, limit: int, what: str) -> int:
        """Return the next 64-bit count, refused above a limit."""
        value = self.number(_U64, what)
        if value > limit:
            raise ValueError(f"{what} is {value}, at most {limit} is read")
        return value

    def text(self, limit: int, what: str) -> str:
        """Return the next string."""
        raw = self.take(self.count(limit, f"the length of {what}"), what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{what} is not UTF-8") from None


def _read(cursor: _Cursor) -> GgufInfo:
    tensor_count, key_count = _read_header(cursor)
    metadata = _read_metadata(cursor, key_count)
    tensors = [_read_tensor(cursor, index) for index in range(tensor_count)]
    _check_layout(cursor, tensors, _read_alignment(metadata))
    architecture = _find_text(metadata, "general.architecture") or ""
    if not _ARCHITECTURE.fullmatch(architecture):
        raise ValueError(
            f"general.architecture is {_show(architecture)}, not a name such as 'llama'"
        )
    kind = _read_kind(metadata)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    return GgufInfo(
        kind=kind,
        matrices=list_matrices(shapes, is_adapter=kind == ADAPTER),
        architecture=architecture,
        name=_find_text(metadata, "general.name"),
        parameters=sum(tensor.weights for tensor in tensors),
        quantization=_name_quantization(metadata, tensors),
        context_length=_find_context(metadata, f"{architecture}.context_length"),
        file_bytes=cursor.file_bytes,
        license=_find_text(metadata, "general.license"),
        has_chat_template=bool(_find_text(metadata, "tokenizer.chat_template")),
        tensor_count=tensor_count,
        metadata_count=key_count,
    )


def _read_header(cursor: _Cursor) -> tuple[int, int]:
    magic = cursor.take(4, "its first four bytes")
    if magic != b"GGUF":
        raise ValueError(f"it starts with {magic!r}, a GGUF file with b'GGUF'")
    version = cursor.number(_U32, "the version")
    if version in _BIG_ENDIAN_VERSIONS:
        raise ValueError("it is a big-endian GGUF file, only little-endian ones are read")
    if version not in (2, 3):
        raise ValueError(f"it has GGUF version {version}, only 2 and 3 are read")
    tensor_count = cursor.count(MAX_TENSORS, "the number of tensors")
    if not tensor_count:
        raise ValueError("it has no tensors")
    return tensor_count, cursor.count(MAX_KEYS, "the number of metadata keys")


def _read_metadata(cursor: _Cursor, key_count: int) -> dict[str, _Value]:
    metadata: dict[str, _Value] = {}
    for index in range(key_count):
        key = cursor.text(MAX_KEY_BYTES, f"metadata key {index}")
        if key in metadata:
            raise ValueError(f"the metadata key {_show(key)} occurs twice")
        kind = cursor.number(_U32, f"the type of {_show(key)}")
        metadata[key] = _read_value(cursor, kind, _show(key))
    return metadata


def _read_value(cursor: _Cursor, kind: int, what: str) -> _Value:
    if kind == _STRING:
        return cursor.text(MAX_STRING_BYTES, what)
    if kind == _ARRAY:
        _skip_array(cursor, what)
        return None
    packing = _NUMBERS.get(kind)
    if packing is None:
        raise ValueError(f"{what} has the unknown type {kind}")
    value: int | float = packing.unpack(cursor.take(packing.size, what))[0]
    if kind != _BOOL:
        return value
    if value not in (0, 1):
        raise ValueError(f"{what} is neither true nor false but {value}")
    return bool(value)


def _skip_array(cursor: _Cursor, what: str) -> None:
    kind = cursor.number(_U32, f"the element type of {what}")
    length = cursor.count(MAX_METADATA_BYTES, f"the length of {what}")
    if kind == _STRING:
        for _ in range(length):  # each takes 8 bytes at least, so the file's end ends the loop
            size = cursor.count(MAX_STRING_BYTES, f"the length of a text in {what}")
            cursor.skip(size, what)
        return
    packing = _NUMBERS.get(kind)
    if packing is None:
        raise ValueError(f"{what} is an array of the type {kind}, which is not read")
    cursor.skip(length * packing.size, what)


def _read_tensor(cursor: _Cursor, index: int) -> _Tensor:
    name = cursor.text(MAX_TENSOR_NAME_BYTES, f"the name of tensor {index}")
    shown = f"tensor {_show(name)}"
    dimension_count = cursor.number(_U32, f"the dimensions of {shown}")
    if not 1 <= dimension_count <= MAX_DIMENSIONS:
        raise ValueError(
            f"{shown} has {dimension_count} dimensions, 1 to {MAX_DIMENSIONS} are read"
        )
    shape = tuple(cursor.number(_U64, f"the shape of {shown}") for _ in range(dimension_count))
    type_id = cursor.number(_U32, f"the type of {shown}")
    kind = _TENSOR_TYPES.get(type_id)
    if kind is None:
        raise ValueError(f"{shown} has the unknown type {type_id}")
    if 0 in shape:
        raise ValueError(f"{shown} is empty")
    if shape[0] % kind.block_weights:
        raise ValueError(
            f"{shown} has rows of {shape[0]} weights, "
            f"{kind.name} packs {kind.block_weights} at a time"
        )
    return _Tensor(name, kind, shape, cursor.number(_U64, f"the offset of {shown}"))


def _read_alignment(metadata: dict[str, _Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is int and alignment in _ALIGNMENTS:
        return alignment
    raise ValueError(
        f"general.alignment is {_show(str(alignment))}, "
        f"not a power of two from {_ALIGNMENTS[0]} to {_ALIGNMENTS[-1]}"
    )


def _check_layout(cursor: _Cursor, tensors: list[_Tensor], alignment: int) -> None:
    start = -(-cursor.position // alignment) * alignment
    names: set[str] = set()
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        shown = f"tensor {_show(tensor.name)}"
        if tensor.name in names:
            raise ValueError(f"{shown} occurs twice")
        names.add(tensor.name)
        if tensor.offset % alignment:
            raise ValueError(f"{shown} starts at {tensor.offset}, not at a multiple of {alignment}")
        if start + tensor.end > cursor.file_bytes:
            raise ValueError(
                f"{shown} ends at byte {start + tensor.end}, the file at {cursor.file_bytes}: "
                "it is cut off or damaged"
            )
        if tensor.offset < end:
            raise ValueError(f"{shown} overlaps another tensor")
        end = tensor.end


def _read_kind(metadata: dict[str, _Value]) -> str:
    if _find_text(metadata, "general.type") != ADAPTER:
        return MODEL
    if _find_text(metadata, "adapter.type") != "lora":
        raise ValueError("adapter.type is not 'lora', and no engine knows other adapters")
    return ADAPTER


def _name_quantization(metadata: dict[str, _Value], tensors: list[_Tensor]) -> str:
    stated = metadata.get("general.file_type")
    if type(stated) is int and stated in _FILE_TYPES:
        return _FILE_TYPES[stated]
    weights: dict[str, int] = {}
    for tensor in tensors:
        weights[tensor.kind.name] = weights.get(tensor.kind.name, 0) + tensor.weights
    return max(weights, key=lambda name: weights[name])


def _find_text(metadata: dict[str, _Value], key: str) -> str | None:
    value = metadata.get(key)
    if key in metadata and not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    if not isinstance(value, str):
        return None
    printable = "".join(letter if letter.isprintable() else " " for letter in value)
    return printable.strip()[:_MAX_SHOWN_LETTERS] or None


def _find_context(metadata: dict[str, _Value], key: str) -> int | None:
    if key not in metadata:
        return None
    value = metadata[key]
    if type(value) is not int or not 1 <= value <= MAX_CONTEXT_TOKENS:
        raise ValueError(f"{key} is {_show(str(value))}, not 1 to {MAX_CONTEXT_TOKENS} tokens")
    return value


def _show(text: str) -> str:
    """Return a name from the file in a form that is safe in a terminal and a log."""
    return ascii(text if len(text) <= _MAX_SHOWN_LETTERS else text[:_MAX_SHOWN_LETTERS] + "...")
