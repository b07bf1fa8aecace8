"""Blobs in a folder, named by the SHA-256 of their bytes."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.files import sync_folder

_INCOMING = ".incoming."


class BlobRef(NamedTuple):
    """A stored blob: its hex SHA-256 and its size in bytes."""

    sha256: str
    size: int


class FileBlobs:
    """A content-addressed store: a blob is whole or absent and never changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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

    def _place(self, sha256: str) -> Path:
        if len(sha256) != hashlib.sha256().digest_size * 2 or not sha256.isalnum():
            raise PilotageError("invalid_request", f"{sha256!r} is not a SHA-256 in hex.")
        return self._folder / sha256[:2] / sha256


async def read_file(path: Path, part_size: int = 1 << 20) -> AsyncIterator[bytes]:
    """Stream a file in parts."""
    with path.open("rb") as file:
        while part := file.read(part_size):
            yield part
