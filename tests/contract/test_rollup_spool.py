"""What calls add up to, from real spool folders: exactly once, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from calls import NOON_US, make_call, open_writer, put_calls
from mortal_database import DeathError, mortal
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.usage import Usage
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.monitoring.rollups import service as rollups
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import Stretch, add_up
from pilotage.monitoring.rollups.service import CallBatch, Fold, RollupService
from pilotage.monitoring.rollups.types import (
    ANYBODY,
    Cell,
    CellKey,
    Dimension,
    Keep,
    Level,
    Marks,
    Selection,
)
from pilotage.monitoring.rollups.worker import CURRENT_S, HELD_UP_S, RollupReader

BATCH = 4
MINUTE_US, HOUR_US, DAY_US = (level.span_us for level in Level)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def reader(database: Database, root: Path, clock: ManualClock) -> AsyncIterator[RollupReader]:
    made = RollupReader(database, root, RollupService(), clock, batch=BATCH)
    yield made
    await made.close()


async def drain(reader: RollupReader) -> None:
    while await reader.step():
        pass


async def read_all(
    database: Database,
    select: Selection = ANYBODY,
    by: tuple[Dimension, ...] = (),
    actor: Actor = SYSTEM,
) -> dict[tuple[str, ...], Cell]:
    async with database.read(actor) as tx:
        return await RollupService().read_cells(tx, select, 0, NOON_US + 3600 * MINUTE_US, by)


async def test_calls_are_told_apart_and_added_up(
    database: Database, reader: RollupReader, root: Path
) -> None:
    calls = [
        make_call(alias="chat", duration_us=200_000),
        make_call(alias="chat", tenant_id="ten_b", duration_us=400_000),
        make_call(alias="code", at_us=NOON_US + MINUTE_US, outcome=Outcome.UPSTREAM_CUT),
        make_call(alias="code", outcome=Outcome.CLIENT_GONE),
        make_call(alias="code", outcome=Outcome.REFUSED, code="rate_limited", duration_us=10),
        make_call(alias="code", flags=["shadow"]),
    ]
    with open_writer(root) as spool:
        put_calls(spool, calls)
    await drain(reader)

    found = await read_all(database, by=(Dimension.ALIAS,))
    assert {labels: cell.calls for labels, cell in found.items()} == {("chat",): 2, ("code",): 3}
    assert found["chat",].duration.mean == 300_000
    assert found["code",].error_rate == 1 / 2
    assert found["code",].codes == {"rate_limited": 1}
    assert found["code",].duration.count == 2
    copies = await read_all(database, Selection(tenant_id=SHADOW_TENANT))
    assert copies[()].calls == 1
    mine = await read_all(database, Selection(tenant_id="ten_b"), (Dimension.TENANT,))
    assert {labels: cell.calls for labels, cell in mine.items()} == {("ten_b",): 1}


async def test_a_project_sees_only_its_own(
    database: Database, reader: RollupReader, root: Path
) -> None:
    with open_writer(root) as spool:
        put_calls(spool, [make_call(), make_call(project_id="prj_other")])
    await drain(reader)
    somebody = Actor(principal_id="usr_1", project_id="prj_other")
    found = await read_all(database, by=(Dimension.PROJECT,), actor=somebody)
    assert {labels: cell.calls for labels, cell in found.items()} == {("prj_other",): 1}


async def test_a_batch_that_fails_is_counted_once(
    database: Database, root: Path, clock: ManualClock
) -> None:
    class Dying:
        deaths = 2
        written: list[int]

        def __init__(self) -> None:
            self.written = []

        async def prepare(self, batch: object) -> None:
            pass

        async def write(self, tx: object) -> None:
            self.written.append(1)
            if len(self.written) % 2 and self.deaths:
                self.deaths -= 1
                raise DeathError

    calls = [make_call(duration_us=n * 1000, at_us=NOON_US + n * 7_000_000) for n in range(23)]
    with open_writer(root) as spool:
        put_calls(spool, calls)
    reader = RollupReader(database, root, RollupService(), clock, sinks=[Dying()], batch=BATCH)
    for _ in range(2):
        with pytest.raises(DeathError):
            await drain(reader)
    await drain(reader)
    await reader.close()
    assert await read_all(database) == {(): add(calls)}


async def test_a_crash_between_any_two_statements_counts_each_call_once(
    database: Database, root: Path, clock: ManualClock
) -> None:
    """Die at the first statement, then at the second and so on, folding and dropping on the way."""
    service = RollupService(Keep(minutes_us=3 * HOUR_US, hours_us=2 * DAY_US))
    clock.advance((NOON_US - clock.now_us()) / 1e6)
    told, deaths, statement = [], 0, 0
    with open_writer(root) as spool, mortal(database) as fate:
        while not statement or deaths == statement:
            statement += 1
            clock.advance(7 * 3600)
            calls = [
                make_call(at_us=clock.now_us() - late * HOUR_US, duration_us=statement * 1000)
                for late in (0, 1, 9, 80)
            ]
            put_calls(spool, calls)
            told += calls
            fate.dies_at = statement
            try:
                await count_all(database, root, clock, service)
            except DeathError:
                deaths += 1
            fate.dies_at = 0
            await count_all(database, root, clock, service)
    assert deaths > 30
    end_us = clock.now_us() + HOUR_US
    async with database.read(SYSTEM) as tx:
        found = await service.read_cells(tx, ANYBODY, 0, end_us)
        counts = await service.read_counts(tx, ANYBODY, 0, end_us)
        series = await service.read_series(tx, ANYBODY, 0, end_us, HOUR_US)
    assert found == {(): add(told)}
    assert counts[()].calls == len(told)
    assert counts[()].cost_nano == found[()].cost_nano
    assert sum(point.cell.calls for point in series[0].points) == len(told)


async def count_all(
    database: Database, root: Path, clock: ManualClock, service: RollupService
) -> None:
    """Count what is there, as a process that has just started."""
    reader = RollupReader(database, root, service, clock, batch=BATCH)
    try:
        await drain(reader)
    finally:
        await reader.close()


async def test_two_readers_of_a_spool_do_not_count_it_twice(
    database: Database, root: Path, clock: ManualClock
) -> None:
    readers = [RollupReader(database, root, RollupService(), clock, batch=BATCH) for _ in range(2)]
    with open_writer(root) as spool:
        put_calls(spool, [make_call() for _ in range(3)])
        await readers[0].step()
        await readers[1].step()  # both know where the spool is read up to
        put_calls(spool, [make_call() for _ in range(3)])
        await readers[0].step()
        await readers[1].step()  # whose place another has moved, and who finds that out
        assert readers[1].health.held_up == 1
        clock.advance(1)
        await readers[1].step()
        assert readers[1].health.held_up == 0
    for reader in readers:
        await reader.close()
    assert (await read_all(database))[()].calls == 6


async def test_two_processes_do_not_fold_at_once(database: Database, clock: ManualClock) -> None:
    async with database.write(SYSTEM) as tx:
        assert await store.move_marks(tx, Marks(), Marks(hours_until_us=HOUR_US))
    async with database.write(SYSTEM) as tx:
        assert not await store.move_marks(tx, Marks(), Marks(hours_until_us=HOUR_US))
        await tx.conn.rollback()
    async with database.write(SYSTEM) as tx:
        late = Marks(hours_until_us=2 * HOUR_US)
        assert not await store.move_marks(tx, late, Marks(hours_until_us=3 * HOUR_US))
    async with database.read(SYSTEM) as tx:
        assert await store.find_marks(tx) == Marks(hours_until_us=HOUR_US)


async def test_a_frame_that_cannot_be_counted_is_passed_over(
    database: Database, reader: RollupReader, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_writer(root) as spool:
        spool.append(b"nonsense")
        put_calls(spool, [make_call(cost_nano=-1), make_call(at_us=-1), make_call()])
    await drain(reader)
    assert reader.health.passed_over == 3
    assert reader.is_current
    assert (await read_all(database))[()].calls == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # only the first is told


async def test_a_spool_of_absurd_numbers_stops_no_other(
    database: Database, reader: RollupReader, root: Path
) -> None:
    with open_writer(root) as spool:
        absurd = [make_call(snapshot_n=2**63), make_call(status=2**31)]
        put_calls(spool, [make_call(usage=Usage(output=10**16)), *absurd])
    (root / "gateway-0").rename(root / "a-gateway")
    with open_writer(root) as spool:
        put_calls(spool, [make_call()])
    await drain(reader)
    assert (await read_all(database))[()].calls == 1
    assert reader.health.passed_over == 3
    assert reader.read_until(root / "a-gateway") == 3


@pytest.mark.parametrize("seqs", [[2**70], [-1, -1]], ids=["too large", "there already"])
async def test_a_record_that_no_table_can_hold_is_passed_over(
    database: Database, root: Path, clock: ManualClock, seqs: list[int]
) -> None:
    class Choosy:
        async def prepare(self, batch: CallBatch) -> None:
            self.is_bad = any(call.feature == "poison" for _, call in batch.ended)

        async def write(self, tx: Tx) -> None:
            for seq in seqs if self.is_bad else ():
                await tx.insert(store.ROLLUP_CURSOR, spool="poison", epoch="e", seq=seq)

    with open_writer(root) as spool:
        features = ["", "poison", "", "", "", "poison", ""]
        put_calls(spool, [make_call(feature=feature) for feature in features])
    reader = RollupReader(database, root, RollupService(), clock, sinks=[Choosy()], batch=BATCH)
    await drain(reader)
    await reader.close()
    assert (await read_all(database))[()].calls == 5
    assert reader.health.passed_over == 2
    assert reader.is_current


async def test_nothing_is_current_while_a_spool_is_held_up_unless_for_long(
    database: Database, reader: RollupReader, root: Path, clock: ManualClock
) -> None:
    with open_writer(root) as spool:
        put_calls(spool, [make_call()])
    (segment,) = (root / "gateway-0").glob("*.seg")
    kept = segment.rename(root / "kept")
    segment.mkdir()
    looks = [reader.is_current]
    for seconds in (HELD_UP_S - 1, 1):
        await drain(reader)
        looks.append(reader.is_current)
        clock.advance(seconds)
    await drain(reader)  # not about this spool any more
    looks.append(reader.is_current)
    assert (reader.health.held_up, looks) == (1, [False, False, False, True])
    segment.rmdir()
    kept.rename(segment)
    clock.advance(30)
    assert not reader.is_current
    await drain(reader)
    assert (reader.health.held_up, reader.is_current) == (0, True)
    clock.advance(CURRENT_S)
    assert not reader.is_current


async def test_processes_that_add_to_the_same_cell_lose_nothing(
    database: Database, clock: ManualClock
) -> None:
    service, rounds = RollupService(), 10

    async def count(spool: str) -> None:
        for seq in range(1, rounds + 1):
            batch = SpoolBatch(spool=spool, epoch="e", after_seq=seq - 1, last_seq=seq, records=[])
            async with database.write(SYSTEM) as tx:
                await service.record(tx, batch, add_up([make_call(at_us=NOON_US)]))

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(count(f"gateway-{number}"))
    assert (await read_all(database))[()].calls == 3 * rounds


async def test_an_hour_that_changes_while_it_is_folded_is_read_again(
    database: Database, clock: ManualClock
) -> None:
    service = RollupService()
    clock.advance((NOON_US + 2 * HOUR_US - clock.now_us()) / 1e6)
    seq = 0

    async def count() -> None:
        nonlocal seq
        seq += 1
        batch = SpoolBatch(spool="a", epoch="e", after_seq=seq - 1, last_seq=seq, records=[])
        async with database.write(SYSTEM) as tx:
            await service.record(tx, batch, add_up([make_call(flags=["shadow"]), make_call()]))

    async def prepare() -> Fold | None:
        async with database.read(SYSTEM) as tx:
            return await service.prepare_fold(tx)

    await count()
    early = await prepare()
    assert early is not None
    await count()
    with pytest.raises(PilotageError, match="counted calls meanwhile"):
        async with database.write(SYSTEM) as tx:
            await service.write_fold(tx, early)
    first, second = await prepare(), await prepare()
    assert first is not None
    assert second is not None
    async with database.write(SYSTEM) as tx:
        await service.write_fold(tx, first)
    with pytest.raises(PilotageError, match="folded by another process"):
        async with database.write(SYSTEM) as tx:
            await service.write_fold(tx, second)
    async with database.read(SYSTEM) as tx:
        assert sum(cell.calls for _, _, cell in await list_level(tx, Level.HOUR)) == 4
    await count()  # late, and counted in the hour as well
    async with database.read(SYSTEM) as tx:
        assert sum(cell.calls for _, _, cell in await list_level(tx, Level.HOUR)) == 6


async def test_asks_for_too_much_are_refused_before_they_are_read(
    database: Database, reader: RollupReader, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer(root) as spool:
        times = range(NOON_US, NOON_US + 9 * MINUTE_US, MINUTE_US)
        put_calls(spool, [make_call(at_us=at, tenant_id=t) for at in times for t in ("a", "b")])
    await drain(reader)
    service, span = RollupService(), (NOON_US, NOON_US + HOUR_US)
    monkeypatch.setattr(rollups, "MOST_READ", 10)
    monkeypatch.setattr(rollups, "MOST_SHOWN", 10)
    async with database.read(SYSTEM) as tx:
        await service.check_size(tx, Selection(tenant_id="a"), *span, MINUTE_US)
        with pytest.raises(PilotageError) as refused:
            await service.check_size(tx, ANYBODY, *span, MINUTE_US)
        assert refused.value.code == "query_too_large"
        await service.read_series(tx, ANYBODY, *span, MINUTE_US)
        with pytest.raises(PilotageError, match="more than 10 points"):
            await service.read_series(tx, ANYBODY, *span, MINUTE_US, [Dimension.TENANT])


async def test_missing_records_are_stepped_over(
    database: Database, reader: RollupReader, root: Path
) -> None:
    with open_writer(root, segment_bytes=1) as spool:  # a segment for each record
        put_calls(spool, [make_call() for _ in range(10)])
    damaged = sorted((root / "gateway-0").glob("*.seg"))[4]
    damaged.unlink()
    await drain(reader)
    assert (await read_all(database))[()].calls == 9
    assert reader.read_until(root / "gateway-0") == 10
    assert reader.read_until(root / "gateway-1") == 0


async def test_cells_are_kept_by_age(
    database: Database, reader: RollupReader, root: Path, clock: ManualClock
) -> None:
    clock.advance((NOON_US - clock.now_us()) / 1e6)
    ages = {
        "minutes": 3 * HOUR_US,
        "hours": 5 * DAY_US,
        "days": 200 * DAY_US,
        "gone": 1200 * DAY_US,
    }
    with open_writer(root) as spool:
        put_calls(
            spool,
            [make_call(at_us=NOON_US - age, alias=name) for name, age in ages.items()],
        )
    await drain(reader)
    async with database.read(SYSTEM) as tx:
        found = {level: {key.alias for _, key, _ in await list_level(tx, level)} for level in Level}
    assert found == {
        Level.MINUTE: {"minutes"},
        Level.HOUR: {"minutes", "hours"},
        Level.DAY: {"hours", "days"},
    }


async def test_a_step_of_an_hour_is_an_hour_long(
    database: Database, reader: RollupReader, root: Path
) -> None:
    with open_writer(root) as spool:
        times = (0, 59 * MINUTE_US, 61 * MINUTE_US)
        put_calls(spool, [make_call(at_us=NOON_US + time_us) for time_us in times])
    await drain(reader)
    async with database.read(SYSTEM) as tx:
        series = await RollupService().read_series(
            tx, ANYBODY, NOON_US, NOON_US + 2 * HOUR_US, HOUR_US, [Dimension.ARM]
        )
    assert [one.labels for one in series] == [("stable",)]
    points = [(point.at_us, point.cell.calls) for point in series[0].points]
    assert points == [(NOON_US, 2), (NOON_US + HOUR_US, 1)]


def add(calls: list[Ended]) -> Cell:
    cell = Cell()
    for call in calls:
        cell.add(call)
    return cell


async def list_level(tx: Tx, level: Level) -> Sequence[tuple[int, CellKey, Cell]]:
    pages = store.stream_cells(tx, Stretch(level, 0, 2 * NOON_US), None)
    return [cell async for page in pages for cell in page]
