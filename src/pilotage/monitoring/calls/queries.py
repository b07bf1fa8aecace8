"""Questions about single calls in SQL, each answered by a process that can reach nothing else."""

import asyncio
import math
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
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
    RunningQuery,
    Segment,
)

AT_ONCE = 2  # queries; they take cores from gateways and engines
_HINT = "The columns of calls: pilotage query 'DESCRIBE calls'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query: by whom, of which project, about all tenants or one, and how much at most."""

    sql: str
    project_id: str
    principal_id: str
    tenant_id: str = ""
    id: str = ""
    most_rows: int | None = None
    timeout_s: float | None = None


@dataclass(slots=True)
class _Running:
    query: RunningQuery
    deadline: asyncio.Timeout
    is_cancelled: bool = False


class _Said(msgspec.Struct, frozen=True):
    """What a query process writes."""

    found: Answer | None = None
    refused: str = ""
    too_large: str = ""


class CallQueries:
    """Answers queries, a few at a time; knows those that run and can end them."""

    def __init__(self, folder: Path, clock: Clock, limits: QueryLimits, retention_us: int) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._retention_us = retention_us
        self._running: dict[str, _Running] = {}

    async def list_segments(self, tx: Tx) -> list[Segment]:
        """Return the segments of the transaction's project."""
        return await store.list_living(tx, self._clock.now_us() - self._retention_us)

    async def run(self, asked: Asked, segments: list[Segment]) -> QueryResult:
        """Answer a query about the calls of some segments.

        Raises ``invalid_query`` that says why it has no answer, ``query_too_large`` for one that
        takes more time or memory than it may, ``cancelled``, and ``unavailable`` while others run.
        """
        limits = self._limit(asked)
        query = self._admit(asked)
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
        found = await self._ask(query, question, limits)
        return QueryResult(
            id=query.id,
            answer=found,
            segments=len(files),
            missing=len(paths) - len(files),
            elapsed_us=round((self._clock.monotonic_s() - started_s) * 1e6),
        )

    def list_running(self, project_id: str) -> list[RunningQuery]:
        """Return the queries of a project that run, oldest first."""
        queries = [running.query for running in self._running.values()]
        return [query for query in queries if query.project_id == project_id]

    def find_running(self, project_id: str, query_id: str) -> RunningQuery:
        """Return a query that runs; raise ``not_found``."""
        running = self._running.get(query_id)
        if running is None or running.query.project_id != project_id:
            raise PilotageError(
                "not_found", f"No query {query_id!r} runs.", hint="It may have ended by itself."
            )
        return running.query

    def cancel(self, query: RunningQuery) -> None:
        """End a query that runs; whoever waits for it is told ``cancelled``."""
        running = self._running.get(query.id)
        if running is not None:
            running.is_cancelled = True
            running.deadline.reschedule(0)

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

    def _admit(self, asked: Asked) -> RunningQuery:
        if asked.id in self._running:
            raise PilotageError("already_exists", f"A query {asked.id!r} runs.", param="id")
        if len(self._running) >= AT_ONCE:
            raise PilotageError(
                "unavailable",
                f"{len(self._running)} queries run already.",
                hint="Try again when one has ended, or cancel one.",
            )
        return RunningQuery(
            id=asked.id or self._clock.new_id("qry"),
            project_id=asked.project_id,
            principal_id=asked.principal_id,
            tenant_id=asked.tenant_id,
            sql=asked.sql,
            started_at_us=self._clock.now_us(),
        )

    async def _ask(self, query: RunningQuery, question: Question, limits: QueryLimits) -> Answer:
        deadline = asyncio.timeout(limits.timeout_s)
        running = self._running[query.id] = _Running(query, deadline)
        try:
            async with deadline:
                said = await _ask_child(question, math.ceil(limits.timeout_s * limits.threads) + 1)
        except TimeoutError:
            if running.is_cancelled:
                raise PilotageError("cancelled", "The query was cancelled.") from None
            said = _Said(too_large=f"it takes longer than {limits.timeout_s:g} s")
        finally:
            del self._running[query.id]
        return _judge(said)


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
    raise PilotageError(
        "query_too_large",
        f"The query was stopped: {said.too_large}.",
        hint="Ask for fewer calls (WHERE ended_at >= ...), fewer columns or sums instead of rows.",
    )
