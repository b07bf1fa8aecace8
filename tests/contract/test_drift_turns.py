"""What is measured of calls by several processes at once, on both databases."""

import asyncio

from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.monitoring.drift import store
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Held, Measure, Place


async def test_processes_that_count_the_same_measure_lose_nothing(
    database: Database, clock: ManualClock
) -> None:
    drift = DriftService(clock)
    place = Place(AnswerKey("prj", "chat", "ver_1", "tiny"), Measure.TTFT, 0)

    async def count() -> None:
        for _ in range(10):
            async with database.write(SYSTEM) as tx:
                await drift.record(tx, {place: Held(words={"a": 1})})

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(count())
    async with database.read(SYSTEM) as tx:
        found = await store.list_cells(tx, 0, 1)
    assert found[place].words == {"a": 30}
