"""The reader of safetensors headers, beside the library that writes them and against mutations."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from pilotage.registry.safetensors import (
    DTYPES,
    MAX_HEADER_BYTES,
    parse_header,
    read_safetensors,
)

Header = dict[str, Any]


def tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "U8") -> Header:
    return {"dtype": dtype, "shape": shape or [end - begin], "data_offsets": [begin, end]}


def build(header: Header | bytes, data: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def read_by_library(content: bytes) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = deserialize(content)  # type: ignore[no-untyped-call]
    return found


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# what the library writes


def test_what_the_library_writes_is_read(file: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.zeros((2, 3), np.float32),
        "b": np.zeros((5,), np.float16),
        "scalar": np.zeros((), np.int64),
        "none": np.zeros((0, 4), np.uint8),
        "flags": np.zeros(3, np.bool_),
    }
    write(file, save(arrays, metadata={"format": "pt", "licence": "mit\x1b[31m"}))

    info = read_safetensors(file)

    assert {t.name: (t.dtype, t.elements, t.end - t.begin) for t in info.tensors} == {
        "a": ("F32", 6, 24),
        "b": ("F16", 5, 10),
        "scalar": ("I64", 1, 8),
        "none": ("U8", 0, 0),
        "flags": ("BOOL", 3, 3),
    }
    assert info.dtypes == {"F32": 6, "F16": 5, "I64": 1, "U8": 0, "BOOL": 3}
    assert info.parameters == 15
    assert info.metadata == {"format": "pt", "licence": "mit [31m"}
    assert info.file_bytes == file.stat().st_size


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_type_has_the_size_that_the_library_gives_it(dtype: str) -> None:
    content = build({"t": tensor(0, 6 * DTYPES[dtype], [48], dtype)}, 6 * DTYPES[dtype])

    try:
        read_by_library(content)
    except SafetensorError as failed:
        assert "unknown variant" in str(failed), dtype  # noqa: PT017 - a type newer than it
    assert parse_header(content[8 : -6 * DTYPES[dtype]], len(content)).dtypes == {dtype: 48}


# what is wrong


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends inside the length"),
        (b"\x01\x00", "ends inside the length"),
        (struct.pack("<Q", 1 << 63) + b"{}", f"at most {MAX_HEADER_BYTES}"),
        (struct.pack("<Q", 100) + b"{}", "ends inside its header"),
        (build(b" {}"), "begin with"),
        (build(b"{"), "not JSON"),
        (build(b'{"\xff": 1}'), "UTF-8"),
        (build(b"{" + b'"a":{' * 100_000), "nested too deep"),
        (build(b"{}"), "no tensors"),
        (build({"__metadata__": {"a": "b"}}), "no tensors"),
        (build({"__metadata__": {"a": 1}, "t": tensor(0, 1)}, 1), "no text"),
        (build({"__metadata__": [], "t": tensor(0, 1)}, 1), "not an object"),
        (build(b'{"t": 1, "t": 1}'), "occurs twice"),
        (build(b'{"t": NaN}'), "NaN"),
        (build({"t": 1}), "has not just"),
        (build({"t": tensor(0, 1) | {"more": 1}}, 1), "has not just"),
        (build({"t" * 1025: tensor(0, 1)}, 1), "letters"),
        (build({"t": tensor(0, 1, dtype="U9")}, 1), "unknown type"),
        (build({"t": tensor(0, 1) | {"dtype": 8}}, 1), "unknown type"),
        (build({"t": tensor(0, 1, [-1])}, 1), "shape"),
        (build({"t": tensor(0, 1, [True])}, 1), "shape"),
        (build({"t": tensor(0, 1, [1.0])}, 1), "shape"),
        (build({"t": tensor(0, 1, [1] * 33)}, 1), "shape"),
        (build({"t": tensor(0, 1, [1 << 62, 1 << 62])}, 1), "bits"),
        (build({"t": tensor(1, 0, [1])}, 1), "offsets"),
        (build({"t": tensor(0, 1) | {"data_offsets": [0]}}, 1), "offsets"),
        (build({"t": tensor(0, 4, [2])}, 4), "bits"),
        (build({"t": tensor(0, 1, [1], "F4")}, 1), "bits"),
        (build({"a": tensor(0, 4), "b": tensor(2, 6)}, 6), "overlaps"),
        (build({"a": tensor(0, 4), "b": tensor(0, 4)}, 4), "overlaps"),
        (build({"a": tensor(0, 4), "b": tensor(5, 6)}, 6), "gap"),
        (build({"a": tensor(1, 4)}, 4), "gap"),
        (build({"a": tensor(0, 4)}, 3), "cut off"),
        (build({"a": tensor(0, 4)}, 5), "cut off"),
    ],
)
def test_what_is_wrong_is_told(file: Path, content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        read_safetensors(write(file, content))
    assert str(refused.value).isprintable()


def test_only_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        read_safetensors(tmp_path)


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr("pilotage.registry.safetensors.MAX_TENSORS", 2)
    content = build({f"t{n}": tensor(n, n + 1) for n in range(3)}, 3)
    with pytest.raises(ValueError, match="at most 2"):
        read_safetensors(write(file, content))


# mutations

SMALL = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.float16)})


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_file_is_read_as_the_library_reads_it_or_refused(data: st.DataObject) -> None:
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(
            st.integers(0, 255) | st.sampled_from(list(b'0123456789,[]{}":'))
        )
    cut = data.draw(st.integers(0, 3))
    whole = bytes(content[: len(content) - cut])
    size = int.from_bytes(whole[:8], "little")
    if size > len(whole) - 8:
        return  # read_safetensors refuses it before this

    try:
        info = parse_header(whole[8 : 8 + size], len(whole))
    except ValueError:
        return

    covered = 0
    for one in info.tensors:  # never an overlap, never beyond the end
        assert one.begin == covered
        covered = one.end
    assert covered == len(whole) - 8 - size
    assert {name for name, _ in read_by_library(whole)} == {one.name for one in info.tensors}


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_for_a_header_is_read_or_refused(value: object) -> None:
    header = json.dumps({"t": value, "__metadata__": value}).encode()
    with pytest.raises(ValueError):
        parse_header(header, len(header) + 8)
