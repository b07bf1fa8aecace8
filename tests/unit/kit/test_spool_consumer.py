"""A consumer gets every record of every spool once, whatever happens to it or to the spools."""

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.kit.spool import open_spool
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer

LOG = logging.getLogger("pilotage.test")


class Consumer:
    """Keeps what it takes with its places, as one transaction would; fails as often as told."""

    def __init__(self) -> None:
        self.taken: dict[tuple[str, str], list[bytes]] = {}
        self.places: dict[tuple[str, str], int] = {}
        self.failures = 0

    async def find_place(self, spool: str, epoch: str) -> int:
        return self.places.get((spool, epoch), 0)

    async def take(self, batch: SpoolBatch) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        life = (batch.spool, batch.epoch)
        assert batch.after_seq == self.places.get(life, 0)
        self.taken.setdefault(life, []).extend(payload for _, payload in batch.records)
        self.places[life] = batch.last_seq

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
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    put(tmp_path, "a", *letters("1234567"))
    for failures in range(3):
        consumer.failures = failures
        for _ in range(failures):
            with pytest.raises(RuntimeError, match="no"):
                await spools.step()
        await spools.step()
    assert consumer.list_of("a") == letters("1234567")


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
    put(tmp_path, "a", *letters("45"))
    await drain(spools)
    assert consumer.list_of("a") == letters("12345")
    assert len(consumer.places) == 2


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
    assert spools.damaged == 1


async def test_what_is_closed_reads_no_more(
    tmp_path: Path, spools: SpoolConsumer, consumer: Consumer
) -> None:
    put(tmp_path, "a", *letters("1"))
    await spools.close()
    assert not await spools.step()
    assert not consumer.taken
