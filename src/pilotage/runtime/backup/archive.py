"""The archive of a backup: one tar of plain files, and last a manifest with the hash of each.

Written to a name of its own until it is whole and on disk; read as a stream, trusting nothing:
only plain files below known folders, each once, each with the size and SHA-256 that the manifest
says. Nothing is ever unpacked by name alone.
"""

import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.files import sync_folder

FORMAT = 1
MANIFEST = "manifest.json"
KEYS = "keys.box"
DATABASE = "database"
FOLDERS = ("audit", "blobs", "calls", "checkpoints", "public", "snapshots", "spool")
PART_BYTES = 4 << 20
_MOST_MANIFEST = 1 << 30
_WORD = r"[A-Za-z0-9_~@+=-][A-Za-z0-9._~@+=-]{0,254}"
_NAME = re.compile(rf"(?:{'|'.join((DATABASE, *FOLDERS))})(?:/{_WORD}){{1,32}}")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an archive."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds: of which moment, schema and audit log; every file with its hash.

    ``tables`` says how many rows each table had; the log is as it was when it was copied.
    """

    format: int
    id: str
    program: str
    made_at_us: int
    schema: str
    dialect: str
    has_models: bool
    has_keys: bool
    tables: dict[str, int]
    last_revision: int
    log_name: str
    log_size: int
    log_root: str
    files: dict[str, Entry]


class Written(NamedTuple):
    """A finished archive."""

    path: Path
    size: int
    sha256: str


class ArchiveWriter:
    """Writes an archive; what is not finished within the block leaves nothing behind.

    ``on_bytes`` hears how many bytes were read for it, part by part; what it raises ends the work.
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self._path = path
        self._on_bytes = on_bytes
        self.files: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        self._temporary = Path(name)
        self._hashed = _HashedFile(os.fdopen(handle, "wb"))
        self._tar = tarfile.open(  # type: ignore[call-overload]  # it writes, and no more
            fileobj=self._hashed, mode="w", format=tarfile.PAX_FORMAT
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._hashed.file.close()
        self._temporary.unlink(missing_ok=True)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file from memory."""
        self.add_stream(name, io.BytesIO(content), len(content))

    def add_stream(self, name: str, source: IO[bytes], size: int) -> None:
        """Add the first ``size`` bytes of a stream.

        Raise ValueError if there are fewer, or if the name is one that no reader takes.
        """
        if not is_archived(name):
            raise ValueError(f"{name!r} is no name that a backup has")
        head = tarfile.TarInfo(name)
        head.size, head.mode = size, 0o600
        reader = _HashingReader(source, size, self._on_bytes)
        try:
            self._tar.addfile(head, reader)
        except OSError as failed:
            if failed.errno is None:  # tarfile's own: the stream ended early
                raise ValueError(f"{name} has become shorter") from failed
            raise
        self.files[name] = Entry(size=size, sha256=reader.digest.hexdigest())

    def finish(self, manifest: Manifest) -> Written:
        """Add the manifest, wait for the disk, and give the archive its name."""
        content = msgspec.json.format(msgspec.json.encode(manifest))
        head = tarfile.TarInfo(MANIFEST)
        head.size, head.mode = len(content), 0o600
        self._tar.addfile(head, io.BytesIO(content))
        self._tar.close()
        file = self._hashed.file
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        self._temporary.replace(self._path)
        sync_folder(self._path.parent)
        return Written(self._path, size, self._hashed.digest.hexdigest())


class ArchiveReader:
    """Reads an archive as a stream; every flaw is an ``invalid_backup`` that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("rb")
        except OSError as failed:
            raise _refuse(self._path, failed.strerror or str(failed)) from None
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r|")
        except (tarfile.TarError, OSError):
            self._file.close()
            raise _refuse(self._path, "it is no archive of pilotage") from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(tarfile.TarError):
            self._tar.close()
        self._file.close()

    def read(self) -> Iterator[tuple[str, "EntryReader"]]:
        """Yield each file but the manifest; each is to be read before the next is asked for."""
        seen: dict[str, EntryReader] = {}
        try:
            for head in self._tar:
                if head.name == MANIFEST and head.isreg():
                    self.manifest = self._read_manifest(head)
                    self._compare(seen)
                    if self._tar.next() is not None:
                        raise _refuse(self._path, "something follows its manifest")
                    return
                check_name(self._path, head)
                if head.name in seen:
                    raise _refuse(self._path, f"{head.name} is in it twice")
                content = self._tar.extractfile(head)
                seen[head.name] = EntryReader(content or io.BytesIO(), head.size)
                yield head.name, seen[head.name]
                seen[head.name].drain()
        except (tarfile.TarError, EOFError, OSError) as broken:
            raise _refuse(self._path, f"it breaks off or is damaged ({broken})") from None
        raise _refuse(self._path, "it has no manifest: it is not whole")

    def _read_manifest(self, head: tarfile.TarInfo) -> Manifest:
        content = self._tar.extractfile(head) if head.size <= _MOST_MANIFEST else None
        try:
            manifest = msgspec.json.decode(content.read() if content else b"", type=Manifest)
        except msgspec.DecodeError:
            raise _refuse(self._path, "its manifest cannot be read") from None
        if manifest.format != FORMAT:
            raise _refuse(self._path, f"its format is {manifest.format}, this program's {FORMAT}")
        return manifest

    def _compare(self, seen: dict[str, "EntryReader"]) -> None:
        missing = self.manifest.files.keys() - seen
        unknown = seen.keys() - self.manifest.files
        for name in sorted(missing | unknown):
            what = "missing" if name in missing else "not in its manifest"
            raise _refuse(self._path, f"{name} is {what}")
        for name, entry in self.manifest.files.items():
            if seen[name].size != entry.size or seen[name].digest.hexdigest() != entry.sha256:
                raise _refuse(self._path, f"{name} is not what its manifest says")


class EntryReader:
    """The content of one file of an archive, hashed as it is read."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source = source
        self.size = size
        self.digest = hashlib.sha256()

    def read(self) -> bytes:
        """Return the next part, empty at the end."""
        part = self._source.read(PART_BYTES)
        self.digest.update(part)
        return part

    def read_all(self, most: int) -> bytes:
        """Return the whole content; raise ``invalid_backup`` beyond ``most`` bytes."""
        if self.size > most:
            raise PilotageError("invalid_backup", f"A part of the archive has {self.size} bytes.")
        return b"".join(iter(self.read, b""))

    def drain(self) -> None:
        """Read what is left."""
        while self.read():
            pass


def verify_archive(path: Path) -> Manifest:
    """Return the manifest of an archive that is whole; raise ``invalid_backup`` that says why."""
    with ArchiveReader(path) as archive:
        for _ in archive.read():
            pass
        return archive.manifest


def check_name(path: Path, head: tarfile.TarInfo) -> None:
    """Raise ``invalid_backup`` for whatever could be put anywhere else than in its folder."""
    if not head.isreg():
        raise _refuse(path, f"{head.name[:120]!r} is no plain file")
    if not is_archived(head.name):
        raise _refuse(path, f"{head.name[:120]!r} is no name that a backup has")


def is_archived(name: str) -> bool:
    """Say whether a file may have this name in an archive, to be written and to be read."""
    is_safe = _NAME.fullmatch(name) is not None and not {".", ".."} & set(name.split("/"))
    return name == KEYS or is_safe


class _HashedFile:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


class _HashingReader:
    """Reads a certain number of bytes and hashes them, for tarfile to write."""

    def __init__(self, source: IO[bytes], size: int, on_bytes: Callable[[int], None]) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self.left = size
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._source.read(min(size, self.left))
        self._on_bytes(len(data))
        self.left -= len(data)
        self.digest.update(data)
        return data


def _refuse(path: Path, why: str) -> PilotageError:
    return PilotageError(
        "invalid_backup",
        f"{path} cannot be used: {why}.",
        hint="Take another backup; check one with: pilotage backup --verify FILE",
    )
