"""Bring a database to this program's schema, or say why not.

SQLite migrates itself at start, after a copy of the file; Postgres only on ``pilotage migrate``,
so that one server of several does not surprise the others. A newer schema is never touched.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database
from pilotage.kit.files import write_private

if TYPE_CHECKING:
    from alembic.config import Config

# Every schema there was; the last is this program's.
VERSIONS = tuple(f"{number:04}" for number in range(1, 28))
HEAD = VERSIONS[-1]


async def prepare_schema(
    db: Database, settings: Settings, folder: DataFolder, clock: Clock
) -> None:
    """Make sure that the schema is this program's; raise ``schema_too_new`` or ``conflict``."""
    there = await find_version(db)
    if there == HEAD:
        return
    _check_known(there)
    if settings.database.url != "sqlite":
        raise PilotageError(
            "conflict",
            f"The database has schema {there or 'none'}, this program needs {HEAD}.",
            hint="Back it up, then run: pilotage migrate",
        )
    if there is not None:
        copy = folder.database.with_suffix(f".{there}.{clock.now_us()}.bak")
        await asyncio.to_thread(_copy_sqlite, folder.database, copy)
    await migrate(db)


async def find_version(db: Database) -> str | None:
    """Return the schema version of a database, None for an empty one."""
    async with db.engine.connect() as conn:
        if not await conn.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
            return None
        row = (await conn.execute(sa.text("SELECT version_num FROM alembic_version"))).first()
        return str(row[0]) if row else None


async def migrate(db: Database) -> str:
    """Run every version that is missing; return the version there is then."""
    _check_known(await find_version(db))
    await upgrade(db.engine)
    return HEAD


async def upgrade(engine: AsyncEngine) -> None:
    """Run alembic's upgrade on an engine."""
    await upgrade_to(engine, "head")


async def upgrade_to(engine: AsyncEngine, version: str) -> None:
    """Run alembic's upgrade to one of the versions."""
    async with engine.begin() as conn:
        await conn.run_sync(_upgrade, version)


def make_config(connection: sa.Connection) -> "Config":
    """Return alembic's configuration for a connection."""
    from alembic.config import Config  # a third of a second, for a database that needs nothing

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database with what lies in its write-ahead log, which a copied file would lack."""
    write_private(target, b"")
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as copy:
        there.backup(copy)


def _upgrade(connection: sa.Connection, version: str) -> None:
    from alembic import command

    command.upgrade(make_config(connection), version)


def _check_known(there: str | None) -> None:
    if there is not None and there not in VERSIONS:
        raise PilotageError(
            "schema_too_new",
            f"The database has schema {there}, which this program does not know.",
            hint="Use the program that made it, or a newer one.",
        )
