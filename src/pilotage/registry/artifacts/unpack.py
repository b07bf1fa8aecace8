"""Reading zip archives that nobody has vouched for: the directory first, then no more than it says.

Only plain archives are read: nothing before, between or behind their entries, none encrypted, none
packed in a way whose ratio has no bound. An archive within an archive is a file like any other.
"""

import asyncio
import zipfile
import zlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.registry.artifacts.rules import check_members, check_path
from pilotage.registry.artifacts.types import Member, UnpackLimits
from pilotage.registry.pickles import check_directory

_PART_BYTES = 1 << 20
_LOCAL_BYTES = 30  # of the header before each entry, without its name and extra fields
_BROKEN = (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class Unpacked(NamedTuple):
    """A file of an archive: where it shall be, and how long it is."""

    path: str
    size: int


class Archive:
    """An archive whose directory is within limits; make one by :func:`open_archive`."""

    def __init__(self, file: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self._file = file
        self._members = members

    def list_files(self) -> Sequence[Unpacked]:
        """Return its files."""
        return [Unpacked(path, info.file_size) for path, info in self._members.items()]

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """Unpack a file, in parts; raise ``invalid_artifact`` where it is not what was declared."""
        try:
            with self._file.open(self._members[path]) as member:
                while part := await asyncio.to_thread(member.read, _PART_BYTES):
                    yield part
        except _BROKEN as wrong:
            raise _damaged(wrong) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def open_archive(path: Path, limits: UnpackLimits) -> Archive:
    """Open a zip archive; raise ``invalid_artifact`` for what it may not be or have."""
    return await asyncio.to_thread(_open, path, limits)


def _open(path: Path, limits: UnpackLimits) -> Archive:
    try:
        with path.open("rb") as raw:
            check_directory(raw, limits.files, limits.directory_bytes)
            file = zipfile.ZipFile(path)
            infos = file.infolist()
            members = [_member(raw, info) for info in infos]
    except _BROKEN as wrong:
        raise _damaged(wrong) from None
    try:
        files = check_members(members, path.stat().st_size, limits)
        named = {member.name: info for member, info in zip(members, infos, strict=True)}
        if len(named) != len(members):
            raise _damaged("a path occurs twice")
        return Archive(file, {check_path(member.name): named[member.name] for member in files})
    except PilotageError:
        file.close()
        raise


def _member(file: BinaryIO, info: zipfile.ZipInfo) -> Member:
    """Return an entry as its directory has it, and where it lies as its own header has it."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_BYTES)
    if len(header) < _LOCAL_BYTES:
        raise ValueError("an entry lies behind its end")
    before = _LOCAL_BYTES + int.from_bytes(header[26:28], "little")
    before += int.from_bytes(header[28:30], "little")
    return Member(
        name=info.orig_filename,  # as it stands there: zipfile cuts names at a NUL
        size=info.file_size,
        packed=info.compress_size,
        begin=info.header_offset,
        end=info.header_offset + before + info.compress_size,
        method=info.compress_type,
        mode=info.external_attr >> 16,
        is_encrypted=bool(info.flag_bits & 0x41),
    )


def _damaged(why: object) -> PilotageError:
    return PilotageError(
        "invalid_artifact",
        f"The archive cannot be read: {why}.",
        hint="Make it anew, or push the folder itself.",
    )
