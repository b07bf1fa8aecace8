"""Questions about single calls in SQL, each answered by a process that can reach nothing else."""

import asyncio
import math
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.process import end
from pilotage.monitoring.calls import store
from pilotage.monitoring.calls.service import IsHeld
from pilotage.monitoring.calls.types import (
    Answer,
    QueryLimits,
    QueryResult,
    Question,
    Scope,
)

AT_ONCE = 2  # queries; they take cores from gateways and engines
WaitGone = Callable[[], Awaitable[None]]
_HINT = "The columns of calls: pilotage query 'DESCRIBE calls'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query about all tenants of a project or one, and how many rows and seconds at most."""

    sql: str
    tenant_id: str = ""
    most_rows: int | None = None
    timeout_s: float | None = None


class _Said(msgspec.Struct, frozen=True):
    """What a query process writes."""

    found: Answer | None = None
    refused: str = ""
    too_large: str = ""


class CallQueries:
    """Answers queries, a few at a time."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        limits: QueryLimits,
        retention_us: int,
        *,
        is_held: IsHeld,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._retention_us = retention_us
        self._is_held = is_held
        self._running = 0

    async def find_scope(self, tx: Tx, since_us: int = 0, until_us: int | None = None) -> Scope:
        """Return where the calls of the transaction's project are that ended in a time.

        Calls older than their retention are none, unless a legal hold keeps them.
        """
        if not await self._is_held(tx):
            since_us = max(since_us, self._clock.now_us() - self._retention_us)
        segments = await store.list_living(tx, since_us, until_us)
        return Scope(segments=segments, since_us=since_us, until_us=until_us)

    async def run(
        self, asked: Asked, scope: Scope, wait_gone: WaitGone | None = None
    ) -> QueryResult:
        """Answer a query about the calls of a scope.

        Raises ``invalid_query`` that says why it has no answer, ``query_too_large`` for one that
        takes more time or memory than it may, ``unavailable`` while others run, and ``cancelled``
        once ``wait_gone`` has returned: nobody wants the answer any more.
        """
        limits = self._limit(asked)
        question = Question(
            sql=asked.sql,
            files=[str(self._folder / segment.name) for segment in scope.segments],
            tenant_id=asked.tenant_id,
            since_us=scope.since_us,
            until_us=scope.until_us,
            most_rows=limits.most_rows,
            most_bytes=limits.most_bytes,
            memory_mb=limits.memory_mb,
            threads=limits.threads,
        )
        started_s = self._clock.monotonic_s()
        answer = await self._ask(question, limits, wait_gone or _wait_for_ever)
        return QueryResult(
            answer=answer,
            segments=len(scope.segments),
            elapsed_us=round((self._clock.monotonic_s() - started_s) * 1e6),
        )

    def _limit(self, asked: Asked) -> QueryLimits:
        most = self._limits
        rows, timeout_s = asked.most_rows, asked.timeout_s
        for name, given, allowed in (
            ("limit", rows, most.most_rows),
            ("timeout_s", timeout_s, most.timeout_s),
        ):
            if given is not None and not 0 < given <= allowed:
                raise PilotageError(
                    "invalid_request", f"{name} is not from 1 to {allowed:g}.", param=name
                )
        return replace(
            most,
            most_rows=most.most_rows if rows is None else rows,
            timeout_s=most.timeout_s if timeout_s is None else timeout_s,
        )

    async def _ask(self, question: Question, limits: QueryLimits, wait_gone: WaitGone) -> Answer:
        if self._running >= AT_ONCE:
            raise PilotageError(
                "unavailable",
                f"{self._running} queries run already.",
                hint="Try again when one of them has ended.",
            )
        self._running += 1
        try:
            return await _ask_child(question, limits, wait_gone)
        finally:
            self._running -= 1


async def _ask_child(question: Question, limits: QueryLimits, wait_gone: WaitGone) -> Answer:
    cpu_s = math.ceil(limits.timeout_s * limits.threads) + 1
    child = await _start_child(cpu_s)
    deadline = asyncio.timeout(limits.timeout_s)
    try:
        async with deadline, asyncio.TaskGroup() as group:
            gone = group.create_task(_stop_when(wait_gone, deadline))
            written, _ = await child.communicate(msgspec.json.encode(question))
            gone.cancel()
    except TimeoutError:
        if not gone.cancelled():
            raise PilotageError("cancelled", "Whoever asked has gone.") from None
        raise _refuse(f"it takes longer than {limits.timeout_s:g} s") from None
    finally:
        await end(child)
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _refuse(f"it takes more than {cpu_s} s of CPU time")
    try:
        said = msgspec.json.decode(written, type=_Said)
    except msgspec.DecodeError:
        raise _refuse(f"its process broke down (exit code {child.returncode})") from None
    return _judge(said)


async def _stop_when(wait_gone: WaitGone, deadline: asyncio.Timeout) -> None:
    await wait_gone()
    deadline.reschedule(0)


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


async def _start_child(cpu_s: int) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "pilotage.monitoring.calls.query_child", str(cpu_s)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={},
            cwd="/",
        )
    except OSError as failed:
        raise PilotageError(
            "unavailable",
            f"No process can be started for the query: {failed.strerror}.",
            hint="Try again later; the machine has too few processes or open files left.",
        ) from failed


def _judge(said: _Said) -> Answer:
    if said.found is not None:
        return said.found
    if said.refused:
        raise PilotageError("invalid_query", said.refused, hint=_HINT)
    raise _refuse(said.too_large)


def _refuse(why: str) -> PilotageError:
    return PilotageError(
        "query_too_large",
        f"The query was stopped: {why}.",
        hint="Ask for less time (since and until), fewer columns or sums instead of rows.",
    )
