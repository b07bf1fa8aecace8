"""Questions about single calls in SQL, each answered by a process that can reach nothing else."""

import asyncio
import math
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.process import end
from pilotage.monitoring.calls import store
from pilotage.monitoring.calls.types import (
    Answer,
    QueryLimits,
    QueryResult,
    Question,
    Segment,
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

    def __init__(self, folder: Path, clock: Clock, limits: QueryLimits, retention_us: int) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._retention_us = retention_us
        self._running = 0

    async def list_segments(self, tx: Tx) -> list[Segment]:
        """Return the segments of the transaction's project."""
        return await store.list_living(tx, self._clock.now_us() - self._retention_us)

    async def run(
        self, asked: Asked, segments: Sequence[Segment], wait_gone: WaitGone | None = None
    ) -> QueryResult:
        """Answer a query about the calls of some segments.

        Raises ``invalid_query`` that says why it has no answer, ``query_too_large`` for one that
        takes more time or memory than it may, ``unavailable`` while others run, and ``cancelled``
        once ``wait_gone`` has returned: nobody wants the answer any more.
        """
        limits = self._limit(asked)
        paths = [self._folder / segment.name for segment in segments]
        files = [str(path) for path in paths if path.is_file()]
        oldest_us = self._clock.now_us() - self._retention_us
        is_old = any(segment.first_at_us < oldest_us for segment in segments)
        question = Question(
            sql=asked.sql,
            files=files,
            tenant_id=asked.tenant_id,
            since_us=oldest_us if is_old else 0,
            most_rows=limits.most_rows,
            most_bytes=limits.most_bytes,
            memory_mb=limits.memory_mb,
            threads=limits.threads,
        )
        started_s = self._clock.monotonic_s()
        answer = await self._ask(question, limits, wait_gone or _wait_for_ever)
        return QueryResult(
            answer=answer,
            segments=len(files),
            missing=len(paths) - len(files),
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
        cpu_s = math.ceil(limits.timeout_s * limits.threads) + 1
        deadline = asyncio.timeout(limits.timeout_s)
        try:
            async with deadline, asyncio.TaskGroup() as group:
                gone = group.create_task(_stop_when(wait_gone, deadline))
                said = await _ask_child(question, cpu_s)
                gone.cancel()
        except TimeoutError:
            if not gone.cancelled():
                raise PilotageError("cancelled", "Whoever asked has gone.") from None
            raise _refuse(f"it takes longer than {limits.timeout_s:g} s") from None
        finally:
            self._running -= 1
        return _judge(said)


async def _stop_when(wait_gone: WaitGone, deadline: asyncio.Timeout) -> None:
    await wait_gone()
    deadline.reschedule(0)


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


async def _ask_child(question: Question, cpu_s: int) -> _Said:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "pilotage.monitoring.calls.query_child", str(cpu_s)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={},
        cwd="/",
    )
    try:
        written, _ = await child.communicate(msgspec.json.encode(question))
    finally:
        await end(child)
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return _Said(too_large=f"it takes more than {cpu_s} s of CPU time")
    try:
        return msgspec.json.decode(written, type=_Said)
    except msgspec.DecodeError:
        return _Said(too_large=f"its process broke down (exit code {child.returncode})")


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
        hint="Ask for fewer calls (WHERE ended_at >= ...), fewer columns or sums instead of rows.",
    )
