"""Reading the records of datasets: counts, fields, repetitions, leaks, and lines that are wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.registry.datasets import records
from pilotage.registry.datasets.parquet import parse_footer, read_footer
from pilotage.registry.datasets.records import check_records
from pilotage.registry.datasets.types import Checked

RECORDS = st.lists(st.fixed_dictionaries({"q": st.integers(0, 5), "a": st.booleans()}), min_size=1)


def check(folder: Path, format_name: str, **splits: str | bytes) -> Checked:
    files = []
    for split, content in splits.items():
        path = folder / f"{split}.{format_name}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        files.append((split, path.name, str(path)))
    return check_records({"format": format_name, "files": files})


def lines(*items: object) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


# JSON Lines


def test_records_are_counted_and_described(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        "jsonl",
        train=lines({"q": "a", "n": 1}, {"q": None, "n": 1.5}, {"q": [1], "more": {}}),
        test=lines({"q": True}),
    )

    assert found.records == {"train/train.jsonl": 3, "test/test.jsonl": 1}
    assert found.schema == {
        "q": {"string": 1, "null": 1, "array": 1, "boolean": 1},
        "n": {"integer": 1, "number": 1},
        "more": {"object": 1},
    }
    assert (found.duplicates, found.leaks) == (0, {})


def test_a_record_is_the_same_in_any_spelling(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        "jsonl",
        train='{"a": 1, "b": "\\u00e9"}\n{"b":"é","a":1}\n',
        test='{ "b" : "é", "a":1 }\n{"a": 2}',
        validation='{"a": 2}\n',
    )

    assert found.duplicates == 1
    assert found.leaks == {"test and train": 1, "test and validation": 1}


@settings(max_examples=30)
@given(RECORDS, RECORDS)
def test_repetitions_and_leaks_are_those_of_sets(
    tmp_path_factory: pytest.TempPathFactory, train: list[object], test: list[object]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    found = check(folder, "jsonl", train=lines(*train), test=lines(*test))

    one, two = ({json.dumps(item, sort_keys=True) for item in items} for items in (train, test))
    assert found.duplicates == len(train) - len(one) + len(test) - len(two)
    assert found.leaks == ({"test and train": len(one & two)} if one & two else {})


def test_wrong_lines_are_named(tmp_path: Path) -> None:
    content = b'{"a": 1}\nnope\n[1]\n\n{"a": "\xff"}\n{"a": NaN}\n{"b": 2}\n'
    with pytest.raises(ValueError, match=r"train\.jsonl line 2: it is not JSON") as refused:
        check(tmp_path, "jsonl", train=content)
    told = str(refused.value)
    for place in ("line 3: it is not an object", "line 4: it is empty", "line 5", "line 6"):
        assert place in told
    assert "line 7" not in told


def test_many_wrong_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="and 15 lines more"):
        check(tmp_path, "jsonl", train="x\n" * 25)


def test_a_file_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test\.jsonl line 1: it has no records"):
        check(tmp_path, "jsonl", train=lines({"a": 1}), test="")


def test_a_line_that_is_too_long_ends_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_LINE_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=r"line 2: it is longer than 1 MiB$"):
        check(tmp_path, "jsonl", train=lines({"a": 1}, {"a": "x" * (2 << 20)}))


def test_fields_beyond_the_bound_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_FIELDS", 2)
    found = check(tmp_path, "jsonl", train=lines({f"f{number}": 1 for number in range(5)}))
    assert found.schema == {"f0": {"integer": 1}, "f1": {"integer": 1}, "...": {"integer": 3}}


def test_what_is_nested_too_deep_is_a_wrong_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1: it is not JSON"):
        check(tmp_path, "jsonl", train='{"a":' + "[" * 100_000 + "\n")


# CSV


def test_csv_is_read_by_its_first_line(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        "csv",
        train='\ufeffq,a\n"two\nlines",1\nx,2\nx,2\n',
        test="a,q\n2,x\n",
    )

    assert found.records == {"train/train.csv": 3, "test/test.csv": 1}
    assert found.schema == {"q": {"string": 4}, "a": {"string": 4}}
    assert (found.duplicates, found.leaks) == (1, {"test and train": 1})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "line 1: the first line"),
        ("a,a\n1,2\n", "line 1: the first line"),
        ("a,\n1,2\n", "line 1: the first line"),
        ('a,b\n1,2\n"x\ny",2\n1\n', "line 5: it has 1 cells, not 2"),
        ('a\n"x" y\n', "line 2"),
        (b"a\n\xff\n", "it is not UTF-8"),
    ],
)
def test_wrong_csv_is_named(tmp_path: Path, content: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check(tmp_path, "csv", train=content)


# Parquet


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def zigzag(number: int) -> bytes:
    return varint(number << 1)


def element(name: str, kind: int | None = None, children: int = 0) -> bytes:
    """Spell a SchemaElement: fields 1 (type), 4 (name), 5 (children), each a step from the last."""
    out, last = b"", 0
    if kind is not None:
        out, last = b"\x15" + zigzag(kind), 1
    out += bytes([(4 - last) << 4 | 8]) + varint(len(name)) + name.encode()
    return out + (b"\x15" + zigzag(children) if children else b"") + b"\x00"


def footer(rows: int, *elements: bytes) -> bytes:
    """Spell FileMetaData: 1 version, 2 schema, 3 num_rows, and a 4 that is passed over."""
    schema = bytes([len(elements) << 4 | 12]) + b"".join(elements)
    return b"\x15\x02" + b"\x19" + schema + b"\x16" + zigzag(rows) + b"\x19\x0c" + b"\x00"


def parquet(content: bytes) -> bytes:
    return b"PAR1" + bytes(8) + content + len(content).to_bytes(4, "little") + b"PAR1"


NESTED = footer(
    7,
    element("root", children=3),
    element("q", 6),
    element("more", children=2),
    element("x", 1),
    element("y", 5),
    element("z", 0),
)


def test_a_parquet_file_says_its_rows_and_columns(tmp_path: Path) -> None:
    found = check(tmp_path, "parquet", train=parquet(NESTED), test=parquet(NESTED))

    assert found.records == {"train/train.parquet": 7, "test/test.parquet": 7}
    assert found.schema == {
        "q": {"byte_array": 14},
        "more.x": {"int32": 14},
        "more.y": {"double": 14},
        "z": {"boolean": 14},
    }
    assert (found.duplicates, found.leaks) == (None, None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"PARE" + bytes(20), "does not begin"),
        (parquet(NESTED)[:-1], "does not end"),
        (b"PAR1" + (1 << 30).to_bytes(4, "little") + b"PAR1", "does not end"),
        (parquet(b"\x00"), "neither rows nor columns"),
        (parquet(footer(1, b"\x00")), "without a name"),
        (parquet(NESTED[:20]), "its footer"),
        (parquet(b"\x19\xfc\xff\xff\xff\xff\x0f"), "claims more"),
        (parquet(b"\x18\xff\xff\x7f"), "claims more"),
        (parquet(b"\x1c" * 100), "nested too deep"),
        (parquet(b"\x19\x19" * 100), "nested too deep"),
        (parquet(b"\x16" + b"\xff" * 12), "64 bits"),
        (parquet(b"\x1f"), "unknown type"),
    ],
)
def test_wrong_parquet_is_told(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_footer(path)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.parquet: it does not begin"):
        check(tmp_path, "parquet", train=b"")


@given(st.binary(max_size=200), st.integers(0, len(NESTED) - 1), st.integers(0, 255))
def test_any_footer_is_read_or_refused(noise: bytes, place: int, byte: int) -> None:
    for content in (noise, NESTED[:place] + bytes([byte]) + NESTED[place + 1 :], NESTED + noise):
        try:
            found = parse_footer(content)
        except ValueError:
            continue
        assert found.rows >= 0
