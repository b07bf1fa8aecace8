"""A consumer gets every record of every spool once, whatever happens to it or to the spools."""

import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock, SystemClock
from pilotage.kit.spool import open_spool
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer, SpoolHealth

LOG = logging.getLogger("pilotage.test")


class Consumer:
    """Keeps what it takes with its places, as one transaction would; fails as often as told.

    ``poison`` are payloads that it can never keep, and ``refusal`` is what it says of them.
    """

    def __init__(self) -> None:
        self.taken: dict[tuple[str, str], list[bytes]] = {}
        self.seen: list[list[bytes]] = []
        self.places: dict[tuple[str, str], int] = {}
        self.failures = 0
        self.poison: set[bytes] = set()
        self.refusal: Exception = OverflowError("too large")

    async def find_place(self, spool: str, epoch: str) -> int:
        return self.places.get((spool, epoch), 0)

    async def take(self, batch: SpoolBatch) -> dict[int, Exception]:
        self.seen.append([payload for _, payload in batch.records])
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        if self.poison & {payload for _, payload in batch.records}:
            raise self.refusal
        life = (batch.spool, batch.epoch)
        assert batch.after_seq == self.places.get(life, 0)
        self.taken.setdefault(life, []).extend(payload for _, payload in batch.records)
        self.places[life] = batch.last_seq
        return {seq: ValueError(payload) for seq, payload in batch.records if payload == b"?"}

    def list_of(self, spool: str) -> list[bytes]:
        return [item for life, items in self.taken.items() if life[0] == spool for item in items]


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def spools(
    tmp_path: Path, consumer: Consumer, clock: ManualClock
) -> AsyncIterator[SpoolConsumer]:
    made = SpoolConsumer(tmp_path, consumer.find_place, consumer.take, LOG, batch=3, clock=clock)
    yield made
    await made.close()


def put(root: Path, name: str, *payloads: bytes) -> None:
    with open_spool(root / name, segment_bytes=1 << 20, reserve_bytes=16_384, sync="none") as spool:
        for payload in payloads:
            spool.append(payload)


def letters(text: str) -> list[bytes]:
    return [letter.encode() for letter in text]


async def drain(spools: SpoolConsumer) -> None:
    while await spools.step():
        pass


async def test_batches_follow_one_another(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    put(tmp_path, "a", *letters("12345"))
    put(tmp_path, "b", *letters("67"))
    assert await spools.step()
    assert not await spools.step()
    put(tmp_path, "b", *letters("8"))
    await drain(spools)
    assert consumer.list_of("a") == letters("12345")
    assert consumer.list_of("b") == letters("678")
    assert spools.taken_until(tmp_path / "b") == 3


async def test_a_batch_of_long_records_ends_before_it_is_too_large(
    tmp_path: Path, consumer: Consumer
) -> None:
    payloads = [letter * (5 << 20) for letter in letters("12345")]
    put(tmp_path, "a", *payloads)
    spools = SpoolConsumer(
        tmp_path, consumer.find_place, consumer.take, LOG, batch=1000, clock=SystemClock()
    )
    assert await spools.step()  # more, although it is less than a batch
    await drain(spools)
    await spools.close()
    assert consumer.seen == [payloads[:2], payloads[2:4], payloads[4:]]


async def test_a_spool_that_is_held_up_is_tried_more_and_more_rarely(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer, clock: ManualClock
) -> None:
    put(tmp_path, "a", *letters("12"))
    tried_s = []
    consumer.failures = 9
    while consumer.failures:
        tries = len(consumer.seen)
        assert not await spools.step()
        assert spools.health.held_up == 1
        tried_s += [clock.monotonic_s()] * (len(consumer.seen) - tries)
        clock.advance(0.5)
    assert tried_s == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5]
    put(tmp_path, "a", b"3")
    clock.advance(30)
    assert await spools.step()
    assert consumer.seen == [letters("12")] * 10  # the same, whatever came behind it
    await drain(spools)
    assert consumer.list_of("a") == letters("123")


async def test_what_has_been_held_up_for_long_is_told_apart(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer, clock: ManualClock
) -> None:
    put(tmp_path, "a", b"1")
    consumer.failures = 2
    looks = [spools.is_held_up(within_s=60)]
    for seconds in (59, 1):
        await spools.step()
        looks.append(spools.is_held_up(within_s=60))
        clock.advance(seconds)
    looks.append(spools.is_held_up(within_s=60))
    assert looks == [False, True, True, False]
    assert spools.health.held_up == 1
    await spools.step()
    assert spools.health.held_up == 0
    put(tmp_path, "a", b"2")
    consumer.failures = 1
    await spools.step()
    assert spools.is_held_up(within_s=60)  # anew


async def test_a_folder_of_somebody_else_holds_no_other_up(
    consumer: Consumer, clock: ManualClock
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, user = Path(name), os.geteuid()
        root.chmod(0o755)
        put(root, "b", b"1")
        (root / "a").mkdir(mode=0)
        if user == 0:  # whom no rights bind
            for path in (root / "b", *(root / "b").iterdir()):
                os.chown(path, 65534, 65534)
            os.seteuid(65534)
        spools = SpoolConsumer(root, consumer.find_place, consumer.take, LOG, batch=3, clock=clock)
        try:
            await drain(spools)
            await spools.close()
        finally:
            os.seteuid(user)
    assert consumer.list_of("b") == [b"1"]
    assert spools.health.held_up == 1


async def test_a_batch_that_could_not_be_taken_comes_again(
    tmp_path: Path,
    spools: SpoolConsumer,
    consumer: Consumer,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(tmp_path, "a", *letters("1234567"))
    for failures in range(3):
        consumer.failures = failures
        for _ in range(failures):
            assert not await spools.step()
            assert spools.health.held_up == 1
            clock.advance(1)
        await spools.step()
        assert spools.health.held_up == 0
    assert consumer.list_of("a") == letters("1234567")
    assert caplog.messages == ["the spool a is held up: no"]  # one failure may be a lost race
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("other", ["0", "b"])
async def test_a_spool_whose_batches_fail_holds_no_other_up(
    tmp_path: Path, consumer: Consumer, other: str
) -> None:
    async def take(batch: SpoolBatch) -> dict[int, Exception]:
        if batch.spool == "a":
            raise PilotageError("conflict", "Somebody else was first.")
        return await consumer.take(batch)

    put(tmp_path, "a", *letters("12"))
    put(tmp_path, other, *letters("1234"))
    spools = SpoolConsumer(tmp_path, consumer.find_place, take, LOG, batch=3, clock=SystemClock())
    await drain(spools)
    assert consumer.list_of(other) == letters("1234")
    assert spools.health == SpoolHealth(held_up=1, passed_over=0, damaged=0)
    shutil.rmtree(tmp_path / "a")
    await drain(spools)
    assert spools.health.held_up == 0
    await spools.close()


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_a_record_that_can_never_be_kept_is_passed_over(
    tmp_path: Path, consumer: Consumer, caplog: pytest.LogCaptureFixture, batch: int
) -> None:
    consumer.poison = {b"x", b"y", b"z"}
    put(tmp_path, "a", *letters("x123y45yy6789z"))
    put(tmp_path, "b", *letters("1234"))
    spools = SpoolConsumer(
        tmp_path, consumer.find_place, consumer.take, LOG, batch=batch, clock=SystemClock()
    )
    await spools.step()
    assert consumer.list_of("b")  # beside it, whatever becomes of the other
    await drain(spools)
    await spools.close()
    assert consumer.list_of("a") == letters("123456789")
    assert consumer.list_of("b") == letters("1234")
    assert spools.health == SpoolHealth(held_up=0, passed_over=5, damaged=0)
    (line,) = caplog.messages
    assert line.startswith("record 1 of the spool a is passed over, others are only counted")


async def test_a_refusal_that_was_a_lost_race_costs_no_record(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    consumer.poison, consumer.refusal = {b"1"}, PilotageError("conflict", "It is there.")
    consumer.refusal.__cause__ = sa.exc.IntegrityError("INSERT", {}, Exception())
    put(tmp_path, "a", *letters("12"))
    assert await spools.step()
    assert await spools.step()
    consumer.poison = set()
    await drain(spools)
    assert consumer.list_of("a") == letters("12")
    assert spools.health.passed_over == 0


async def test_nothing_is_passed_over_where_the_place_cannot_be_moved(
    tmp_path: Path, consumer: Consumer
) -> None:
    async def take(_: SpoolBatch) -> dict[int, Exception]:
        raise KeyError("everything fails")

    put(tmp_path, "a", b"1")
    spools = SpoolConsumer(tmp_path, consumer.find_place, take, LOG, batch=3, clock=SystemClock())
    await drain(spools)
    assert spools.health == SpoolHealth(held_up=1, passed_over=0, damaged=0)
    assert spools.taken_until(tmp_path / "a") == 0
    await spools.close()


async def test_what_a_consumer_cannot_read_is_counted_once(
    tmp_path: Path,
    spools: SpoolConsumer,
    consumer: Consumer,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(tmp_path, "a", *letters("1??2"))
    consumer.failures = 1
    await drain(spools)
    clock.advance(1)
    await drain(spools)
    assert spools.health.passed_over == 2
    assert len(caplog.messages) == 1


async def test_a_spool_that_cannot_be_read_holds_no_other_up(
    tmp_path: Path,
    spools: SpoolConsumer,
    consumer: Consumer,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(tmp_path, "a", b"1")
    (segment,) = (tmp_path / "a").glob("*.seg")
    segment.rename(tmp_path / "kept")
    segment.mkdir()
    put(tmp_path, "b", b"2")
    await drain(spools)
    clock.advance(1)
    await drain(spools)
    assert consumer.list_of("b") == [b"2"]
    assert [record.message.split(":")[0] for record in caplog.records] == ["the spool a is held up"]
    segment.rmdir()
    (tmp_path / "kept").rename(segment)
    clock.advance(1)
    await drain(spools)
    assert consumer.list_of("a") == [b"1"]


async def test_another_life_of_a_spool_begins_at_its_beginning(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    put(tmp_path, "a", *letters("123"))
    await drain(spools)
    shutil.rmtree(tmp_path / "a")
    await drain(spools)
    assert spools.taken_until(tmp_path / "a") == 0
    put(tmp_path, "a", *letters("4"))
    await drain(spools)
    assert spools.taken_until(tmp_path / "a") == 1
    shutil.rmtree(tmp_path / "a")
    put(tmp_path, "a", *letters("5"))
    assert spools.taken_until(tmp_path / "a") == 0  # the number was another life's
    await drain(spools)
    assert consumer.list_of("a") == letters("12345")
    assert len(consumer.places) == 3


async def test_reading_goes_on_behind_what_is_missing(tmp_path: Path, consumer: Consumer) -> None:
    with open_spool(tmp_path / "a", segment_bytes=1, reserve_bytes=16_384, sync="none") as spool:
        for payload in letters("123456"):
            spool.append(payload)
    sorted((tmp_path / "a").glob("*.seg"))[2].unlink()
    spools = SpoolConsumer(
        tmp_path, consumer.find_place, consumer.take, LOG, batch=3, clock=SystemClock()
    )
    await drain(spools)  # up to the loss, which the next look finds
    await drain(spools)
    await spools.close()
    assert consumer.list_of("a") == letters("12456")
    assert spools.health.damaged == 1


async def test_what_is_closed_reads_no_more(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    put(tmp_path, "a", *letters("1"))
    await spools.close()
    assert not await spools.step()
    assert not consumer.taken
