"""Spools handed in to a real control plane: what is lost on the way, at either end, or twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from control_api import Api, open_api
from pilotage.kit.clock import ManualClock
from pilotage.kit.resources import Background
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import list_firsts, list_spools, read_records, segment_path
from pilotage.runtime.control_link import ControlLink
from pilotage.runtime.spool_shipper import BATCH_RECORDS, PLACE_FILE, SpoolShipper
from raw_spool import read_raw

DAY_US = 86_400_000_000


class Shipping(NamedTuple):
    """A spool, its shipper and the control plane it goes to."""

    api: Api
    clock: ManualClock
    link: ControlLink
    root: Path
    shipper: SpoolShipper

    def open(self, segment_bytes: int = 1 << 20) -> SpoolWriter:
        """Open the spool for writing."""
        return open_spool(
            self.root / "gateway-0", segment_bytes=segment_bytes, reserve_bytes=4096, sync="none"
        )

    def again(self) -> SpoolShipper:
        """Return a shipper as a restart makes it."""
        return SpoolShipper(self.link, self.root, self.clock, DAY_US)

    @property
    def copy(self) -> Path:
        """The copy of the spool at the control plane."""
        (folder,) = list_spools(self.api.folder.spool)
        return folder


@pytest.fixture
async def shipping(tmp_path: Path) -> AsyncIterator[Shipping]:
    async with open_api(tmp_path / "control") as api:
        made = await api.make("/gateways", {"name": "paris"})
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(api.app),
            base_url="http://control",
            headers={"authorization": f"Bearer {made['secret']}"},
        ) as http:
            clock, link, root = ManualClock(), ControlLink(http), tmp_path / "spool"
            shipper = SpoolShipper(link, root, clock, DAY_US)
            yield Shipping(api, clock, link, root, shipper)
            shipper.close()


async def ship_all(shipper: SpoolShipper) -> None:
    while await shipper.step():
        pass


def write(writer: SpoolWriter, count: int) -> None:
    for _ in range(count):
        writer.append(b"record %d" % (writer.seq + 1))


async def test_everything_comes_in_order_in_batches(shipping: Shipping) -> None:
    with shipping.open() as writer:
        write(writer, BATCH_RECORDS + 5)
        await ship_all(shipping.shipper)
        assert read_raw(shipping.copy) == read_raw(writer.folder)
        assert shipping.shipper.get_progress("gateway-0").seq == BATCH_RECORDS + 5
        write(writer, 3)
        await shipping.shipper.step()
        assert read_raw(shipping.copy) == read_raw(writer.folder)


@pytest.mark.parametrize("place", [None, b"nonsense", b'{"epoch":"another","seq":9}'])
async def test_a_place_that_is_lost_costs_nothing_but_time(
    shipping: Shipping, place: bytes | None
) -> None:
    with shipping.open() as writer:
        write(writer, 10)
        await shipping.shipper.step()
        file = writer.folder / PLACE_FILE
        file.unlink() if place is None else file.write_bytes(place)
        write(writer, 2)
        again = shipping.again()
        await again.step()
        again.close()
        assert read_raw(shipping.copy) == read_raw(writer.folder)


async def test_a_control_plane_restored_from_a_backup_gets_the_rest_again(
    shipping: Shipping,
) -> None:
    with shipping.open() as writer:
        write(writer, 10)
        await shipping.shipper.step()
        copy = shipping.copy
        kept = copy.with_name("kept")
        copy.rename(kept)  # the backup knew nothing of it
        write(writer, 2)
        await forget_copies(shipping)
        again = shipping.again()
        await again.step()
        again.close()
        (restored,) = [f for f in list_spools(shipping.api.folder.spool) if f != kept]
        assert read_raw(restored) == read_raw(writer.folder)


async def forget_copies(shipping: Shipping) -> None:
    """Have the control plane look at the disk again, as a restart does: by another life."""
    epoch = "0" * 32
    await shipping.link.find_seq("gateway-0", epoch)
    (folder,) = [f for f in list_spools(shipping.api.folder.spool) if f.name.endswith("0" * 12)]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


async def test_what_was_on_its_way_at_a_stop_is_handed_in_before_the_end(
    shipping: Shipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shipping.open() as writer:
        write(writer, 10)
        under_way = asyncio.Event()

        async def never(*_: object, **__: object) -> int:
            under_way.set()
            return await asyncio.Future()

        with monkeypatch.context() as slow:
            slow.setattr(shipping.link, "ship", never)
            async with Background() as background:
                background.start(shipping.shipper.step(), "step")
                await under_way.wait()
        await shipping.shipper.finish(5)
        assert read_raw(shipping.copy) == read_raw(writer.folder)


async def test_records_lost_here_are_a_hole_there_and_the_rest_comes(
    shipping: Shipping, caplog: pytest.LogCaptureFixture
) -> None:
    with shipping.open(segment_bytes=100) as writer:
        write(writer, 12)
        firsts = list_firsts(writer.folder)
        damaged = segment_path(writer.folder, firsts[1])
        damaged.write_bytes(b"\0" * damaged.stat().st_size)
        await ship_all(shipping.shipper)
        assert "records are missing and cannot be handed in" in caplog.text
        last = shipping.shipper.get_progress("gateway-0").seq
        assert last == 12
        tail = read_records(shipping.copy, firsts[2] - 1, 100)
        assert [seq for seq, _ in tail] == list(range(firsts[2], 13))


async def test_segments_are_removed_only_when_confirmed_and_old(shipping: Shipping) -> None:
    with shipping.open(segment_bytes=100) as writer:
        write(writer, 12)
        segments = list_firsts(writer.folder)
        assert len(segments) > 2
        await shipping.shipper.step()
        assert list_firsts(writer.folder) == segments  # confirmed, but not old
        write(writer, 12)
        more = list_firsts(writer.folder)
        newest_us = max(p.stat().st_mtime_ns for p in writer.folder.glob("*.seg")) // 1000
        shipping.clock.advance((newest_us - shipping.clock.now_us()) / 1e6 + 2 * 86_400)
        again = shipping.again()
        again.get_progress("gateway-0").wait_until_s = shipping.clock.monotonic_s() + 1
        await again.step()  # not its time: nothing is confirmed
        assert list_firsts(writer.folder) == more
        await again.finish(5)
        again.close()
        assert list_firsts(writer.folder) == more[-1:]
        assert len(read_records(shipping.copy, 0, 100)) == 24


async def test_spools_that_are_no_slots_are_left_alone(shipping: Shipping) -> None:
    with open_spool(
        shipping.root / "copy-of-gateway-0", segment_bytes=1000, reserve_bytes=4096, sync="none"
    ) as writer:
        write(writer, 3)
        assert not await shipping.shipper.step()
    assert list_spools(shipping.api.folder.spool) == []


async def test_a_control_plane_that_refuses_is_asked_less_often_and_said_once(
    shipping: Shipping, caplog: pytest.LogCaptureFixture
) -> None:
    with shipping.open() as writer:
        write(writer, 3)
        await shipping.api.make("/gateways/paris:revoke")
        pauses = []
        for _ in range(8):
            await shipping.shipper.step()
            progress = shipping.shipper.get_progress("gateway-0")
            pauses.append(round(progress.wait_until_s - shipping.clock.monotonic_s(), 2))
            shipping.clock.advance(pauses[-1] + 0.001)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0, 3.0]
    assert caplog.text.count("the records of gateway-0 stay here for now") == 1
    assert progress.seq == 0
    lag_us = shipping.clock.now_us() - progress.caught_up_at_us
    assert lag_us == round((sum(pauses) + 8 * 0.001) * 1e6)
