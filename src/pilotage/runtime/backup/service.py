"""Making a backup while everything runs: the database and the audit log of one moment.

Changes wait for a moment, some milliseconds. In it the database's state is fixed first (a reading
transaction that sees this moment for as long as it takes), then links are made to the files of the
audit log and of the spools. In this order the log holds every change that the database has, and no
other, for none is made in between. Copying takes as long as it takes, from what is held.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

import pilotage
from pilotage.audit.notes import Checkpoint, read_checkpoint
from pilotage.audit.service import AuditService
from pilotage.core.errors import PilotageError
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import Clock, rfc3339
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.files import write_private
from pilotage.kit.operations import UNKNOWN, Progress
from pilotage.kit.outbox import append_revision, get_last_seq, hold_revisions
from pilotage.kit.sealing import lock_box
from pilotage.kit.spool_reader import list_spools, read_epoch
from pilotage.migrations.run import HEAD
from pilotage.migrations.tables import get_metadata
from pilotage.runtime.backup.archive import (
    DATABASE,
    FORMAT,
    KEYS,
    ArchiveWriter,
    Manifest,
    is_archived,
)
from pilotage.runtime.backup.capture import STAGING, Held, Staging, say_left_out
from pilotage.runtime.backup.rows import dump_table

LAST = "last.json"
Result = TypeVar("Result")
SHORTEST_PASSPHRASE = 12
ROOT_KEYS = "keys/root.key"


class MadeBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made; ``file`` is its name in the folder of backups."""

    id: str
    file: str
    size_bytes: int
    sha256: str
    made_at_us: int
    rows: int
    files: int
    log_size: int
    log_root: str
    has_models: bool
    has_keys: bool
    held_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupWish:
    """What is to be in a backup; keys only with a passphrase."""

    with_models: bool = True
    passphrase: str = ""


class Backups:
    """Makes backups of the installation that is open."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        clock: Clock,
        *,
        audit: AuditService,
        finops: FinopsService,
        root_keys: Path,
        read_elsewhere: Callable[[Path], int],
    ) -> None:
        self._db = db
        self._folder = folder
        self._clock = clock
        self._audit = audit
        self._finops = finops
        self._root_keys = root_keys
        self._read_elsewhere = read_elsewhere
        self._one = asyncio.Lock()
        for left in (*folder.path.glob(f"{STAGING}*"), *folder.backups.glob(".pilotage-*")):
            _remove(left)  # of a process that was killed

    async def make(self, actor: Actor, wish: BackupWish, progress: Progress) -> MadeBackup:
        """Write an archive to the folder of backups; cancelled, it leaves nothing there.

        Raises ``conflict`` while another backup is made, ``unavailable`` if the disk refuses.
        """
        if 0 < len(wish.passphrase) < SHORTEST_PASSPHRASE:
            raise PilotageError(
                "invalid_request",
                f"The passphrase has fewer than {SHORTEST_PASSPHRASE} letters.",
                hint="Whoever guesses it has every key: take a long one.",
            )
        if self._one.locked():
            raise PilotageError("conflict", "Another backup is being made.", hint="Wait for it.")
        async with self._one:
            try:
                made = await self._make(wish, progress)
            except OSError as failed:
                raise _refuse(failed) from None
            async with self._db.write(actor) as tx:
                await append_revision(tx, "runtime.backup.made", made.id, 1, made)
            write_private(self._folder.backups / LAST, msgspec.json.encode(made))
            return made

    async def _make(self, wish: BackupWish, progress: Progress) -> MadeBackup:
        backup_id, now_us = self._clock.new_id("bak"), self._clock.now_us()
        stamp = rfc3339(now_us)[:19].replace("-", "").replace(":", "")
        path = self._folder.backups / f"pilotage-{stamp}Z-{backup_id[-6:]}.tar"
        progress("holding the moment")
        async with AsyncExitStack() as stack:
            staging = stack.enter_context(Staging(self._folder, backup_id))
            started_s = self._clock.monotonic_s()
            tx, log = await self._hold(stack, staging)
            held_ms = (self._clock.monotonic_s() - started_s) * 1e3
            await asyncio.to_thread(staging.hold_files, with_models=wish.with_models)
            copying = _Copying(progress)
            archive = stack.enter_context(ArchiveWriter(path, copying.hear))
            tables = await copying.add_tables(tx, archive)
            last_revision = await get_last_seq(tx)
            await copying.add_files(staging.files, archive)
            await asyncio.to_thread(self._add_keys, archive, wish.passphrase)
            manifest = Manifest(
                format=FORMAT,
                id=backup_id,
                program=pilotage.__version__,
                made_at_us=now_us,
                schema=HEAD,
                dialect=tx.dialect,
                has_models=wish.with_models,
                has_keys=bool(wish.passphrase),
                tables=tables,
                last_revision=last_revision,
                log_name=log.name,
                log_size=log.size,
                log_root=log.root.hex(),
                files=archive.files,
            )
            progress("waiting for the disk")
            written = await copying.finish(partial(archive.finish, manifest))
        return MadeBackup(
            id=backup_id,
            file=written.path.name,
            size_bytes=written.size,
            sha256=written.sha256,
            made_at_us=now_us,
            rows=sum(tables.values()),
            files=len(archive.files),
            log_size=log.size,
            log_root=log.root.hex(),
            has_models=wish.with_models,
            has_keys=bool(wish.passphrase),
            held_ms=round(held_ms, 1),
        )

    async def _hold(self, stack: AsyncExitStack, staging: Staging) -> tuple[Tx, Checkpoint]:
        """Fix the database's state and hold the files that must agree with it."""
        read = {path: await self._find_read(path) for path in list_spools(self._folder.spool)}
        async with self._db.write(SYSTEM) as writing:
            await hold_revisions(writing)
            tx = await stack.enter_async_context(self._db.snapshot(SYSTEM))
            await get_last_seq(tx)  # the first query, which fixes what the transaction sees
            async with self._audit.log.hold_still() as note:
                await asyncio.to_thread(staging.hold_log)
            await asyncio.to_thread(staging.hold_spools, lambda path: read.get(path, 0) + 1)
        return tx, read_checkpoint(note)

    async def _find_read(self, spool: Path) -> int:
        """Return the last record of a spool that nobody needs any more."""
        async with self._db.read(SYSTEM) as tx:
            place = await self._finops.get_place(tx, spool.name, read_epoch(spool))
        return min(place.seq, self._read_elsewhere(spool))

    def _add_keys(self, archive: ArchiveWriter, passphrase: str) -> None:
        """Add the public keys; the secret ones, and the credentials if any, only in a box."""
        secret: dict[str, bytes] = {}
        for path in sorted(self._folder.keys.glob("[!.]*")):
            public = f"public/{path.name}"
            if path.suffix != ".pub":
                secret[f"keys/{path.name}"] = path.read_bytes()
            elif is_archived(public):
                archive.add_bytes(public, path.read_bytes())
            else:
                say_left_out(path)
        if passphrase:
            secret[ROOT_KEYS] = self._root_keys.read_bytes()
            with suppress(FileNotFoundError):  # an operator may keep them elsewhere
                secret[self._folder.credentials.name] = self._folder.credentials.read_bytes()
            archive.add_bytes(KEYS, lock_box(passphrase, msgspec.msgpack.encode(secret)))


class _Copying:
    """Puts rows and files into an archive, a part at a time, and says how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = ""
        self._done = 0
        self._total = UNKNOWN
        self._is_stopped = False

    def hear(self, size: int) -> None:
        """Count bytes, in the thread that writes them; raise once the work is cancelled."""
        if self._is_stopped:
            raise InterruptedError
        if self._phase:
            self._done += size
            self._progress(self._phase, self._done, self._total)

    async def add_tables(self, tx: Tx, archive: ArchiveWriter) -> dict[str, int]:
        """Add the rows of every table; return how many each has."""
        counts: dict[str, int] = {}
        tables = get_metadata().sorted_tables
        for number, table in enumerate(tables):
            self._progress(f"table {table.name}", number, len(tables))
            counts[table.name] = part = 0
            async for rows, content in dump_table(tx, table):
                name = f"{DATABASE}/{table.name}/{part:06d}"
                await self.finish(partial(archive.add_bytes, name, content))
                counts[table.name] += rows
                part += 1
        return counts

    async def add_files(self, files: Sequence[Held], archive: ArchiveWriter) -> None:
        """Add files that are held."""
        self._total = sum(held.size for held in files)

        def add() -> None:
            for held in files:
                self._phase = f"files: {held.name.partition('/')[0]}"
                with held.path.open("rb") as content:
                    archive.add_stream(held.name, content, held.size)
            self._phase = ""

        await self.finish(add)

    async def finish(self, work: Callable[[], Result]) -> Result:
        """Work in a thread; cancelled, let it stop before anything it writes to is closed."""
        task = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._is_stopped = True
            await asyncio.wait([task])
            task.exception()  # it was told to stop
            raise


def _refuse(failed: OSError) -> PilotageError:
    if isinstance(failed, FileNotFoundError) and failed.filename:
        return PilotageError(
            "unavailable", f"The backup cannot be made: {failed.filename} is not there."
        )
    return PilotageError(
        "unavailable",
        f"The backup cannot be written: {failed.strerror or failed}.",
        hint="Make room on the data folder's disk.",
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
