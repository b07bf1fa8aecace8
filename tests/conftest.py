"""Fixtures that more than one kind of test shares."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

import valkey_server
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Database, open_postgres, open_sqlite
from postgres_server import MissingServerError, PostgresServer, open_postgres_server
from valkey_server import ValkeyServer, open_valkey_server

# How long an example takes says more of the machine than of the product: benches measure.
hypothesis.settings.register_profile("pilotage", deadline=None)
hypothesis.settings.load_profile("pilotage")

# In the background of a shell Ctrl-C is ignored, and so it would be by every command under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, made once per run.

    Parallel workers share it: each may make it, the bytes are the same, and it appears whole.
    """
    from tiny_model import make_tiny_gguf

    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    path = folder / "tiny.gguf"
    return path if path.exists() else make_tiny_gguf(path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a real Postgres server, started once per run."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(open_postgres_server())
        except MissingServerError as reason:
            pytest.skip(str(reason))
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """Return a real Valkey server, started once per run; each test flushes it."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(open_valkey_server())
        except valkey_server.MissingServerError as reason:
            pytest.skip(str(reason))
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that moves when told."""
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgres"])
def postgres_or_none(request: pytest.FixtureRequest) -> PostgresServer | None:
    """Return the server for the half of the tests that run on Postgres."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server


@pytest.fixture
async def database(
    postgres_or_none: PostgresServer | None, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Database]:
    """Return an open database of each kind with every table and nothing in it."""
    from pilotage.migrations.tables import get_metadata

    if postgres_or_none is None:
        opened = open_sqlite(tmp_path / "test.db", clock)
        async with opened.engine.begin() as conn:
            await conn.run_sync(get_metadata().create_all)
    else:
        opened = open_postgres(await postgres_or_none.make_database(get_metadata()), "", clock)
    try:
        yield opened
    finally:
        await opened.close()
