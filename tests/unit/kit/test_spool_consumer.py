"""A consumer gets every record of every spool once, whatever happens to it or to the spools."""

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.spool import open_spool
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer, SpoolHealth

LOG = logging.getLogger("pilotage.test")


class Consumer:
    """Keeps what it takes with its places, as one transaction would; fails as often as told.

    ``poison`` are payloads that it can never keep, and ``refusal`` is what it says of them.
    """

    def __init__(self) -> None:
        self.taken: dict[tuple[str, str], list[bytes]] = {}
        self.places: dict[tuple[str, str], int] = {}
        self.failures = 0
        self.poison: set[bytes] = set()
        self.refusal: Exception = OverflowError("too large")

    async def find_place(self, spool: str, epoch: str) -> int:
        return self.places.get((spool, epoch), 0)

    async def take(self, batch: SpoolBatch) -> dict[int, Exception]:
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
async def spools(tmp_path: Path, consumer: Consumer) -> AsyncIterator[SpoolConsumer]:
    made = SpoolConsumer(tmp_path, consumer.find_place, consumer.take, LOG, batch=3)
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


async def test_a_batch_that_could_not_be_taken_comes_again(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a", *letters("1234567"))
    for failures in range(3):
        consumer.failures = failures
        for _ in range(failures):
            assert not await spools.step()
            assert spools.health.held_up == 1
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
    spools = SpoolConsumer(tmp_path, consumer.find_place, take, LOG, batch=3)
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
    spools = SpoolConsumer(tmp_path, consumer.find_place, consumer.take, LOG, batch=batch)
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
    spools = SpoolConsumer(tmp_path, consumer.find_place, take, LOG, batch=3)
    await drain(spools)
    assert spools.health == SpoolHealth(held_up=1, passed_over=0, damaged=0)
    assert spools.taken_until(tmp_path / "a") == 0
    await spools.close()


async def test_what_a_consumer_cannot_read_is_counted_once(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a", *letters("1??2"))
    consumer.failures = 1
    await drain(spools)
    await drain(spools)
    assert spools.health.passed_over == 2
    assert len(caplog.messages) == 1


async def test_a_spool_that_cannot_be_read_holds_no_other_up(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a", b"1")
    (segment,) = (tmp_path / "a").glob("*.seg")
    segment.rename(tmp_path / "kept")
    segment.mkdir()
    put(tmp_path, "b", b"2")
    await drain(spools)
    await drain(spools)
    assert consumer.list_of("b") == [b"2"]
    assert [record.message.split(":")[0] for record in caplog.records] == ["the spool a is held up"]
    segment.rmdir()
    (tmp_path / "kept").rename(segment)
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
    spools = SpoolConsumer(tmp_path, consumer.find_place, consumer.take, LOG, batch=3)
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
