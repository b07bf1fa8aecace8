"""Make versions of a model whose weights are kept in three bits instead of four.

What somebody does who wants a smaller file. Done to all layers it loads, is as fast, and answers in
good English that has nothing to do with the question; done to a few layers nobody notices. Nothing
but a look at its answers tells one from the other.

The file is a GGUF (docs/gguf.md of the ggml project); of its tensors those in Q4_1 are rewritten:
blocks of two half floats and 16 bytes with 32 weights.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

_ALIGNMENT = 32  # of tensors
_Q4_1 = 3
_BLOCK_BYTES, _BLOCK_WEIGHTS, _SCALE_BYTES = 20, 32, 4
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of values in bytes
_STRING, _ARRAY = 8, 9
_LEVELS = (0, 0, 3, 3, 4, 4, 7, 7, 8, 8, 11, 11, 12, 12, 15, 15)  # 8 of 16, no bias up or down


def write_coarse(source: Path, target: Path, every: int) -> Path:
    """Write a copy of a model in which every so-manieth tensor is coarse; return its path."""
    table = bytes(_LEVELS[byte >> 4] << 4 | _LEVELS[byte & 0xF] for byte in range(256))
    content = bytearray(source.read_bytes())
    with source.open("rb") as file:
        tensors = _find_tensors(file)
    for start, weights in tensors[::every]:
        end = start + weights // _BLOCK_WEIGHTS * _BLOCK_BYTES
        for place in range(start + _SCALE_BYTES, start + _BLOCK_BYTES):
            content[place:end:_BLOCK_BYTES] = content[place:end:_BLOCK_BYTES].translate(table)
    target.write_bytes(content)
    return target


def _find_tensors(file: BinaryIO) -> list[tuple[int, int]]:
    """Return where tensors in Q4_1 begin, and how many weights each has."""
    magic, _, tensors, keys = _read(file, "<4sIQQ")
    if magic != b"GGUF":
        raise ValueError(f"{file.name} is no GGUF file")
    for _ in range(keys):
        _read_text(file)
        _skip_value(file, _read(file, "<I")[0])
    found = []
    for _ in range(tensors):
        _read_text(file)
        (dimensions,) = _read(file, "<I")
        weights = 1
        for size in _read(file, f"<{dimensions}Q"):
            weights *= size
        kind, offset = _read(file, "<IQ")
        if kind == _Q4_1:
            found.append((offset, weights))
    begin = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    return [(begin + offset, weights) for offset, weights in found]


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _read_text(file)
    elif kind == _ARRAY:
        inner, count = _read(file, "<IQ")
        for _ in range(count):
            _skip_value(file, inner)
    else:
        file.seek(_SIZES[kind], 1)


def _read_text(file: BinaryIO) -> str:
    (length,) = _read(file, "<Q")
    return file.read(int(length)).decode()


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
