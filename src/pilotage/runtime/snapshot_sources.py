"""Where a gateway that runs apart gets its Snapshots: the control plane, a folder, a blob store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import CURRENT, SECTIONS
from pilotage.runtime.control_link import (
    ControlLink,
    explain_failure,
    explain_refusal,
    stream,
)

LONG_POLL_S = 25
FOLDER_LOOK_S = 0.25
BLOB_LOOK_S = 1.0
_PART_BYTES = 1 << 18


class SnapshotSource(Protocol):
    """Something that has Snapshots; what it gives is believed only after it was verified."""

    async def wait_manifest(self, after: int) -> bytes | None:
        """Return a signed manifest that may be newer than a number; None after some time.

        Raises ``unavailable``.
        """
        ...

    def open_section(self, sha256: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a section."""
        ...

    def forget(self) -> None:
        """Give the last manifest again: it was not taken whole."""
        ...


class ControlSource:
    """The control plane, by long poll."""

    def __init__(self, link: ControlLink) -> None:
        self._link = link

    async def wait_manifest(self, after: int) -> bytes | None:
        """Wait for up to 25 s."""
        return await self._link.wait_manifest(after, LONG_POLL_S)

    def open_section(self, sha256: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a section."""
        return self._link.open_section(sha256)

    def forget(self) -> None:
        """Do nothing: it gives what is newer than what is there."""


class FolderSource:
    """A folder as the publisher writes it: a mounted disk, or something that is synchronised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = (0, 0, 0)

    async def wait_manifest(self, after: int) -> bytes | None:
        """Look once, a moment later than the last time."""
        del after
        await asyncio.sleep(FOLDER_LOOK_S)
        try:
            found = (self._folder / CURRENT).stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._stamp:
                return None
            content = (self._folder / CURRENT).read_bytes()
        except OSError as failed:
            raise _cannot_read(self._folder, failed) from None
        self._stamp = stamp
        return content

    @asynccontextmanager
    async def open_section(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read a section in parts."""

        async def read(path: Path) -> AsyncIterator[bytes]:
            with path.open("rb") as file:
                while part := file.read(_PART_BYTES):
                    yield part

        try:
            yield read(self._folder / SECTIONS / sha256)
        except OSError as failed:
            raise _cannot_read(self._folder, failed) from None

    def forget(self) -> None:
        """Read the manifest anew at the next look."""
        self._stamp = (0, 0, 0)


class BlobSource:
    """Any HTTP server of the folder: ``current`` is asked for with its ETag."""

    def __init__(self, http: httpx.AsyncClient, base_url: str) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._etag = ""

    async def wait_manifest(self, after: int) -> bytes | None:
        """Ask once, a moment later than the last time."""
        del after
        await asyncio.sleep(BLOB_LOOK_S)
        headers = {"if-none-match": self._etag} if self._etag else {}
        try:
            reply = await self._http.get(f"{self._base_url}/{CURRENT}", headers=headers)
        except httpx.HTTPError as failed:
            raise explain_failure(failed) from None
        if reply.status_code == 304:
            return None
        if not reply.is_success:
            raise explain_refusal(reply)
        self._etag = reply.headers.get("etag", "")
        return reply.content

    @asynccontextmanager
    async def open_section(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a section."""
        async with stream(self._http, f"{self._base_url}/{SECTIONS}/{sha256}") as parts:
            yield parts

    def forget(self) -> None:
        """Ask for the manifest whatever its ETag."""
        self._etag = ""


def _cannot_read(folder: Path, failed: OSError) -> PilotageError:
    return PilotageError("unavailable", f"{folder} cannot be read: {failed.strerror}.")
