"""Comparisons from real spool folders, on both databases: counted once, read, dropped."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls import open_writer
from pilotage.core.frames import Compared, encode_frame
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.monitoring.rollups.service import CallBatch, CallSink, RollupService
from pilotage.monitoring.rollups.worker import RollupReader
from pilotage.rollouts.shadows.service import KEPT_US, ShadowService
from pilotage.rollouts.shadows.sink import ComparisonSink
from pilotage.rollouts.shadows.types import Comparison
from stores import Projects, make_projects


class Breaking:
    """A sink that fails so many times, inside the transaction."""

    def __init__(self) -> None:
        self.left = 0

    async def prepare(self, batch: CallBatch) -> None:
        """Prepare nothing."""

    async def write(self, tx: Tx) -> None:
        """Fail as long as it shall."""
        if self.left:
            self.left -= 1
            raise OSError("the disk is away")


@dataclass(slots=True)
class Lab:
    """A spool, what reads it, and what it adds up to."""

    database: Database
    clock: ManualClock
    root: Path
    projects: Projects
    service: ShadowService
    breaking: Breaking
    reader: RollupReader
    made: int = 0

    def pair(self, mark: int = 1000, copy: int = 1000, **more: str) -> Compared:
        self.made += 1
        return Compared(
            call_id=f"call_{self.made}",
            at_us=self.clock.now_us(),
            copy_id=f"copy_{self.made}",
            project_id=more.get("project_id", self.projects.mine.project_id or ""),
            tenant_id="ten_a",
            alias="chat",
            baseline=more.get("baseline", "dep_a"),
            candidate="dep_b",
            rollout=more.get("rollout", "rol_1/0"),
            baseline_mark=mark,
            candidate_mark=copy,
        )

    async def spool(self, pairs: Sequence[Compared]) -> None:
        with open_writer(self.root) as writer:
            for pair in pairs:
                writer.append(encode_frame(pair))
        await self.read_spool()

    async def read_spool(self) -> None:
        while await self.reader.step():
            pass

    async def read(
        self, rollout: str | None = None, actor: Actor | None = None
    ) -> Sequence[Comparison]:
        async with self.database.read(actor or self.projects.mine) as tx:
            return await self.service.read(tx, "chat", rollout)


@pytest.fixture
async def lab(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Lab]:
    service, breaking, root = ShadowService(), Breaking(), tmp_path / "spool"
    sinks: list[CallSink] = [ComparisonSink(service), breaking]
    reader = RollupReader(database, root, RollupService(), clock, sinks=sinks, batch=40)
    projects = await make_projects(database, clock)
    yield Lab(database, clock, root, projects, service, breaking, reader)
    await reader.close()


async def test_pairs_count_once_whatever_fails_in_between(lab: Lab) -> None:
    lab.breaking.left = 2
    await lab.spool([lab.pair() for _ in range(90)] + [lab.pair(1000, 0) for _ in range(10)])
    while lab.breaking.left or not await lab.read():
        lab.clock.advance(60)
        await lab.read_spool()
    [found] = await lab.read()
    assert (found.pairs, found.mark) == (100, -0.1)
    assert (found.key.alias, found.key.rollout) == ("chat", "rol_1/0")
    assert await lab.read(actor=lab.projects.other) == []


async def test_rollouts_have_the_pairs_of_their_own_steps(lab: Lab) -> None:
    steps = ("", "rol_1/0", "rol_1/1", "rol_11/0")
    await lab.spool([lab.pair(rollout=step) for step in steps])
    assert [one.key.rollout for one in await lab.read("rol_1")] == ["rol_1/0", "rol_1/1"]
    assert len(await lab.read()) == len(steps)
    async with lab.database.read(SYSTEM) as tx:
        assert await lab.service.read_marks(tx, "chat", "rol_1", "dep_a") == {0: 2}


async def test_what_a_fallback_answered_says_nothing_of_the_baseline(lab: Lab) -> None:
    await lab.spool([lab.pair(), lab.pair(baseline="dep_f"), lab.pair(500)])
    async with lab.database.read(SYSTEM) as tx:
        assert await lab.service.read_marks(tx, "chat", "rol_1", "dep_a") == {0: 1, 500: 1}


async def test_days_are_read_together_and_dropped_when_they_are_old(lab: Lab) -> None:
    await lab.spool([lab.pair(1000, 0)])
    lab.clock.advance(86_400)
    await lab.spool([lab.pair()])
    [found] = await lab.read()
    assert (found.pairs, found.mark) == (2, -0.5)
    lab.clock.advance(KEPT_US / 1e6 - 86_400)
    async with lab.database.write(SYSTEM) as tx:
        assert await lab.service.drop_old(tx) == 1
    [found] = await lab.read()
    assert (found.pairs, found.mark) == (1, 0.0)
