"""Single calls in Parquet: each exactly once, merged without a loss, dropped when they are old."""

import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import duckdb
import msgspec
import pytest

from calls import NOON_US, make_call, open_writer, put_calls
from pilotage.core.frames import Ended, Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.monitoring.calls import store
from pilotage.monitoring.calls.columns import make_row
from pilotage.monitoring.calls.parquet import SegmentWriter, read_files
from pilotage.monitoring.calls.rules import DAY_US, FAN_IN, SETTLED_US
from pilotage.monitoring.calls.service import GRACE_US, CallSegments
from pilotage.monitoring.rollups.service import CallBatch, RollupService
from pilotage.monitoring.rollups.types import ANYBODY, OTHER
from pilotage.monitoring.rollups.worker import RollupReader
from spool_counter import hold_nothing

BATCH = 4
KEEP_US = 400 * DAY_US


async def label_users(_: Tx, named: Collection[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    return {(tenant, user): f"token of {user}" for tenant, _, user in named}


async def hold_all(_: Tx) -> bool:
    return True


@pytest.fixture
async def segments(
    database: Database, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[CallSegments]:
    made = CallSegments(database, tmp_path / "calls", clock, label_users=label_users)
    yield made
    await made.close()


async def read_spools(
    database: Database, root: Path, segments: CallSegments, clock: ManualClock
) -> None:
    """Read every spool to its end, like a process that was just started."""
    reader = RollupReader(
        database, root / "spool", RollupService(), clock, sinks=[segments], batch=BATCH
    )
    try:
        while await reader.step():
            pass
    finally:
        await reader.close()


def write_calls(root: Path, calls: list[Ended], gateway: str = "gateway-0") -> None:
    with open_writer(root / "spool", gateway) as spool:
        put_calls(spool, calls)


async def list_paths(database: Database, segments: CallSegments) -> list[Path]:
    async with database.read(SYSTEM) as tx:
        return [segments.folder / item.name for item in await store.list_living(tx)]


async def ask(database: Database, segments: CallSegments, what: str) -> list[tuple[object, ...]]:
    """Return columns of every row that is listed, in the order of the spools."""
    files = list(map(str, await list_paths(database, segments)))
    with duckdb.connect() as connection:
        query = f"SELECT {what} FROM {read_files(files)} ORDER BY spool, seq"
        return connection.execute(query).fetchall()


async def test_a_call_is_a_row_with_all_that_its_frame_says(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    odd = 'a "model"\n\x00 \\u0000 \N{GRINNING FACE}, {'
    calls = [
        make_call(call_id="call_1", user="ada", model=odd, flags=["retried", "fell_back"]),
        make_call(call_id="call_2", ttft_us=-1, queue_us=-1, cost_nano=10**13 - 1),
        make_call(call_id="call_3", user="ada", key_id="key", flags=["shadow"]),
    ]
    write_calls(tmp_path, calls)
    await read_spools(database, tmp_path, segments, clock)

    assert await ask(database, segments, "seq, spool, call_id, epoch_us(ended_at), user_token") == [
        (1, "gateway-0", "call_1", NOON_US, "token of ada"),
        (2, "gateway-0", "call_2", NOON_US, ""),
        (3, "gateway-0", "call_3", NOON_US, ""),
    ]
    assert await ask(database, segments, "model, flags, ttft_us, queue_us, cost_nano") == [
        (odd.replace("\x00", "\ufffd"), ["retried", "fell_back"], 100_000, 0, 1000),
        ("smollm2", [], None, None, 10**13 - 1),
        ("smollm2", ["shadow"], 100_000, 0, 1000),
    ]
    assert await ask(database, segments, "tenant_id, key_id, is_shadow") == [
        ("ten_a", "key", False),
        ("ten_a", "key", False),
        (SHADOW_TENANT, "", True),
    ]


async def test_a_model_that_there_is_not_is_not_written_down(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    refused = make_call(alias="ada's birthday", outcome=Outcome.REFUSED, arm="")
    unknown = msgspec.structs.replace(refused, code="model_not_found")
    write_calls(tmp_path, [refused, unknown])
    await read_spools(database, tmp_path, segments, clock)

    assert await ask(database, segments, "alias") == [("ada's birthday",), (OTHER,)]


async def test_projects_have_files_of_their_own(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    calls = [make_call(), make_call(project_id="prj_other"), make_call(project_id="../prj")]
    write_calls(tmp_path, calls)
    await read_spools(database, tmp_path, segments, clock)

    folders = {path.parent for path in await list_paths(database, segments)}
    assert folders == {segments.folder / name for name in ("prj", "prj_other", "..%2Fprj")}


async def test_whatever_dies_in_between_each_call_is_kept_once(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    class Dying:
        """A sink behind the segments that fails in every second transaction."""

        writes = 0

        async def prepare(self, batch: object) -> None:
            pass

        async def write(self, tx: object) -> None:
            Dying.writes += 1
            if Dying.writes % 2:
                raise RuntimeError("the process dies here")

    calls = [make_call(call_id=f"call_{n}") for n in range(23)]
    write_calls(tmp_path, calls)
    for _ in range(20):
        dying = CallSegments(database, segments.folder, clock, label_users=label_users)
        reader = RollupReader(
            database,
            tmp_path / "spool",
            RollupService(),
            clock,
            sinks=[dying, Dying()],
            batch=BATCH,
        )
        while await reader.step():
            pass
        await reader.close()
        await dying.close()

    kept = await ask(database, segments, "call_id, seq")
    assert kept == [(f"call_{n}", n + 1) for n in range(23)]
    orphans = set(segments.folder.glob("*/*")) - set(await list_paths(database, segments))
    assert orphans
    for path in orphans:
        os.utime(path, ns=(0, 0))
    await segments.sweep(KEEP_US, is_held=hold_nothing)
    assert not [path for path in orphans if path.exists()]
    assert await ask(database, segments, "call_id, seq") == kept


async def test_a_batch_that_comes_again_has_its_files_already(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    class Away:
        """A sink behind the segments whose database is away for some time."""

        tries = 0

        async def prepare(self, _: CallBatch) -> None:
            pass

        async def write(self, _: Tx) -> None:
            self.tries += 1
            if self.tries <= 9:
                raise OSError("the database is away")

    away = Away()
    reader = RollupReader(
        database, tmp_path / "spool", RollupService(), clock, sinks=[segments, away], batch=BATCH
    )
    for gateway in ("gateway-0", "gateway-1"):
        write_calls(tmp_path, [make_call(), make_call(project_id="prj_other")], gateway)
    for _ in range(5):
        await reader.step()
        write_calls(tmp_path, [make_call()])  # while it waits
        clock.advance(30)
    assert away.tries == 10
    assert len(list(segments.folder.glob("*/*"))) == 4
    for path in segments.folder.glob("*/*"):
        os.utime(path, ns=(0, 0))
    await segments.sweep(KEEP_US, is_held=hold_nothing)
    while await reader.step():
        pass
    clock.advance(30)
    while await reader.step():
        pass
    await reader.close()
    assert await ask(database, segments, "spool, seq, project_id") == [
        ("gateway-0", 1, "prj"),
        ("gateway-0", 2, "prj_other"),
        *(("gateway-0", seq, "prj") for seq in range(3, 8)),
        ("gateway-1", 1, "prj"),
        ("gateway-1", 2, "prj_other"),
    ]
    paths = await list_paths(database, segments)
    assert sorted(segments.folder.glob("*/*")) == sorted(paths)


async def test_merging_loses_nothing_and_keeps_files_few(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    clock.advance((NOON_US - clock.now_us()) / 1e6)
    calls = [
        make_call(call_id=f"call_{n}", at_us=NOON_US + n * 1000, model=f"m{n % 3}")
        for n in range(BATCH * (FAN_IN + 2))
    ]
    write_calls(tmp_path, calls)
    await read_spools(database, tmp_path, segments, clock)
    before = await ask(database, segments, "*")
    assert len(await list_paths(database, segments)) == FAN_IN + 2

    while await segments.merge_next():
        pass
    assert len(await list_paths(database, segments)) == 3
    assert await ask(database, segments, "*") == before
    assert len(list(segments.folder.glob("*/*"))) == FAN_IN + 3  # a query may read the old ones

    clock.advance((DAY_US + SETTLED_US) / 1e6)
    while await segments.merge_next():
        pass
    assert len(await list_paths(database, segments)) == 1
    assert await ask(database, segments, "*") == before

    clock.advance(GRACE_US / 1e6 + 1)
    for path in segments.folder.glob("*/*"):
        os.utime(path, ns=(0, 0))
    await segments.sweep(KEEP_US, is_held=hold_nothing)
    assert list(segments.folder.glob("*/*")) == await list_paths(database, segments)


async def test_a_damaged_file_is_merged_with_no_other_and_holds_up_none(
    database: Database,
    tmp_path: Path,
    segments: CallSegments,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = BATCH * (FAN_IN + 1)
    for project in ("prj_a", "prj_b"):
        write_calls(tmp_path, [make_call(project_id=project) for _ in range(count)], project)
    await read_spools(database, tmp_path, segments, clock)
    broken, gone, *_ = sorted((segments.folder / "prj_a").iterdir())
    content = broken.read_bytes()
    broken.write_bytes(content[:-8] + bytes(8))
    gone.rename(gone.with_suffix(".away"))

    clock.advance((DAY_US + SETTLED_US) / 1e6)
    while await segments.merge_next():
        pass

    left = {path.parent.name: path for path in await list_paths(database, segments)}
    assert len(await list_paths(database, segments)) == 4
    assert left.keys() == {"prj_a", "prj_b"}
    assert [broken.name in line for line in caplog.messages] == [True]

    broken.write_bytes(content)
    gone.with_suffix(".away").rename(gone)
    await segments.sweep(KEEP_US, is_held=hold_nothing)
    while await segments.merge_next():
        pass
    assert await ask(database, segments, "project_id") == [
        (project,) for project in ("prj_a", "prj_b") for _ in range(count)
    ]
    assert len(await list_paths(database, segments)) == 2


async def test_a_time_that_is_over_takes_its_calls_and_no_others_from_disk(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    clock.advance((NOON_US + 10 * DAY_US - clock.now_us()) / 1e6)
    times = [NOON_US + days * DAY_US for days in (0, 1, 9)] + [2 * NOON_US]
    write_calls(tmp_path, [make_call(at_us=at_us, call_id=f"{at_us}") for at_us in times])
    await read_spools(database, tmp_path, segments, clock)
    while await segments.merge_next():
        pass

    kept = await ask(database, segments, "epoch_us(ended_at)")
    assert kept == [(at_us,) for at_us in [*times[:3], clock.now_us()]]
    await segments.sweep(9 * DAY_US, is_held=hold_nothing)
    assert await ask(database, segments, "epoch_us(ended_at)") == kept[1:]
    clock.advance(9 * DAY_US / 1e6 + 1)
    await segments.sweep(9 * DAY_US, is_held=hold_nothing)
    assert await list_paths(database, segments) == []


async def test_a_file_of_a_transaction_that_is_on_its_way_is_not_swept_up(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    class Sweeping:
        """A sink behind the segments that sweeps before they are listed, after a clock was set."""

        async def prepare(self, _: CallBatch) -> None:
            for path in segments.folder.glob("*/*"):
                os.utime(path, ns=(0, 0))
            await segments.sweep(KEEP_US, is_held=hold_nothing)

        async def write(self, tx: Tx) -> None:
            pass

    write_calls(tmp_path, [make_call()])
    reader = RollupReader(
        database, tmp_path / "spool", RollupService(), clock, sinks=[segments, Sweeping()]
    )
    await reader.step()
    await reader.close()
    assert await ask(database, segments, "seq") == [(1,)]


async def test_a_writer_goes_on_after_whatever_it_could_not_write(tmp_path: Path) -> None:
    row = make_row(1, "s", "e", make_call(), "")
    with SegmentWriter() as writer:
        for unfit in ({"seq": 2**63}, {"model": "x" * (33 << 20)}):  # of no size, and too large
            with pytest.raises(ValueError, match="cannot be written"):
                writer.write(tmp_path / "a.parquet", [msgspec.structs.replace(row, **unfit)])
        (tmp_path / "folder").write_text("no folder")
        with pytest.raises(OSError, match="folder"):
            writer.write(tmp_path / "folder" / "a.parquet", [row])
        assert writer.write(tmp_path / "a.parquet", [row]) > 0


async def test_calls_are_kept_as_long_as_they_should_be(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    clock.advance((NOON_US + KEEP_US - clock.now_us()) / 1e6)
    write_calls(tmp_path, [make_call(at_us=NOON_US - 1)], "old")
    write_calls(tmp_path, [make_call(at_us=NOON_US)], "young")
    await read_spools(database, tmp_path, segments, clock)

    await segments.sweep(KEEP_US, is_held=hold_all)
    assert await ask(database, segments, "spool") == [("old",), ("young",)]
    await segments.sweep(KEEP_US, is_held=hold_nothing)
    assert await ask(database, segments, "spool") == [("young",)]


async def test_where_calls_cannot_be_kept_they_are_not_counted_and_not_lost(
    database: Database, tmp_path: Path, segments: CallSegments, clock: ManualClock
) -> None:
    write_calls(tmp_path, [make_call(call_id=f"call_{n}") for n in range(6)])
    segments.folder.write_text("no folder")
    await read_spools(database, tmp_path, segments, clock)
    async with database.read(SYSTEM) as tx:
        assert await RollupService().read_cells(tx, ANYBODY, 0, 2 * NOON_US) == {}

    segments.folder.unlink()
    await read_spools(database, tmp_path, segments, clock)
    assert len(await ask(database, segments, "call_id")) == 6
