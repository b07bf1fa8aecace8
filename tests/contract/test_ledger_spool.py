"""The ledger from real spool folders: exactly once, whatever happens in between."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from pilotage.core.frames import Begun, Ended, Outcome, encode_frame
from pilotage.core.usage import Usage
from pilotage.finops.service import NO_DRAWS, FinopsService, Recorded
from pilotage.finops.types import LedgerEntry, SpoolPlace
from pilotage.finops.users import Users
from pilotage.finops.worker import LedgerReader, make_ledger_worker
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import list_firsts
from pilotage.kit.worker import Wakeup
from system import poll

BATCH = 4
WEEK_US = 7 * 86_400_000_000


def open_writer(
    root: Path, gateway: str = "gateway-0", segment_bytes: int = 1 << 20
) -> SpoolWriter:
    return open_spool(
        root / gateway, segment_bytes=segment_bytes, reserve_bytes=16_384, sync="none"
    )


def put_call(spool: SpoolWriter, call_id: str, cost_nano: int = 7) -> None:
    begun = make_begun(call_id)
    ended = Ended(
        call_id=call_id,
        at_us=begun.at_us,
        project_id=begun.project_id,
        tenant_id=begun.tenant_id,
        key_id=begun.key_id,
        alias=begun.alias,
        outcome=Outcome.OK,
        status=200,
        usage=Usage(input=1, output=2),
        cost_nano=cost_nano,
        is_estimated=False,
        duration_us=1,
        ttft_us=1,
        chunks=1,
        attempts=1,
    )
    spool.append(encode_frame(begun))
    spool.append_end(encode_frame(ended))


def make_begun(call_id: str, v: int = 1) -> Begun:
    return Begun(
        v=v,
        call_id=call_id,
        at_us=1_700_000_000_000_000,
        project_id="prj",
        tenant_id="ten",
        key_id="key",
        alias="chat",
        wire="openai",
        is_stream=False,
        worst_nano=10,
        snapshot_n=1,
    )


class DeathError(BaseException):
    """The process dies here."""


class DyingService(FinopsService):
    """Does its work and then dies, before the transaction can commit, as often as told."""

    deaths = 1

    async def record(
        self,
        tx: Tx,
        place: SpoolPlace,
        seq: int,
        charges: Sequence[LedgerEntry],
        draws: Mapping[str, Mapping[str, int]] = NO_DRAWS,
    ) -> Recorded:
        recorded = await super().record(tx, place, seq, charges, draws)
        if self.deaths and place.seq:
            self.deaths -= 1
            raise DeathError
        return recorded


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def service(clock: ManualClock) -> FinopsService:
    return FinopsService(clock)


@pytest.fixture
async def reader(
    database: Database, clock: ManualClock, service: FinopsService, root: Path
) -> AsyncIterator[LedgerReader]:
    made = make_reader(database, root, clock, service)
    yield made
    await made.close()


def make_reader(
    database: Database, root: Path, clock: ManualClock, service: FinopsService
) -> LedgerReader:
    users = Users(Vault(open_root_keys(root.parent / "root.key")))
    return LedgerReader(
        database,
        root,
        service=service,
        users=users,
        clock=clock,
        retention_us=WEEK_US,
        batch=BATCH,
    )


async def drain(reader: LedgerReader) -> None:
    while await reader.step():
        pass


async def list_calls(database: Database, service: FinopsService) -> list[str]:
    async with database.read(SYSTEM) as tx:
        return [entry.call_id for entry in await service.list_traffic(tx, 0, 1000)]


async def test_every_end_becomes_one_entry(
    database: Database, reader: LedgerReader, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as one, open_writer(root, "gateway-1") as two:
        for number in range(9):
            put_call(one, f"a{number}")
            put_call(two, f"b{number}")
        await drain(reader)
        put_call(one, "later")
        await drain(reader)

    async with database.read(SYSTEM) as tx:
        entries = await service.list_traffic(tx, 0, 1000)
    expected = {f"{gateway}{number}" for gateway in "ab" for number in range(9)} | {"later"}
    assert len(entries) == 19
    assert {entry.call_id for entry in entries} == expected
    assert {entry.gateway for entry in entries} == {"gateway-0", "gateway-1"}
    assert reader.counts.written == 19


async def test_a_restart_goes_on_where_the_last_commit_was(
    database: Database, clock: ManualClock, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as spool:
        for number in range(6):
            put_call(spool, f"c{number}")
        first = make_reader(database, root, clock, service)
        await first.step()  # one batch of several
        await first.close()
        put_call(spool, "c6")
        second = make_reader(database, root, clock, service)
        await drain(second)
        await second.close()

    assert await list_calls(database, service) == [f"c{number}" for number in range(7)]
    assert (first.counts.written, second.counts.written) == (2, 5)
    assert second.counts.repeated == 0


async def test_a_crash_before_the_commit_repeats_the_batch_and_charges_once(
    database: Database, clock: ManualClock, service: FinopsService, root: Path
) -> None:
    dying = DyingService(clock)
    with open_writer(root) as spool:
        for number in range(6):
            put_call(spool, f"c{number}")
        crashed = make_reader(database, root, clock, dying)
        await crashed.step()
        with pytest.raises(DeathError):
            await crashed.step()  # dies after its inserts
        assert await list_calls(database, service) == ["c0", "c1"]
        await drain(crashed)  # the same process goes on from the database
        await crashed.close()

    assert await list_calls(database, service) == [f"c{number}" for number in range(6)]


async def test_what_cannot_be_read_is_counted_and_blocks_nothing(
    database: Database,
    reader: LedgerReader,
    service: FinopsService,
    root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open_writer(root) as spool, caplog.at_level(logging.ERROR):
        put_call(spool, "c0")
        spool.append(b"no frame at all")
        spool.append(encode_frame(make_begun("newer", v=99)))
        put_call(spool, "too dear", cost_nano=1 << 62)
        put_call(spool, "c1")
        await drain(reader)

    assert await list_calls(database, service) == ["c0", "c1"]
    assert reader.health.passed_over == 3
    (line,) = [line for line in caplog.messages if "passed over" in line]
    assert line.startswith("record 3 of the spool gateway-0 is passed over")


async def test_a_call_that_ends_twice_is_charged_once(
    database: Database, reader: LedgerReader, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as spool:
        for _ in range(3):
            put_call(spool, "c0")
        await drain(reader)

    assert await list_calls(database, service) == ["c0"]
    assert reader.counts.repeated == 2


async def test_damage_is_stepped_over(
    database: Database, reader: LedgerReader, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as spool:
        for number in range(4):
            put_call(spool, f"c{number}")
    (segment,) = (root / "gateway-0").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(b"c1") + 1] ^= 0xFF
    segment.write_bytes(data)

    await drain(reader)  # to the damage
    await drain(reader)  # and behind it

    assert await list_calls(database, service) == ["c0", "c1", "c2", "c3"]
    assert reader.health.damaged == 1


async def test_numbers_given_again_after_a_power_cut_are_read_again(
    database: Database, clock: ManualClock, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as spool:
        for number in range(4):
            put_call(spool, f"c{number}")
    first = make_reader(database, root, clock, service)
    await drain(first)
    await first.close()
    (segment,) = (root / "gateway-0").glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) // 2])  # the disk forgot what was read
    second = make_reader(database, root, clock, service)
    await drain(second)
    await second.close()

    with open_writer(root) as spool:
        for number in range(10):  # their numbers go beyond all that were read
            put_call(spool, f"d{number}")
        third = make_reader(database, root, clock, service)
        await drain(third)
        await third.close()

    calls = await list_calls(database, service)
    assert calls == [*(f"c{n}" for n in range(4)), *(f"d{n}" for n in range(10))]


async def test_a_spool_made_anew_is_read_from_its_start(
    database: Database, reader: LedgerReader, service: FinopsService, root: Path
) -> None:
    with open_writer(root) as spool:
        put_call(spool, "c0")
        await drain(reader)
    for path in (root / "gateway-0").iterdir():
        path.unlink()
    with open_writer(root) as spool:
        put_call(spool, "c1")
        await drain(reader)

    assert await list_calls(database, service) == ["c0", "c1"]


async def test_a_folder_that_cannot_be_read_holds_no_other_up(
    database: Database,
    clock: ManualClock,
    reader: LedgerReader,
    service: FinopsService,
    root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def look() -> int:
        clock.advance(1)
        await drain(reader)
        return reader.health.held_up

    with open_writer(root, "bad") as bad, open_writer(root, "good") as good:
        put_call(bad, "c0")
        put_call(good, "c1")
        (segment,) = (root / "bad").glob("*.seg")
        segment.rename(root / "kept")
        segment.mkdir()
        await poll(look, lambda _: bool(caplog.messages))
        assert await list_calls(database, service) == ["c1"]
        segment.rmdir()
        (root / "kept").rename(segment)
        await poll(look, lambda held_up: not held_up)

    assert await list_calls(database, service) == ["c1", "c0"]
    assert len([line for line in caplog.messages if "is held up" in line]) == 1


async def test_consumed_segments_are_dropped_when_old(
    database: Database, clock: ManualClock, reader: LedgerReader, root: Path
) -> None:
    with open_writer(root, segment_bytes=1024) as spool:
        for number in range(20):
            put_call(spool, f"c{number}")
        before = len(list_firsts(root / "gateway-0"))
        await drain(reader)
        young = len(list_firsts(root / "gateway-0"))
        # files carry the machine's time: the manual clock goes far beyond it
        clock.advance(100 * 365 * 86_400)
        await drain(reader)
        old = len(list_firsts(root / "gateway-0"))

    assert before > 2
    assert (young, old) == (before, 1)


async def test_the_worker_steps_the_reader(
    database: Database, reader: LedgerReader, service: FinopsService, root: Path
) -> None:
    worker = make_ledger_worker(reader, Wakeup())
    with open_writer(root) as spool:
        put_call(spool, "c0")
        assert not await worker._step()

    assert await list_calls(database, service) == ["c0"]
