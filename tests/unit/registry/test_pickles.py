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
    "tar that is cut": tarred(CALL * 100)[:1000],
    "objects": numpied(np.array([{}, {}], dtype=object)),
    "objects in fields": numpied(np.zeros(2, dtype=[("a", "f4"), ("b", "O")])),
    "numpy without a header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
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
    "a list": pickle.dumps([1, 2], 0),  # loads, and calls nothing
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_pickle_is_found(tmp_path: Path, what: str) -> None:
    path = tmp_path / "README.md"  # its name does not matter
    path.write_bytes(PICKLES[what])
    why = find_pickle(path)
    assert why is not None
    assert why.isprintable()


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
        ("a.json", False),
        ("pkl", False),
    ],
)
def test_names_that_pickles_have(name: str, is_so: bool) -> None:
    assert is_named_so(name) is is_so


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_judged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "judged"
    for made in (content, PLAIN_CALL[:20] + content, zipped(a=content)[:-3] + content[:3]):
        path.write_bytes(made)
        why = find_pickle(path)
        assert why is None or why


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 5), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_whatever_is_called_with_it_a_call_is_found(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "called"
    path.write_bytes(pickle.dumps([value, Caller()], protocol))
    assert find_pickle(path) is not None
