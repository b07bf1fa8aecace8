"""Finding pickles by what is in a file: those run code when they are loaded, so nothing here does.

Looked into are pickles of every protocol, archives (zip as torch writes them, tar) and compressed
streams (as joblib writes them) that hold one, and arrays of Python objects (numpy). What cannot be
looked into, an archive within an archive, counts as one: nobody can say that it is none.
"""

import ast
import bz2
import contextlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from pilotage.registry.pickle_steps import UnreadableError, calls_something

HEAD_BYTES = 1 << 16
MOST_MEMBERS = 20_000
MOST_DIRECTORY_BYTES = 16 << 20
SUFFIXES = {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".sav"}
_PACKED_SUFFIXES = {".bz2", ".gz", ".lz4", ".lzma", ".xz", ".z", ".zst"}
_PACKED: Mapping[bytes, Callable[[], "_Unpacker"]] = {  # what begins a compressed stream
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"\x78\x01": zlib.decompressobj,
    b"\x78\x5e": zlib.decompressobj,
    b"\x78\x9c": zlib.decompressobj,
    b"\x78\xda": zlib.decompressobj,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
    b"\x5d\x00\x00": lzma.LZMADecompressor,
}
_CLOSED = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!", b"ZF")
_ZIP, _NUMPY = b"PK\x03\x04", b"\x93NUMPY"
_MOST_READ = 64 << 20  # bytes of something that might be a pickle
_LONGEST_LINE = 1 << 20
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def find_pickle(path: Path) -> str | None:
    """Return why a file is, or may be, a pickle; None if it is none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if head.startswith(_ZIP) or head[:4] == b"PK\x05\x06":
            return _look_into_zip(file)
        if _is_tar(head):
            return _look_into_tar(file)
        file.seek(0)
        return _judge(head, _Source(file, os.fstat(file.fileno()).st_size))


def is_named_so(path: str) -> bool:
    """Say whether a file has a name that pickles have, compressed ones too."""
    name = PurePosixPath(path.lower())
    return (name.with_suffix("") if name.suffix in _PACKED_SUFFIXES else name).suffix in SUFFIXES


class _Unpacker(Protocol):
    """What unpacks a compressed stream piece by piece."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Source:
    """A file that is read as a pickle, to a bound; ``is_cut`` says that more of it was left out."""

    def __init__(self, file: IO[bytes], size: int, *, is_cut: bool = False) -> None:
        self._file = file
        self._left = size
        self._bound = _MOST_READ
        self._is_cut = is_cut

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        if size > self._left and self._is_cut:
            raise UnreadableError
        return self._took(self._file.read(self._bounded(min(size, self._left))))

    def readline(self) -> bytes:
        """Return the next line."""
        line = self._file.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE or (self._is_cut and not line.endswith(b"\n")):
            raise UnreadableError
        self._bounded(len(line))
        return self._took(line)

    def _bounded(self, size: int) -> int:
        self._bound -= size
        if self._bound < 0:
            raise UnreadableError
        return size

    def _took(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _judge(head: bytes, source: _Source, *, is_inside: bool = False) -> str | None:
    """Return why something that begins so is, or may be, a pickle."""
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return f"protocol {head[1]}"
    if head.startswith(_NUMPY):
        return "an array of Python objects" if _has_objects(head) else None
    if head.startswith(_CLOSED):
        return "it is packed in a way that is not looked into"
    for magic, make_unpacker in _PACKED.items():
        why = _judge_packed(head, make_unpacker(), is_inside) if head.startswith(magic) else None
        if why:
            return why
    if is_inside and (head.startswith(_ZIP) or _is_tar(head)):
        return "an archive within an archive, which is not looked into"
    return "protocol 0 or 1" if calls_something(source) else None


def _judge_packed(head: bytes, unpacker: _Unpacker, is_inside: bool) -> str | None:  # noqa: FBT001
    inner = _unpack(head, unpacker)
    if not inner:
        return None  # it only looked like one
    if is_inside:
        return "it is packed twice, which is not looked into"
    source = _Source(io.BytesIO(inner), len(inner), is_cut=True)
    why = _judge(inner, source, is_inside=True)
    return f"{why}, compressed" if why else None


def _unpack(head: bytes, unpacker: _Unpacker) -> bytes:
    """Return the beginning of what is packed, all of it that lies before a damage."""
    inner = bytearray()
    with contextlib.suppress(zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        for at in range(len(head)):
            inner += unpacker.decompress(head[at : at + 1], HEAD_BYTES)
            if unpacker.eof or len(inner) >= HEAD_BYTES:
                break
    return bytes(inner)


def _look_into_zip(file: IO[bytes]) -> str | None:
    try:
        check_directory(file, MOST_MEMBERS, MOST_DIRECTORY_BYTES)
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as opened:
                    why = _judge_member(member.filename, opened, member.file_size)
                if why:
                    return why
    except _UNREADABLE as wrong:
        return f"it is an archive that cannot be read ({wrong})"
    return None


def _is_tar(head: bytes) -> bool:
    """Say whether a file begins as what tarfile opens: what counts is its sum."""
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _look_into_tar(file: IO[bytes]) -> str | None:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MOST_MEMBERS:
                    return "it is an archive of too many files to look into"
                opened = archive.extractfile(member) if member.isreg() else None
                why = _judge_member(member.name, opened, member.size) if opened else None
                if why:
                    return why
    except _UNREADABLE as wrong:
        return f"it is an archive that cannot be read ({wrong})"
    return None


def _judge_member(name: str, file: IO[bytes], size: int) -> str | None:
    shown = ascii(name[:200])
    if PurePosixPath(name.lower()).suffix in {".pkl", ".pickle"}:
        return f"{shown} in it is one by its name"
    reader = io.BufferedReader(cast("io.RawIOBase", file), HEAD_BYTES)
    head = reader.peek(HEAD_BYTES)
    why = _judge(head, _Source(reader, size), is_inside=True)
    return f"{shown} in it: {why}" if why else None


def check_directory(file: IO[bytes], most_members: int, most_bytes: int) -> None:
    """Raise ValueError unless the directory of a zip file is one that can be read into memory.

    The end of the file says how many entries there are and how long their directory is; it must
    lie between the entries and that end without a gap. Zip64 says the same in a record before it.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 22 - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ValueError("it has no directory")
    end = tail[at:]
    members, length, begin = (_number(end, *place) for place in ((10, 2), (12, 4), (16, 4)))
    place = size - len(end)
    if 0xFFFF_FFFF in (length, begin) or members == 0xFFFF:
        locator = place - 20
        file.seek(max(0, locator))
        record_place = _number(file.read(20), 8, 8)
        file.seek(min(record_place, size))
        record = file.read(56)
        if not record.startswith(b"PK\x06\x06"):
            raise ValueError("it has no directory of its size")
        members, length, begin = (_number(record, *at) for at in ((32, 8), (40, 8), (48, 8)))
        place = record_place
    if members > most_members or length > most_bytes:
        raise ValueError(f"it has {members} entries, at most {most_members} are read")
    if begin + length != place:
        raise ValueError("something lies around its entries")
    file.seek(0)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _has_objects(head: bytes) -> bool:
    """Say whether the header of a numpy array names Python objects, or cannot be read."""
    wide = len(head) > 6 and head[6] >= 2
    begin = 12 if wide else 10
    length = _number(head, 8, 4 if wide else 2)
    try:
        header = ast.literal_eval(head[begin : begin + length].decode("latin-1").strip())
        return "O" in str(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return True
