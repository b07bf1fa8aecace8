"""Gauges of replicas and their machine, on both databases."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.monitoring.infrastructure import store
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.types import (
    Gauge,
    GaugeKey,
    MachineUse,
    ProcessUse,
    Replica,
    Spread,
)
from pilotage.monitoring.infrastructure.worker import (
    InfrastructureSampler,
    make_infrastructure_worker,
)
from pilotage.monitoring.rollups.types import Keep, Level

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
FOREVER_US = 4_000_000_000_000_000
MINE = Actor(principal_id="usr_1", project_id="prj_1")


@dataclass
class Machine:
    """A machine with one replica that works half of the time on one of two cores."""

    clock: ManualClock
    replicas: list[Replica] = field(default_factory=list)

    async def list_replicas(self, _: Tx) -> Sequence[Replica]:
        return self.replicas

    def look(self, pids: Sequence[int]) -> MachineUse:
        now_s = self.clock.monotonic_s()
        return MachineUse(
            at_s=now_s,
            cores=2,
            cpu_s=now_s,
            memory_total_bytes=100,
            memory_used_bytes=40,
            processes={pid: ProcessUse(cpu_s=now_s / 2, memory_bytes=10) for pid in pids},
        )


@pytest.fixture
def machine(clock: ManualClock) -> Machine:
    mine = Replica(project_id="prj_1", alias="chat", version_id="ver_1", is_ready=True, pid=7)
    return Machine(clock, [mine])


async def test_processes_that_write_the_same_minute_lose_nothing(database: Database) -> None:
    one = Spread(readings=1, total=0.5, lowest=0.5, highest=0.5)

    async def write() -> None:
        for _ in range(10):
            async with database.write(SYSTEM) as tx:
                await store.add_spreads(tx, Level.DAY, 0, {GaugeKey("", "", "", Gauge.CPU): one})

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(write())
    async with database.read(SYSTEM) as tx:
        ((_, _, found),) = await store.list_spreads(tx, Level.DAY, 0, 1)
    assert found.readings == 30


async def test_gauges_are_read_and_written_minute_by_minute(
    database: Database, clock: ManualClock, machine: Machine
) -> None:
    service = InfrastructureService()
    sampler = InfrastructureSampler(database, service, machine.list_replicas, machine.look)
    for _ in range(12 * 3):
        assert not await sampler.step()
        clock.advance(5)
    await sampler.write()
    await sampler.write()  # there is nothing more

    cpu = GaugeKey("prj_1", "chat", "ver_1", Gauge.CPU)
    now = dict(service.list_now("prj_1", clock.now_us()))
    assert now[cpu] == pytest.approx(0.25)
    assert dict(service.list_now("", clock.now_us())) == {
        GaugeKey("", "", "", Gauge.CPU): pytest.approx(0.5),
        GaugeKey("", "", "", Gauge.MEMORY): pytest.approx(0.4),
    }
    async with database.read(MINE) as tx:
        by_minute = {s.key: s for s in await service.read_series(tx, 0, FOREVER_US, Level.MINUTE)}
        by_hour = {s.key: s for s in await service.read_series(tx, 0, FOREVER_US, Level.HOUR)}
    assert {key.project_id for key in by_minute} == {"prj_1"}
    assert sum(spread.readings for _, spread in by_minute[cpu].points) == 35
    assert 3 <= len(by_minute[cpu].points) <= 4
    assert sum(spread.readings for _, spread in by_hour[cpu].points) == 35
    assert all(spread.mean == pytest.approx(0.25) for _, spread in by_hour[cpu].points)
    assert make_infrastructure_worker(sampler).name == "infrastructure"


async def test_what_was_read_long_ago_is_not_now(
    database: Database, clock: ManualClock, machine: Machine
) -> None:
    service = InfrastructureService()
    sampler = InfrastructureSampler(database, service, machine.list_replicas, machine.look)
    assert not service.list_now("prj_1", clock.now_us())
    await sampler.step()
    assert service.list_now("prj_1", clock.now_us())
    clock.advance(31)
    assert not service.list_now("prj_1", clock.now_us())


async def test_gauges_are_kept_by_age(database: Database, clock: ManualClock) -> None:
    keep = Keep(
        minutes_us=2 * HOUR_S * 1_000_000,
        hours_us=2 * DAY_S * 1_000_000,
        days_us=9 * DAY_S * 1_000_000,
    )
    service = InfrastructureService(keep)
    key = GaugeKey("prj_1", "chat", "ver_1", Gauge.READY)
    for _ in range(20):
        clock.advance(12 * HOUR_S)
        async with database.write(SYSTEM) as tx:
            one = Spread(readings=1, total=2.0, lowest=2.0, highest=2.0)
            await service.record(tx, clock.now_us(), {key: one})
    async with database.read(SYSTEM) as tx:
        counts = {level: len(await store.list_spreads(tx, level, 0, FOREVER_US)) for level in Level}
    assert counts[Level.MINUTE] == 1
    assert 4 <= counts[Level.HOUR] <= 5
    assert 9 <= counts[Level.DAY] <= 10
