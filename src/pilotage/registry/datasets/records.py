"""Reading every record of a dataset: what fields there are, what repeats, what is in two splits.

Runs in the child process of :mod:`pilotage.registry.inspect_child`. Of each record only a hash is
kept: 16 bytes, in 256 heaps by its first byte, so that one heap at a time is compared.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from pilotage.registry.datasets.parquet import read_footer
from pilotage.registry.datasets.types import Checked

MOST_LINE_BYTES = 16 << 20
MOST_FIELDS = 1000
MOST_ERRORS = 10
_DIGEST = 16
_MORE = "..."  # stands for the fields beyond the bound
_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
Record = Mapping[str, Any]


def check_records(asked: Mapping[str, Any]) -> Checked:
    """Read the files of a dataset: ``format`` and ``files`` (split, path, file).

    Raises ValueError that names the lines that are wrong.
    """
    if asked["format"] == "parquet":
        return _check_parquet(asked["files"])
    read = _read_csv if asked["format"] == "csv" else _read_jsonl
    heaps = _Heaps()
    schema: dict[str, dict[str, int]] = {}
    records: dict[str, int] = {}
    errors = _Errors()
    for split, path, file in asked["files"]:
        count = 0
        for record in read(Path(file), errors.at(path)):
            count += 1
            heaps.add(split, _hash(record))
            _count_types(schema, record)
        records[f"{split}/{path}"] = count
        if not count and not errors.first:
            errors.at(path)(1, "it has no records")
    errors.judge()
    duplicates, leaks = heaps.compare()
    return Checked(records=records, schema=schema, duplicates=duplicates, leaks=leaks)


class _Errors:
    """The lines that are wrong: the first few by name, the others counted."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self._count = 0

    def at(self, path: str) -> Callable[[int, str], None]:
        """Return what notes an error in a line of a file."""

        def note(line: int, what: str) -> None:
            self._count += 1
            if len(self.first) < MOST_ERRORS:
                self.first.append(f"{path} line {line}: {what}")

        return note

    def judge(self) -> None:
        """Raise ValueError if there were any."""
        if self._count:
            others = self._count - len(self.first)
            more = f"; and {others} lines more" if others else ""
            raise ValueError("; ".join(self.first) + more)


def _read_jsonl(file: Path, wrong: Callable[[int, str], None]) -> Iterator[Record]:
    decoder = msgspec.json.Decoder()
    with file.open("rb") as opened:
        for number, line in enumerate(_lines(opened), 1):
            if line is None:
                wrong(number, f"it is longer than {MOST_LINE_BYTES >> 20} MiB")
                return
            if not line.strip():
                wrong(number, "it is empty")
                continue
            try:
                record = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failed:
                wrong(number, f"it is not JSON ({failed})")
                continue
            if isinstance(record, dict):
                yield record
            else:
                wrong(number, "it is not an object")


def _lines(file: Any) -> Iterator[bytes | None]:  # noqa: ANN401 - an open file
    """Yield lines; None for one that is too long, and then no more."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            yield None
            return
        yield line


def _read_csv(file: Path, wrong: Callable[[int, str], None]) -> Iterator[Record]:
    csv.field_size_limit(MOST_LINE_BYTES)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        try:
            header = next(reader, [])
            if not header or len(set(header)) != len(header) or not all(header):
                wrong(1, "the first line has not the name of each column, once")
                return
            for row in reader:
                if len(row) == len(header):
                    yield dict(zip(header, row, strict=True))
                else:
                    wrong(reader.line_num, f"it has {len(row)} cells, not {len(header)}")
        except csv.Error as failed:
            wrong(reader.line_num, str(failed))
        except UnicodeDecodeError:
            wrong(reader.line_num + 1, "it is not UTF-8")


def _hash(record: Record) -> bytes:
    canonical = msgspec.json.encode(record, order="sorted")
    return hashlib.blake2b(canonical, digest_size=_DIGEST).digest()


def _count_types(schema: dict[str, dict[str, int]], record: Record) -> None:
    for name, value in record.items():
        if name not in schema and len(schema) >= MOST_FIELDS:
            name = _MORE  # noqa: PLW2901 - counted together
        types = schema.setdefault(name, {})
        kind = _TYPES[type(value)]
        types[kind] = types.get(kind, 0) + 1


class _Heaps:
    """The hashes of records, by split and first byte."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[bytearray]] = {}

    def add(self, split: str, digest: bytes) -> None:
        """Put a record on its heap."""
        heaps = self._heaps.get(split)
        if heaps is None:
            heaps = self._heaps[split] = [bytearray() for _ in range(256)]
        heaps[digest[0]] += digest

    def compare(self) -> tuple[int, dict[str, int]]:
        """Return how many records repeat one of their split, and how many are in two splits."""
        duplicates = 0
        leaks: dict[str, int] = {}
        for number in range(256):
            sets: dict[str, set[bytes]] = {}
            for split, heaps in self._heaps.items():
                heap = bytes(heaps[number])
                sets[split] = {heap[at : at + _DIGEST] for at in range(0, len(heap), _DIGEST)}
                duplicates += len(heap) // _DIGEST - len(sets[split])
            for one, two in combinations(sorted(sets), 2):
                both = len(sets[one] & sets[two])
                if both:
                    leaks[f"{one} and {two}"] = leaks.get(f"{one} and {two}", 0) + both
        return duplicates, leaks


def _check_parquet(files: Sequence[Sequence[str]]) -> Checked:
    records: dict[str, int] = {}
    schema: dict[str, dict[str, int]] = {}
    for split, path, file in files:
        try:
            footer = read_footer(Path(file))
        except ValueError as wrong:
            _refuse(path, wrong)
        records[f"{split}/{path}"] = footer.rows
        for name, kind in footer.columns.items():
            types = schema.setdefault(name, {})
            types[kind] = types.get(kind, 0) + footer.rows
    return Checked(records=records, schema=schema, duplicates=None, leaks=None)


def _refuse(path: str, wrong: ValueError) -> NoReturn:
    raise ValueError(f"{path}: {wrong}") from None
