"""Long work as rows: an operation is an owned task that can be watched, cancelled and recovered.

Progress lives in memory and is visible at once; the row is written when the work starts and when it
ends. A process that dies leaves rows that say "running": the next start marks them failed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import METADATA, SYSTEM, Actor, Database, Row, Tx
from pilotage.kit.resources import Background

OPERATION = sa.Table(
    "operation",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error_detail", sa.Text),
    sa.Column("error_hint", sa.Text),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)
UNKNOWN = -1  # a total that is not known
_LOG = logging.getLogger("pilotage.operations")


class OperationState(StrEnum):
    """Where an operation stands; all but ``running`` are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OperationKind:
    """What work is called, and the permission that starts it: who cancels it needs that as well.

    ``is_global`` says that the permission is needed in the whole installation.
    """

    name: str
    permission: str
    is_global: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Long work on a subject; ``result`` is JSON, ``total`` -1 where it is not known."""

    id: str
    rev: int
    project_id: str | None
    kind: str
    subject: str
    state: OperationState
    phase: str
    done: int
    total: int
    result: str | None
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at_us: int
    updated_at_us: int


class Progress:
    """How far work has come; the work calls it, whoever watches reads it."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.done = 0
        self.total = UNKNOWN

    def __call__(self, phase: str, done: int = 0, total: int = UNKNOWN) -> None:
        """Say what is being done now and how much of it is done (bytes, files, steps)."""
        self.phase, self.done, self.total = phase, done, total


Work = Callable[[Progress], Awaitable[object]]


@dataclass(slots=True)
class _Live:
    """An operation of this process: ``is_ending`` once its work has returned."""

    kind: OperationKind
    progress: Progress
    task: asyncio.Task[None] | None = None
    is_ending: bool = False


class Operations:
    """Runs operations and knows those of earlier runs; each method opens its own transaction."""

    def __init__(self, db: Database, clock: Clock, background: Background) -> None:
        self._db = db
        self._clock = clock
        self._background = background
        self._live: dict[str, _Live] = {}

    async def start(self, actor: Actor, kind: OperationKind, subject: str, work: Work) -> Operation:
        """Record an operation in the actor's project and run its work in the background.

        What the work returns becomes the result (anything msgspec writes as JSON); a
        ``PilotageError`` it raises becomes the operation's error.
        """
        live = _Live(kind, Progress())
        async with self._db.write(actor) as tx:
            operation = Operation(
                id=self._clock.new_id("op"),
                rev=1,
                project_id=actor.project_id,
                kind=kind.name,
                subject=subject,
                state=OperationState.RUNNING,
                phase=live.progress.phase,
                done=live.progress.done,
                total=live.progress.total,
                result=None,
                error_code=None,
                error_detail=None,
                error_hint=None,
                created_at_us=tx.now_us,
                updated_at_us=tx.now_us,
            )
            await tx.insert(OPERATION, **_values(operation))
        self._live[operation.id] = live
        live.task = self._background.start(
            self._run(operation, live, work), f"operation {operation.id}"
        )
        return operation

    async def get(self, actor: Actor, operation_id: str) -> Operation:
        """Return an operation with its progress of this moment; raise ``not_found``."""
        async with self._db.read(actor) as tx:
            row = await tx.find(tx.select(OPERATION).where(OPERATION.c.id == operation_id))
        if row is None:
            raise PilotageError(
                "not_found",
                f"There is no operation {operation_id!r}.",
                hint="List them: pilotage operations list",
                param="operation",
            )
        return self._with_progress(_operation(row))

    async def list(
        self, actor: Actor, after: str = "", limit: int = 50, state: OperationState | None = None
    ) -> Sequence[Operation]:
        """Return operations, oldest first, with their progress of this moment."""
        async with self._db.read(actor) as tx:
            statement = tx.select(OPERATION).where(OPERATION.c.id > after)
            if state is not None:
                statement = statement.where(OPERATION.c.state == state)
            rows = await tx.all(statement.order_by(OPERATION.c.id).limit(limit))
        return [self._with_progress(_operation(row)) for row in rows]

    def find_kind(self, operation_id: str) -> OperationKind | None:
        """Return what an operation is that runs in this process, or None."""
        live = self._live.get(operation_id)
        return None if live is None else live.kind

    async def cancel(self, actor: Actor, operation_id: str) -> Operation:
        """Cancel a running operation and wait for its end; raise ``conflict`` if it has ended."""
        operation = await self.get(actor, operation_id)
        if operation.state == OperationState.CANCELLED:
            return operation
        live = self._live.get(operation_id)
        if operation.state == OperationState.RUNNING and live is not None and live.task is not None:
            if not live.is_ending:
                live.task.cancel()
            await asyncio.wait([live.task])
            operation = await self.get(actor, operation_id)
        if operation.state != OperationState.CANCELLED:
            raise PilotageError("conflict", f"The operation has {operation.state} already.")
        return operation

    async def wait(self, actor: Actor, operation_id: str) -> Operation:
        """Return an operation once it has ended, for callers in this process."""
        live = self._live.get(operation_id)
        if live is not None and live.task is not None:
            await asyncio.wait([live.task])
        return await self.get(actor, operation_id)

    async def recover(self) -> int:
        """Mark operations that an earlier process left running as failed; return how many."""
        async with self._db.write(SYSTEM) as tx:
            left = tx.update(OPERATION).where(
                OPERATION.c.state == OperationState.RUNNING, OPERATION.c.id.not_in(list(self._live))
            )
            return await tx.change(
                left.values(
                    rev=OPERATION.c.rev + 1,
                    state=OperationState.FAILED,
                    error_code="unavailable",
                    error_detail="The operation was interrupted by a restart.",
                    error_hint="Start it again.",
                    updated_at_us=tx.now_us,
                )
            )

    async def _run(self, started: Operation, live: _Live, work: Work) -> None:
        """Run to the end whatever happens: a failure here would take the owner's block down."""
        ended = await _settle(started, live, work)
        live.is_ending = True
        ended = replace(
            ended, phase=live.progress.phase, done=live.progress.done, total=live.progress.total
        )
        try:
            await self._save(ended)
        except asyncio.CancelledError:  # the owner closes while the end is written: write it still
            await self._save(ended)
        except (sa.exc.SQLAlchemyError, PilotageError, OSError):  # the next start marks it failed
            _LOG.exception("the end of operation %s could not be recorded", started.id)
        finally:
            del self._live[started.id]

    async def _save(self, ended: Operation) -> None:
        async with self._db.write(SYSTEM) as tx:
            await _finish(tx, ended)

    def _with_progress(self, operation: Operation) -> Operation:
        live = self._live.get(operation.id)
        if live is None or operation.state != OperationState.RUNNING:
            return operation
        now = live.progress
        return replace(operation, phase=now.phase, done=now.done, total=now.total)


async def _settle(started: Operation, live: _Live, work: Work) -> Operation:
    """Do the work and return how it ended."""
    try:
        result = msgspec.json.encode(await work(live.progress)).decode()
    except asyncio.CancelledError:
        return replace(started, state=OperationState.CANCELLED)
    except PilotageError as refused:
        return _failed(started, refused)
    except Exception as broken:
        _LOG.exception("operation %s (%s) broke", started.id, started.kind, exc_info=broken)
        return _failed(started, PilotageError("internal_error", hint="See the server's log."))
    return replace(started, state=OperationState.SUCCEEDED, result=result)


def _failed(started: Operation, error: PilotageError) -> Operation:
    return replace(
        started,
        state=OperationState.FAILED,
        error_code=error.code,
        error_detail=error.detail,
        error_hint=error.hint,
    )


async def _finish(tx: Tx, ended: Operation) -> None:
    guarded = tx.update(OPERATION).where(
        OPERATION.c.id == ended.id, OPERATION.c.state == OperationState.RUNNING
    )
    await tx.change(
        guarded.values(**_values(ended) | {"rev": ended.rev + 1, "updated_at_us": tx.now_us})
    )


def _operation(row: Row) -> Operation:
    return Operation(**dict(row) | {"state": OperationState(row["state"])})


def _values(operation: Operation) -> dict[str, object]:
    return {name: getattr(operation, name) for name in operation.__dataclass_fields__}
