"""Blobs in a folder, named by the SHA-256 of their bytes."""

import asyncio
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.files import sync_folder

_INCOMING = ".incoming."


class BlobRef(NamedTuple):
    """A stored blob: its hex SHA-256 and its size in bytes."""

    sha256: str
    size: int


class BlobFile(NamedTuple):
    """A blob as it lies in the folder, and when it was last stored or taken up."""

    sha256: str
    size: int
    touched_ns: int


IsNeeded = Callable[[str], Awaitable[bool]]
"""Says whether anything refers to a blob."""


class FileBlobs:
    """A content-addressed store: a blob is whole or absent and never changes.

    Whoever is about to refer to blobs holds them meanwhile: see :meth:`hold`. What is held, and
    what was taken up after somebody looked, is not removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self) -> "Iterator[BlobHold]":
        """Keep what is stored or taken up within the block from being removed."""
        hold = BlobHold(self, self._held)
        try:
            yield hold
        finally:
            hold.release()

    def is_held(self, sha256: str, count: int = 0) -> bool:
        """Say whether more than ``count`` hold a blob."""
        return self._held[sha256] > count

    async def put(self, stream: AsyncIterator[bytes], max_bytes: int) -> BlobRef:
        """Store a stream; raise ``request_too_large`` beyond ``max_bytes`` and leave nothing."""
        digest, size = hashlib.sha256(), 0
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=_INCOMING)
        try:
            with os.fdopen(handle, "wb") as file:
                async for part in stream:
                    size += len(part)
                    if size > max_bytes:
                        raise PilotageError(
                            "request_too_large", f"A file may have {max_bytes} bytes at most."
                        )
                    digest.update(part)
                    file.write(part)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            target = self._place(digest.hexdigest())
            target.parent.mkdir(exist_ok=True, mode=0o700)
            Path(temporary).replace(target)
            await asyncio.to_thread(sync_folder, target.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return BlobRef(digest.hexdigest(), size)

    def drop_incomplete(self) -> None:
        """Remove what a killed process was storing; for the one who opens the folder."""
        for path in self._folder.glob(f"{_INCOMING}*"):
            path.unlink(missing_ok=True)

    def path_of(self, sha256: str) -> Path:
        """Return the file of a blob; raise ``not_found`` if there is none."""
        path = self._place(sha256)
        if not path.exists():
            raise PilotageError("not_found", f"There is no blob {sha256}.")
        return path

    def find(self, sha256: str) -> Path | None:
        """Return the file of a blob, or None."""
        path = self._place(sha256)
        return path if path.exists() else None

    def look_at(self, sha256: str) -> BlobFile | None:
        """Return a blob as it lies there, or None."""
        try:
            found = self._place(sha256).stat()
        except FileNotFoundError:
            return None
        return BlobFile(sha256, found.st_size, found.st_mtime_ns)

    def list_all(self) -> Iterator[BlobFile]:
        """Yield every blob, in order."""
        for folder in sorted(self._folder.iterdir()):
            if folder.is_dir() and len(folder.name) == 2:
                for path in sorted(folder.iterdir()):
                    found = self.look_at(path.name)
                    if found is not None:
                        yield found

    def touch(self, sha256: str) -> BlobFile:
        """Take a blob up: it counts as stored just now. Raise ``not_found`` if there is none."""
        os.utime(self.path_of(sha256))
        return self._seen(sha256)

    async def remove(self, blob: BlobFile, is_needed: IsNeeded, holders: int = 0) -> bool:
        """Remove a blob that nothing needs; False if it is needed, held by others or taken up."""
        if self.is_held(blob.sha256, holders) or await is_needed(blob.sha256):
            return False
        # whoever took it up while we asked holds it still, or has touched it
        if self.is_held(blob.sha256, holders) or self.look_at(blob.sha256) != blob:
            return False
        self._place(blob.sha256).unlink()
        return True

    def _seen(self, sha256: str) -> BlobFile:
        found = self.look_at(sha256)
        if found is None:
            raise PilotageError("not_found", f"There is no blob {sha256}.")
        return found

    def _place(self, sha256: str) -> Path:
        if len(sha256) != hashlib.sha256().digest_size * 2 or not sha256.isalnum():
            raise PilotageError("invalid_request", f"{sha256!r} is not a SHA-256 in hex.")
        return self._folder / sha256[:2] / sha256


class BlobHold:
    """The blobs that one piece of work is about to refer to."""

    def __init__(self, blobs: FileBlobs, held: Counter[str]) -> None:
        self._blobs = blobs
        self._held = held
        self._own: dict[str, BlobFile] = {}
        self._fresh: set[str] = set()

    async def put(self, stream: AsyncIterator[bytes], max_bytes: int) -> BlobRef:
        """Store a stream and hold it."""
        blob = await self._blobs.put(stream, max_bytes)
        self._fresh.add(blob.sha256)
        self.take(blob.sha256)
        return blob

    def take(self, sha256: str) -> BlobRef:
        """Hold a blob that is there; raise ``not_found``."""
        found = self._blobs.touch(sha256)
        if sha256 not in self._own:
            self._held[sha256] += 1
        self._own[sha256] = found
        return BlobRef(sha256, found.size)

    async def drop_one(self, sha256: str, is_needed: IsNeeded) -> None:
        """Remove a blob that was only passed through here, unless something else needs it."""
        await self._blobs.remove(self._own[sha256], is_needed, holders=1)

    async def drop(self, is_needed: IsNeeded) -> None:
        """Remove what was stored here and nothing else needs: the work came to nothing."""
        for sha256 in sorted(self._fresh):
            await self._blobs.remove(self._own[sha256], is_needed, holders=1)
        self._fresh.clear()

    def release(self) -> None:
        """Hold nothing any more."""
        for sha256 in self._own:
            self._held[sha256] -= 1
            if not self._held[sha256]:
                del self._held[sha256]
        self._own.clear()


async def read_file(path: Path, part_size: int = 1 << 20) -> AsyncIterator[bytes]:
    """Stream a file in parts."""
    with path.open("rb") as file:
        while part := file.read(part_size):
            yield part
