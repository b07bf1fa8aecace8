"""Putting a backup back: into an empty folder and an empty database, or not at all.

The whole archive is checked first, the passphrase of its keys too. Then its rows go into the
database in one transaction, its files into a folder beside the place, which gets its name last. A
folder that is there already may be a mount point: then they wait within it.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePosixPath

import msgspec
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import UNFINISHED, DataFolder
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.files import sync_folder, write_private
from pilotage.kit.operations import Progress
from pilotage.kit.sealing import open_box
from pilotage.migrations.run import VERSIONS, migrate, upgrade_to
from pilotage.runtime.backup.archive import (
    DATABASE,
    KEYS,
    ArchiveReader,
    EntryReader,
    Manifest,
)
from pilotage.runtime.backup.rows import (
    MOST_PART_BYTES,
    empty_tables,
    load_part,
    move_sequences,
    read_part,
    reflect_tables,
)
from pilotage.runtime.installation import open_database

_MOST_KEYS = 16 << 20
_NOTHING = {UNFINISHED, "lost+found"}  # what an earlier restore left, and new file systems have
_VERSION_TABLE = "alembic_version"


async def restore_backup(
    path: Path, settings: Settings, clock: Clock, passphrase: str, progress: Progress
) -> Manifest:
    """Restore an archive into the data folder and the database that settings name.

    Raises ``conflict`` unless both are empty, ``invalid_backup`` for a flaw of the archive,
    ``schema_too_new`` for one of a newer program; then nothing has been put anywhere.
    """
    target = settings.data_path
    try:
        _check_empty(target)
        progress("checking the archive")
        manifest, keys = await asyncio.to_thread(_check_archive, path, passphrase)
        await _restore(path, settings, clock, manifest, keys, progress)
    except OSError as failed:
        raise PilotageError(
            "unavailable",
            f"The backup cannot be put into {target}: {failed.strerror or failed}.",
            hint="Make room on its disk, and restore as somebody who may write there.",
        ) from None
    return manifest


async def _restore(
    path: Path,
    settings: Settings,
    clock: Clock,
    manifest: Manifest,
    keys: dict[str, bytes],
    progress: Progress,
) -> None:
    """Fill folder and database; whatever goes wrong leaves nothing in either."""
    target = settings.data_path
    staging = (
        target / UNFINISHED if target.exists() else target.parent / f".{target.name}.restoring"
    )
    async with AsyncExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        folder = DataFolder(staging).prepare()
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        async with _open_empty(settings, folder, clock, manifest.schema) as (db, tables):
            await _put_back(path, db, tables, folder, manifest, progress)
            await db.close()
            for name, content in keys.items():
                write_private(staging / name, content)
            progress("waiting for the disk")
            await asyncio.to_thread(os.sync)
            _give_name(staging, target)


def _give_name(staging: Path, target: Path) -> None:
    """Put what was restored in its place, or leave it where it is."""
    is_within = staging.parent == target
    names = [(path, target / path.name) for path in sorted(staging.iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for old, new in names if is_within else [(staging, target)]:
            old.rename(new)
            done.append((old, new))
        sync_folder(target if is_within else target.parent)
    except BaseException:
        for old, new in reversed(done):
            new.rename(old)
        raise


async def _put_back(
    path: Path,
    db: Database,
    tables: dict[str, sa.Table],
    folder: DataFolder,
    manifest: Manifest,
    progress: Progress,
) -> None:
    with ArchiveReader(path) as archive:
        entries = archive.read()
        loaded = dict.fromkeys(manifest.tables, 0)
        async with db.write(SYSTEM) as tx:
            await empty_tables(tx, list(tables.values()))
            file = await _load_tables(tx, tables, entries, loaded, progress)
            await move_sequences(tx, list(tables.values()))
        if loaded != manifest.tables:
            raise PilotageError("invalid_backup", "The archive has not the rows it says.")
        await asyncio.to_thread(_write_files, folder, file, entries, progress, manifest)
    await migrate(db)


async def _load_tables(
    tx: Tx,
    tables: dict[str, sa.Table],
    entries: Iterator[tuple[str, EntryReader]],
    loaded: dict[str, int],
    progress: Progress,
) -> tuple[str, EntryReader] | None:
    """Load rows until the first file that holds none; return that file."""
    while found := await asyncio.to_thread(next, entries, None):
        name, entry = found
        if not name.startswith(f"{DATABASE}/"):
            return found
        table = name.split("/")[1]
        if table not in tables:
            raise PilotageError("invalid_backup", f"There is no table {table[:80]!r}.")
        progress(f"table {table}", sum(loaded.values()), -1)
        part = read_part(await asyncio.to_thread(entry.read_all, MOST_PART_BYTES))
        loaded[table] = loaded.get(table, 0) + await load_part(tx, tables[table], part)
    return None


def _write_files(
    folder: DataFolder,
    first: tuple[str, EntryReader] | None,
    entries: Iterator[tuple[str, EntryReader]],
    progress: Progress,
    manifest: Manifest,
) -> None:
    total = sum(entry.size for entry in manifest.files.values())
    done, found = 0, first
    while found:
        name, entry = found
        place = PurePosixPath(name)
        if place.parts[0] == DATABASE:
            raise PilotageError("invalid_backup", f"{name} stands behind the files.")
        progress(f"files: {place.parts[0]}", done, total)
        if name != KEYS:
            _write_file(_locate(folder, place), entry)
        done += entry.size
        found = next(entries, None)


def _locate(folder: DataFolder, place: PurePosixPath) -> Path:
    """Return where a file of an archive, whose name was checked, belongs."""
    if place.parts[0] == "public":
        return folder.keys / place.name
    return folder.path / place


def _write_file(path: Path, entry: EntryReader) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while part := entry.read():
            file.write(part)


def _check_archive(path: Path, passphrase: str) -> tuple[Manifest, dict[str, bytes]]:
    """Read all of an archive; return its manifest and its keys, by the names of their files."""
    box = b""
    with ArchiveReader(path) as archive:
        for name, entry in archive.read():
            if name == KEYS:
                box = entry.read_all(_MOST_KEYS)
        manifest = archive.manifest
    if manifest.schema not in VERSIONS:
        raise PilotageError(
            "schema_too_new",
            f"The backup has schema {manifest.schema}, which this program does not know.",
            hint="Use the program that made it, or a newer one.",
        )
    if not passphrase:
        return manifest, {}
    if not box:
        raise PilotageError(
            "invalid_backup",
            "The archive holds no keys.",
            hint="Restore it without a passphrase, then put the keys back from where they are.",
        )
    try:
        keys = msgspec.msgpack.decode(open_box(passphrase, box), type=dict[str, bytes])
    except (ValueError, msgspec.DecodeError):
        raise PilotageError("invalid_backup", "The passphrase does not open the keys.") from None
    if any(not _is_key_file(name) for name in keys):
        raise PilotageError("invalid_backup", "Among the keys is a file that is none.")
    return manifest, keys


def _is_key_file(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name == "credentials.toml" or (
        len(parts) == 2 and parts[0] == "keys" and parts[1] not in {"..", "."}
    )


def _check_empty(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir() or {path.name for path in target.iterdir()} - _NOTHING:
        raise PilotageError(
            "conflict",
            f"{target} is not empty.",
            hint="A backup is restored into a folder of its own: name a new one with --into.",
        )


@asynccontextmanager
async def _open_empty(
    settings: Settings, folder: DataFolder, clock: Clock, schema: str
) -> AsyncIterator[tuple[Database, dict[str, sa.Table]]]:
    """Open the database and give it the archive's schema; what goes wrong leaves it empty."""
    db = open_database(settings, folder, clock)
    try:
        if await reflect_tables(db):
            raise PilotageError(
                "conflict",
                "The database is not empty.",
                hint="A backup is restored into a database of its own: see database.url.",
            )
        try:
            await upgrade_to(db.engine, schema)
            tables = await reflect_tables(db)
            tables.pop(_VERSION_TABLE)
            yield db, tables
        except BaseException:
            if db.dialect != "sqlite":  # that is a file, and goes with its folder
                await _drop_all(db)
            raise
    finally:
        await db.close()


async def _drop_all(db: Database) -> None:
    def drop(connection: sa.Connection) -> None:
        found = sa.MetaData()
        found.reflect(connection)
        found.drop_all(connection)

    async with db.engine.begin() as conn:
        await conn.run_sync(drop)
