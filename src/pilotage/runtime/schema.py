"""The database's schema, seen and changed from outside a running installation."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pilotage.kit.clock import Clock, SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.kit.db import Database
from pilotage.migrations.run import HEAD, find_version, migrate, prepare_schema
from pilotage.runtime.installation import open_database


async def migrate_database(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this program's schema; return the version before and after.

    Raises ``conflict`` while a server has the data folder.
    """
    folder, clock = DataFolder(settings.data_path).prepare(), SystemClock()
    holder = ServerInfo(pid=os.getpid(), started_at_us=clock.now_us())
    with folder.acquire(holder):
        async with _open(settings, folder, clock) as db:
            before = await find_version(db)
            if settings.database.url == "sqlite":
                await prepare_schema(db, settings, folder, clock)  # after a copy of the file
            else:
                await migrate(db)
    return before, HEAD


async def read_schema(settings: Settings) -> tuple[str | None, str]:
    """Return the version of the database's schema (None for an empty one) and this program's."""
    async with _open(settings, DataFolder(settings.data_path), SystemClock()) as db:
        return await find_version(db), HEAD


@asynccontextmanager
async def _open(settings: Settings, folder: DataFolder, clock: Clock) -> AsyncIterator[Database]:
    db = open_database(settings, folder, clock)
    try:
        yield db
    finally:
        await db.close()
