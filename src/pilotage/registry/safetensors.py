"""A strict reader of the header of a safetensors file, for files that nobody has vouched for.

Format: huggingface/safetensors, "Format" of its README: eight bytes with the length of the header
(little-endian), the header in JSON, then the bytes of the tensors. Every length is bounded before
it is used, no name occurs twice, and the tensors fill the file without a gap or an overlap.

The tensors are never read.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAX_HEADER_BYTES = 32 << 20  # the largest in use need about 2 MiB
MAX_TENSORS = 262_144
MAX_DIMENSIONS = 32
MAX_NAME_LETTERS = 1024
MAX_METADATA_KEYS = 4096
METADATA = "__metadata__"
_MAX_SHOWN = 200
_MOST_SHOWN_KEYS = 64

# data types by the bits of an element
DTYPES = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class Tensor(NamedTuple):
    """A tensor of a header; its bytes lie from ``begin`` to ``end`` behind the header."""

    begin: int
    end: int
    name: str
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsInfo:
    """What a file says of itself; ``dtypes`` counts elements by data type."""

    tensors: tuple[Tensor, ...]
    dtypes: Mapping[str, int]
    metadata: Mapping[str, str]
    file_bytes: int

    @property
    def parameters(self) -> int:
        """The number of all elements."""
        return sum(self.dtypes.values())


def read_safetensors(path: Path) -> SafetensorsInfo:
    """Read the header of a file; raise ValueError that says what is wrong with it."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        head = file.read(8)
        if len(head) != 8:
            raise ValueError("the file ends inside the length of its header")
        size = int.from_bytes(head, "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"its header has {size} bytes, at most {MAX_HEADER_BYTES} are read")
        if size > file_bytes - 8:
            raise ValueError("the file ends inside its header")
        header = file.read(size)
    return parse_header(header, file_bytes)


def parse_header(header: bytes, file_bytes: int) -> SafetensorsInfo:
    """Read a header of a file of so many bytes; raise ValueError that says what is wrong."""
    if not header.startswith(b"{"):
        raise ValueError("its header does not begin with '{'")
    content = _load(header)
    metadata = _check_metadata(content.pop(METADATA, {}))
    if not content:
        raise ValueError("it has no tensors")
    if len(content) > MAX_TENSORS:
        raise ValueError(f"it has {len(content)} tensors, at most {MAX_TENSORS} are read")
    tensors = tuple(sorted(_read_tensor(name, entry) for name, entry in content.items()))
    _check_layout(tensors, file_bytes - 8 - len(header))
    dtypes: dict[str, int] = {}
    for tensor in tensors:
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.elements
    return SafetensorsInfo(tensors=tensors, dtypes=dtypes, metadata=metadata, file_bytes=file_bytes)


def _load(header: bytes) -> dict[str, object]:
    try:
        text = header.decode()
    except UnicodeDecodeError:
        raise ValueError("its header is not UTF-8") from None
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except json.JSONDecodeError as wrong:
        raise ValueError(f"its header is not JSON: {wrong.msg} at {wrong.pos}") from None
    return dict(content)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{_show(name)} occurs twice in its header")
        content[name] = value
    return content


def _no_constant(text: str) -> object:
    raise ValueError(f"its header has {text}")


def _check_metadata(content: object) -> dict[str, str]:
    if not isinstance(content, dict) or len(content) > MAX_METADATA_KEYS:
        raise ValueError(f"{METADATA} is not an object of at most {MAX_METADATA_KEYS} texts")
    shown: dict[str, str] = {}
    for key, value in content.items():
        if not isinstance(value, str):
            raise ValueError(f"{_show(key)} in {METADATA} is no text")  # noqa: TRY004 - the file's
        if len(shown) < _MOST_SHOWN_KEYS:
            shown[_clean(key)] = _clean(value)
    return shown


def _read_tensor(name: str, entry: object) -> Tensor:
    shown = f"tensor {_show(name)}"
    if len(name) > MAX_NAME_LETTERS:
        raise ValueError(f"{shown} has a name of more than {MAX_NAME_LETTERS} letters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ValueError(f"{shown} has the unknown type {_show(str(dtype))}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{shown} has a shape that is none")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{shown} has offsets that are none")
    elements = 1
    for size in shape:
        elements = min(elements * size, 1 << 64)  # whatever it is, no file holds it
    begin, end = offsets
    if elements * bits != (end - begin) * 8:
        raise ValueError(
            f"{shown} has {(end - begin) * 8} bits, its type and shape come to {elements * bits}"
        )
    return Tensor(begin, end, name, dtype, elements)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 63 for item in value
    )


def _check_layout(tensors: tuple[Tensor, ...], data_bytes: int) -> None:
    end = 0
    for tensor in tensors:
        if tensor.begin != end:
            what = "overlaps another tensor" if tensor.begin < end else "leaves a gap before it"
            raise ValueError(f"tensor {_show(tensor.name)} {what}")
        end = tensor.end
    if end != data_bytes:
        raise ValueError(
            f"its tensors end at byte {end} of its data, the file at {data_bytes}: "
            "it is cut off or damaged"
        )


def _clean(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:_MAX_SHOWN])
    return printable.strip()


def _show(text: str) -> str:
    """Return a name from the file in a form that is safe in a terminal and a log."""
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
