"""The footer of a Parquet file: how many rows, which columns.

Format: apache/parquet-format, README ("File format") and parquet.thrift (FileMetaData, fields 2
schema and 3 num_rows; SchemaElement, fields 1 type, 4 name and 5 num_children), in Thrift's compact
protocol (thrift/doc/specs/thrift-compact-protocol.md). Rows themselves are not read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_FOOTER_BYTES = 64 << 20
MAX_COLUMNS = 100_000
_MAGIC = b"PAR1"
_DEEPEST = 16
_TYPES = (
    *("boolean", "int32", "int64", "int96"),
    *("float", "double", "byte_array", "fixed_len_byte_array"),
)
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """Rows, and the types of the leaves of the schema by their dotted names."""

    rows: int
    columns: Mapping[str, str]


def read_footer(path: Path) -> Footer:
    """Read the footer of a file; raise ValueError that says what is wrong with it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 12 or file.read(4) != _MAGIC:
            raise ValueError("it does not begin as a Parquet file does, with PAR1")
        file.seek(size - 8)
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > size - 12:
            raise ValueError("it does not end as a Parquet file does: it is cut off or encrypted")
        if length > MAX_FOOTER_BYTES:
            raise ValueError(f"its footer has {length} bytes, at most {MAX_FOOTER_BYTES} are read")
        file.seek(size - 8 - length)
        return parse_footer(file.read(length))


def parse_footer(data: bytes) -> Footer:
    """Read FileMetaData; raise ValueError that says what is wrong with it."""
    try:
        content = _Compact(data).struct(0)
    except IndexError:
        raise ValueError("its footer ends too early") from None
    rows, schema = content.get(3), content.get(2)
    if type(rows) is not int or rows < 0 or not isinstance(schema, list) or not schema:
        raise ValueError("its footer says neither rows nor columns")
    return Footer(rows=rows, columns=_list_columns(schema))


def _list_columns(schema: list[Any]) -> dict[str, str]:
    """Walk the tree that the list spells: each element is followed by its children."""
    columns: dict[str, str] = {}
    open_groups: list[list[Any]] = []  # a name and the children that are still to come
    for place, element in enumerate(schema):
        if not isinstance(element, dict) or not isinstance(element.get(4), bytes):
            raise ValueError("its schema has an element without a name")  # noqa: TRY004 - its
        name, children = element[4].decode(errors="replace"), element.get(5, 0)
        path = ".".join([*(group[0] for group in open_groups[1:]), name])
        if open_groups:
            open_groups[-1][1] -= 1
        if type(children) is int and children > 0:
            open_groups.append([name, children])
        elif place:
            kind = element.get(1)
            is_known = isinstance(kind, int) and 0 <= kind < len(_TYPES)
            columns[path] = _TYPES[int(kind or 0)] if is_known else "group"
        while open_groups and open_groups[-1][1] <= 0:
            open_groups.pop()
    return columns


class _Compact:
    """Takes values off Thrift's compact protocol; every length is bounded by what is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the fields of a struct by their numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step = head >> 4
            number = number + step if step else self._zigzag()
            fields[number] = self._value(head & 0xF, depth, in_field=True)
        return fields

    def _value(self, kind: int, depth: int, *, in_field: bool) -> Any:  # noqa: ANN401 - any of them
        if depth > _DEEPEST:
            raise ValueError("its footer is nested too deep")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE if in_field else self._byte() == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _MAP:
            return self._map(depth)
        raise ValueError(f"its footer has a value of the unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._varint()
        self._check(count)
        return [self._value(head & 0xF, depth + 1, in_field=False) for _ in range(count)]

    def _map(self, depth: int) -> None:
        count = self._varint()
        if not count:
            return
        self._check(count)
        kinds = self._byte()
        for _ in range(count):
            self._value(kinds >> 4, depth + 1, in_field=False)
            self._value(kinds & 0xF, depth + 1, in_field=False)

    def _check(self, count: int) -> None:
        if count > min(len(self._data) - self._at, MAX_COLUMNS * 10):
            raise ValueError("its footer claims more than it holds")

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("its footer claims more than it holds")
        self._at += size
        return self._data[self._at - size : self._at]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("its footer has a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
