"""The control plane's database: SQLite or Postgres, SQLAlchemy Core, one transaction type.

A :class:`Tx` knows who acts, why, when and within which project. Its query builders are the only
way to reach a table (a lint keeps SQLAlchemy's own out of the slices): they add the project to
every statement on a table that has one. On SQLite there is one writer at a time; a write begins
with BEGIN IMMEDIATE, so that it never fails half-way for a lock.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Row = sa.RowMapping
_DATA_EXCEPTION = "22"  # the class of Postgres' states for values that do not fit
_LOST_RACES = {"40001", "40P01"}  # Postgres: serialization failure, deadlock
_DISK_FULL = "53100"  # Postgres


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something and why: a principal's id, the reason given, the project it is done in.

    ``project_id`` None means the whole installation: workers, and administrators of projects.
    """

    principal_id: str
    project_id: str | None = None
    reason: str = ""


SYSTEM = Actor(principal_id="system", reason="housekeeping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tx:
    """One transaction; ``written`` collects the revisions it appends.

    ``now_us`` is when it began, ``read_clock`` tells the time now. ``stamps`` holds the time of its
    revisions once it has one, ``decisions`` the records that were made of its changes.
    """

    conn: AsyncConnection
    actor: Actor
    now_us: int
    dialect: str
    read_clock: Callable[[], int] | None = None
    written: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)

    @property
    def project_id(self) -> str:
        """The project this transaction is scoped to; raise ``invalid_request`` if it is none."""
        if self.actor.project_id is None:
            raise PilotageError(
                "invalid_request", "This needs a project.", hint="Name one with ?project=NAME."
            )
        return self.actor.project_id

    async def see_one_moment(self) -> None:
        """See the moment of the next query until the end; only before any other query."""
        if self.dialect == "postgresql":  # SQLite does anyway
            await self.conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))

    async def lock(self, key: int, *, is_shared: bool = False) -> None:
        """Hold a lock of all that write until the end: alone, or with others that share it.

        On SQLite there is one writer at a time anyway.
        """
        if self.dialect == "postgresql":
            kind = "pg_advisory_xact_lock_shared" if is_shared else "pg_advisory_xact_lock"
            await self.conn.execute(sa.select(getattr(sa.func, kind)(key)))

    def select(self, table: sa.Table, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """Begin a SELECT of a table (or of some columns of it) within the scope."""
        statement = sa.select(*columns).select_from(table) if columns else sa.select(table)
        for condition in self._scope(table):
            statement = statement.where(condition)
        return statement

    def update(self, table: sa.Table) -> sa.Update:
        """Begin an UPDATE of a table within the scope."""
        return sa.update(table).where(*self._scope(table))

    def delete(self, table: sa.Table) -> sa.Delete:
        """Begin a DELETE from a table within the scope."""
        return sa.delete(table).where(*self._scope(table))

    async def insert(self, table: sa.Table, **values: object) -> None:
        """Insert one row; the project is filled in from the scope where the table has one."""
        if "project_id" in table.c and "project_id" not in values:
            values["project_id"] = self.project_id
        await self.conn.execute(sa.insert(table).values(**values))

    async def insert_many(self, table: sa.Table, rows: Sequence[dict[str, object]]) -> None:
        """Insert rows that carry all their columns."""
        if rows:
            await self.conn.execute(sa.insert(table), rows)

    async def insert_missing(self, table: sa.Table, rows: Sequence[dict[str, object]]) -> None:
        """Insert those of some rows whose key nobody has written, now or at the same time."""
        missing: sa.Insert
        if self.dialect == "postgresql":
            from sqlalchemy.dialects import postgresql

            missing = postgresql.insert(table).on_conflict_do_nothing()
        else:
            from sqlalchemy.dialects import sqlite

            missing = sqlite.insert(table).on_conflict_do_nothing()
        if rows:
            await self.conn.execute(missing, rows)

    async def all(self, statement: sa.Select[Any]) -> Sequence[Row]:
        """Return every row of a query."""
        rows: Sequence[Row] = (await self.conn.execute(statement)).mappings().all()
        return rows

    async def find(self, statement: sa.Select[Any]) -> Row | None:
        """Return the first row of a query, or None."""
        row: Row | None = (await self.conn.execute(statement)).mappings().first()
        return row

    async def stream(self, statement: sa.Select[Any], size: int) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a query in pages, however many they are."""
        result = await self.conn.stream(statement)
        async for page in result.mappings().partitions(size):
            yield page

    async def change(self, statement: sa.Update | sa.Delete) -> int:
        """Run an UPDATE or DELETE; return how many rows it changed."""
        return (await self.conn.execute(statement)).rowcount

    async def change_many(self, statement: sa.Update, rows: Sequence[dict[str, object]]) -> None:
        """Run an UPDATE once for each row of its parameters."""
        if rows:
            await self.conn.execute(statement, rows)

    def _scope(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        if self.actor.project_id is None or "project_id" not in table.c:
            return []
        return [table.c.project_id == self.actor.project_id]


class Database:
    """Both engines behind ``read`` and ``write``.

    ``before_commit`` hears who is about to change something, and may refuse by raising;
    ``on_commit`` hears the last revision of each write.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._one_writer = asyncio.Lock()
        self.dialect = writer.dialect.name
        self.before_commit: list[Callable[[Actor], None]] = []
        self.on_commit: list[Callable[[int], None]] = []

    @asynccontextmanager
    async def write(self, actor: Actor) -> AsyncIterator[Tx]:
        """Open a transaction that commits at the end of the block and rolls back on an error.

        Raises ``conflict`` if somebody else was first, ``unavailable`` if the disk is full.
        """
        waiting = self._one_writer if self.dialect == "sqlite" else nullcontext()
        try:
            async with waiting, self._writer.begin() as conn:
                tx = self._tx(conn, actor)
                yield tx
                if tx.written:
                    for check in self.before_commit:
                        check(actor)
        except sa.exc.DBAPIError as failed:
            refused = _explain(failed)
            if refused is None:
                raise
            raise refused from failed
        if tx.written:
            for listener in self.on_commit:
                listener(max(tx.written))

    @asynccontextmanager
    async def read(self, actor: Actor) -> AsyncIterator[Tx]:
        """Open a transaction that only reads."""
        async with self._reader.connect() as conn:
            yield self._tx(conn, actor)

    @asynccontextmanager
    async def snapshot(self, actor: Actor) -> AsyncIterator[Tx]:
        """Open a transaction that sees the moment of its first query, however long it lasts."""
        async with self._reader.connect() as conn:
            if self.dialect == "postgresql":
                await conn.execution_options(isolation_level="REPEATABLE READ")
            yield self._tx(conn, actor)

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine, for migrations."""
        return self._writer

    async def close(self) -> None:
        """Close every connection."""
        if self._reader is not self._writer:
            await self._reader.dispose()
        await self._writer.dispose()

    def _tx(self, conn: AsyncConnection, actor: Actor) -> Tx:
        return Tx(
            conn=conn,
            actor=actor,
            now_us=self._clock.now_us(),
            dialect=self.dialect,
            read_clock=self._clock.now_us,
        )


def refuses_values(error: BaseException | None) -> bool:
    """Say whether the database refused the values of a write, so that it will do so again.

    A key that is there already may be one that somebody else has written at the same time.
    """
    if isinstance(error, PilotageError):
        return isinstance(error.__cause__, sa.exc.IntegrityError)
    if not isinstance(error, sa.exc.DBAPIError) or error.orig is None:
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    is_unfit = state.startswith(_DATA_EXCEPTION) or isinstance(error.orig.__cause__, ValueError)
    return is_unfit or isinstance(error, sa.exc.DataError)


def _explain(error: sa.exc.DBAPIError) -> PilotageError | None:
    """Return what an error of the database means for whoever writes, None if it is a fault."""
    if _is_race(error):
        return PilotageError(
            "conflict",
            "The object was changed or created by somebody else meanwhile.",
            hint="Try again.",
        )
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == _DISK_FULL:
        return PilotageError(
            "unavailable",
            "The disk of the database is full.",
            hint="Make room there, then try again. Which one it is: pilotage doctor",
        )
    return None


def _is_race(error: sa.exc.DBAPIError) -> bool:
    """Say whether somebody else was first; what they did stands, and this write left nothing."""
    if isinstance(error, sa.exc.IntegrityError):
        return True
    return getattr(error.orig, "sqlstate", None) in _LOST_RACES


def open_sqlite(path: Path, clock: Clock) -> Database:
    """Open (or make) a SQLite file in WAL mode."""
    url = f"sqlite+aiosqlite:///{path}"
    writer = create_async_engine(url, pool_size=1, max_overflow=0)
    reader = create_async_engine(url, pool_size=4, max_overflow=0)
    _tune_sqlite(writer, "BEGIN IMMEDIATE")
    _tune_sqlite(reader, "BEGIN")
    return Database(writer, reader, clock)


def open_postgres(url: str, password: str, clock: Clock) -> Database:
    """Connect to Postgres; needs the extra ``postgres``."""
    parsed = sa.make_url(url).set(drivername="postgresql+asyncpg")
    if password:
        parsed = parsed.set(password=password)
    try:
        engine = create_async_engine(parsed, pool_size=8, max_overflow=0, pool_pre_ping=True)
    except ModuleNotFoundError:
        raise PilotageError(
            "invalid_config",
            "Postgres needs its driver.",
            hint='Run: pip install "pilotage[postgres]"',
        ) from None
    return Database(engine, engine, clock)


def _tune_sqlite(engine: AsyncEngine, begin: str) -> None:
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.isolation_level = None  # the driver shall not begin transactions of its own
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # the audit log must not know more than a power cut has left here
            "busy_timeout=10000",
            "foreign_keys=ON",
            "secure_delete=ON",  # what is deleted is overwritten, for some of it was a name
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    sa.event.listen(engine.sync_engine, "connect", connect)
    sa.event.listen(engine.sync_engine, "begin", start)
