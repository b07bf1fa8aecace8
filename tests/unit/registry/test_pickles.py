"""Finding pickles by their content, whatever they are called and however they are wrapped."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import pickletools
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.registry.pickle_steps import MOST_STEPS
from pilotage.registry.pickles import find_pickle, is_named_so


class Caller:
    """What runs something when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


CALL = pickle.dumps(Caller(), 4)
PLAIN_CALL = pickle.dumps(Caller(), 0)
PADDED = b"S'" + b"a" * 100_000 + b"'\n0cos\nsystem\n(S'x'\ntR."


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(content: bytes, name: str = "x") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def old_tarred(content: bytes) -> bytes:
    """Return a tar as it was before there was a magic number in it."""
    made = bytearray(tarred(content))
    made[257:265], made[148:156] = bytes(8), b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)


def damaged(content: bytes) -> bytes:
    """Return a compressed stream that is whole to the end of its content, and garbage behind it."""
    stream = zlib.compressobj(wbits=31)
    begin = stream.compress(content) + stream.flush(zlib.Z_FULL_FLUSH)
    return begin + b"\xff" * 20_000


def numpied(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


PICKLES = {
    **{f"protocol {n}": pickle.dumps(Caller(), n) for n in range(6)},
    "without a call": pickle.dumps({"a": 1}),
    "padded": PADDED,
    "a long line before the call": PADDED.replace(b"a" * 100_000, b"a" * (2 << 20)),
    "an end that is none": PLAIN_CALL[:-1] + b"\xff\xff",
    "an instance": b"(S'x'\nios\nsystem\n.",
    "optimised": pickletools.optimize(PLAIN_CALL),
    "gzip": gzip.compress(CALL),
    "zlib": zlib.compress(CALL),
    "bz2": bz2.compress(CALL),
    "xz": lzma.compress(CALL),
    "lzma": lzma.compress(CALL, lzma.FORMAT_ALONE),
    "zlib of a padded one": zlib.compress(PADDED),
    "lz4": b"\x04\x22\x4d\x18" + bytes(20),
    "gzip twice": gzip.compress(gzip.compress(CALL)),
    "torch": zipped(**{"model/data.pkl": b"", "model/version": b"3"}),
    "zip without the name": zipped(weights=PLAIN_CALL),
    "zip in a zip": zipped(a=zipped(b=b"b")),
    "zip that is cut": zipped(a=b"a")[:-5],
    "zip of nothing": b"PK\x05\x06" + bytes(10),
    "npz of objects": zipped(**{"a.npy": numpied(np.array([object()]))}),
    "tar": tarred(CALL),
    "tar without a magic number": old_tarred(CALL),
    "the same compressed": gzip.compress(old_tarred(CALL)),
    "gzip that is damaged behind it": damaged(CALL),
    "tar that is cut": tarred(CALL * 100)[:1000],
    "objects": numpied(np.array([{}, {}], dtype=object)),
    "objects in fields": numpied(np.zeros(2, dtype=[("a", "f4"), ("b", "O")])),
    "numpy without a header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
}
LENGTH = b"BZh\x00\x00" + bytes(int.from_bytes(b"Zh", "little"))  # of bytes, not of bzip2
RUN = b"cbuiltins\nlen\n(S'abc'\ntR."
FIRST = {  # what a loader reads before it runs something
    "nothing": b"",
    "a number of base 16": b"I0x10\n0",
    "a long one": b"L0x10L\n0",
    "a number of base 8": b"I010\n0",
    "a number without digits": b"I\x00\n0",
    "a number and more behind a NUL": b"I1\x00a\n0",
    "a place and more behind a NUL": b"Np1\x00a\n0",
    "a float and more behind a NUL": b"F1\x00a\n0",
    "a text of another encoding": b"S'\xff'\n0",
    "a mark that is taken away": b"(0",
    "many steps": b"N0" * (MOST_STEPS // 2 + 1),
    "another pickle": b"I1\n.",
    "something of a length that compressed streams begin with": LENGTH + b"0",
}
OTHERS = {
    "nothing": b"",
    "json": b'{"a": [1, 2]}',
    "text": b"# A model card\n" * 10_000,
    "note": b"Note. The end.",
    "vocabulary": b"cat\ndog\nRed\n" * 1000,
    "x": b"Xylophone, in one long line " * 100,
    "power": b"x^2 + y^2",
    "floats": numpied(np.zeros((3, 3))),
    "npz": zipped(**{"a.npy": numpied(np.zeros(3))}),
    "zip of texts": zipped(a=b"hello " * 1000),
    "gzip of a text": gzip.compress(b"hello world\n" * 1000),
    "tar of a text": tarred(b"hello"),
    "picture": b"GIF89a" + bytes(100),
    "tokens in base 64": b"IQ== 0\nIg== 1\nIw== 2\n" * 1000,
    "sentencepiece": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02" * 100,
    "fasttext": b"\xba\x16\x4f\x2f\x0c\x00\x00\x00" * 100,
    "msgpack": b"\x82\xa6params\x81\xa1w\xc7\x10\x01",
    "an abbreviation": b"N.B. cat\nand dog\n(Red)\n" * 100,
    "two lists": pickle.dumps([1, 2], 0) + pickle.dumps([3], 0),
    "a list": pickle.dumps([1, 2], 0),  # loads, and calls nothing
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_pickle_is_found(tmp_path: Path, what: str) -> None:
    path = tmp_path / "README.md"  # its name does not matter
    path.write_bytes(PICKLES[what])
    why = find_pickle(path)
    assert why is not None
    assert why.isprintable()


@pytest.mark.parametrize("what", FIRST)
def test_what_a_loader_runs_is_found(tmp_path: Path, what: str) -> None:
    path = tmp_path / "scaler.dat"
    path.write_bytes(FIRST[what] + RUN)
    assert 3 in load(FIRST[what] + RUN)
    assert find_pickle(path) == "protocol 0 or 1"


def load(content: bytes) -> list[object]:
    """Return what a loader makes of pickles that lie one behind the other."""
    file, made = io.BytesIO(content), list[object]()
    while file.tell() < len(content):
        made.append(pickle.load(file, encoding="latin-1"))
    return made


def test_what_follows_a_pickle_is_judged_as_another(tmp_path: Path) -> None:
    path = tmp_path / "both"
    path.write_bytes(b"I1\n." + pickle.dumps([1], 2))
    assert find_pickle(path) is not None


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_none_is_none(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(OTHERS[what])
    assert find_pickle(path) is None


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("a.pkl", True),
        ("d/A.PT", True),
        ("pytorch_model.bin", True),
        ("scaler.sav", True),
        ("a.joblib.GZ", True),
        ("tokenizer.model", False),
        ("vectors.dat", False),
        ("model.tar.gz", False),
        ("a.json", False),
        ("pkl", False),
    ],
)
def test_names_that_pickles_have(name: str, is_so: bool) -> None:
    assert is_named_so(name) is is_so


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_judged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "judged"
    for made in (content, PLAIN_CALL[:20] + content, zipped(a=content)[:-3] + content[:3]):
        path.write_bytes(made)
        why = find_pickle(path)
        assert why is None or why


@settings(max_examples=50)
@given(st.integers(0, 5), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_whatever_is_called_with_it_a_call_is_found(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "called"
    path.write_bytes(pickle.dumps([value, Caller()], protocol))
    assert find_pickle(path) is not None
