"""The open log of an installation: one writer for everybody, off the event loop."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pilotage.audit.log import LogWriter
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.tiles import TileFolder
from pilotage.audit.tree import prove_inclusion
from pilotage.audit.types import Proof
from pilotage.core.errors import PilotageError
from pilotage.kit.crypto import Signer, key_id_of
from pilotage.kit.files import write_private

RECORDS = "records"
_T = TypeVar("_T")


def name_log(public_key: bytes) -> str:
    """Return what a log is called: by the key that signs its checkpoints."""
    return f"pilotage.audit/{key_id_of(public_key)}"


class OpenLog:
    """Append, publish and prove, one at a time."""

    def __init__(self, writer: LogWriter, public_key: bytes) -> None:
        self._writer = writer
        self._one = asyncio.Lock()
        self._is_sure = True  # False: an append failed, and the writer has to look where it ends
        self.public_key = public_key

    @property
    def folder(self) -> Path:
        """Where the log is."""
        return self._writer.folder

    @property
    def name(self) -> str:
        """What the log is called in its checkpoints."""
        return self._writer.name

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._writer.size

    @property
    def signed(self) -> int:
        """How many entries the newest checkpoint signs."""
        return self._writer.signed

    async def count(self) -> int:
        """Return how many entries are on disk, having looked again if an append has failed."""
        return await self._do(_whole(lambda: self._writer.size))

    async def append(self, entries: Sequence[bytes]) -> int:
        """Append entries durably; return the index of the first.

        Raise ``audit_unavailable`` if the disk refuses: some of them may be in the log then.
        """

        def append() -> int:
            self._is_sure = False
            first = self._writer.append(entries)
            self._is_sure = True
            return first

        return await self._do(_whole(append))

    async def publish(self) -> str:
        """Return a signed checkpoint of this moment, whose tiles are on disk."""
        return await self._do(self._writer.publish)

    @asynccontextmanager
    async def hold_still(self) -> AsyncIterator[str]:
        """Let nothing be written within the block; yield the checkpoint of everything there is."""
        async with self._one:
            yield await self._run(self._writer.publish)

    async def read_at(self, indexes: Sequence[int]) -> list[bytes]:
        """Return some entries; raise FileNotFoundError for one that was pruned."""
        return await self._do(lambda: self._writer.read_at(indexes))

    async def read_from(self, index: int, limit: int) -> list[bytes]:
        """Return up to ``limit`` entries from an index on, or raise ``audit_broken``."""
        return await self._do(_whole(lambda: self._writer.read_entries(index, limit)))

    async def prove(self, indexes: Sequence[int]) -> list[Proof]:
        """Return the proofs that entries are in the log as it is now."""
        note = await self.publish()
        return await asyncio.to_thread(
            prove_entries, self.folder, self.name, self.public_key, note, indexes
        )

    async def keep_record(self, record: bytes) -> None:
        """Keep a record that is too long for an entry, durably, under its hash."""
        path = place_record(self.folder, hashlib.sha256(record).hexdigest())
        try:
            await asyncio.to_thread(write_private, path, record)
        except OSError as failed:
            raise _unavailable(failed) from None

    async def _do(self, work: Callable[[], _T]) -> _T:
        """Let the writer work, when nobody else does."""
        async with self._one:
            return await self._run(work)

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Let the writer work in a thread.

        Whoever is cancelled meanwhile waits for the end of the work: what comes next would begin
        beside it, and not where the log ends.
        """

        def run() -> _T:
            if not self._is_sure:
                self._writer.reopen()
                self._is_sure = True
            return work()

        done = asyncio.get_running_loop().run_in_executor(None, run)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            while not done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([done])
            raise
        except FileNotFoundError:
            raise
        except OSError as failed:
            raise _unavailable(failed) from None


def place_record(folder: Path, sha256: str) -> Path:
    """Return where a record that is too long for an entry is kept."""
    return folder / RECORDS / sha256[:2] / sha256


def prove_entries(
    folder: Path, name: str, public_key: bytes, note: str, indexes: Sequence[int]
) -> list[Proof]:
    """Return the proofs that entries are in a published log."""
    checkpoint = open_checkpoint(note, name, public_key)
    log = TileFolder(folder, checkpoint.size)
    return [
        Proof(
            entry=entry,
            index=index,
            size=checkpoint.size,
            path=prove_inclusion(index, checkpoint.size, log.read_hash),
            checkpoint=note,
        )
        for index, entry in zip(indexes, log.read_at(indexes), strict=True)
    ]


@asynccontextmanager
async def open_log(folder: Path, signer: Signer) -> AsyncIterator[OpenLog]:
    """Open the log of a folder for as long as the block lasts; only one process may."""
    writer = LogWriter(folder, name_log(signer.public), signer)
    await asyncio.to_thread(writer.__enter__)
    try:
        yield OpenLog(writer, signer.public)
    finally:
        await asyncio.to_thread(writer.__exit__)


def _whole(work: Callable[[], _T]) -> Callable[[], _T]:
    """Let work raise ``audit_broken`` for files that are missing or no files of a log."""

    def run() -> _T:
        try:
            return work()
        except (FileNotFoundError, ValueError) as wrong:
            raise PilotageError(
                "audit_broken",
                f"The audit log cannot be read: {wrong}.",
                hint="See what is left of it: pilotage audit verify. Then restore a backup.",
            ) from None

    return run


def _unavailable(failed: OSError) -> PilotageError:
    return PilotageError(
        "audit_unavailable",
        f"The audit log cannot be written: {failed.strerror or failed}.",
        hint="Make room on its disk; what waits is appended then.",
    )
