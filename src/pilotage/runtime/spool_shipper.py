"""Hands the spools of a gateway that runs apart in to its control plane, each record once.

A place is moved only when the control plane has the records on its disk, and segments are removed
only behind that place. Before records are sent they are forced to disk here: what the control plane
has, a power cut here does not take back and number anew.
"""

import asyncio
import logging
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.files import write_private
from pilotage.kit.spool_copy import pack_records
from pilotage.kit.spool_reader import (
    SpoolDamage,
    SpoolReader,
    drop_segments,
    list_firsts,
    list_spools,
    read_epoch,
    segment_path,
)
from pilotage.runtime.control_link import ControlLink

_LOG = logging.getLogger("pilotage.remote")
BATCH_RECORDS = 2000
DROP_EVERY_S = 60.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
PLACE_FILE = "shipped"
_SLOT = re.compile(r"gateway-\d{1,2}")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """How far a life of a spool has been handed in."""

    epoch: str
    seq: int


@dataclass(slots=True)
class Progress:
    """What is known of a slot: the last record that the control plane has, and since when.

    ``caught_up_at_us`` is when everything there was had last been handed in.
    """

    caught_up_at_us: int
    seq: int = 0
    problem: str = ""
    failures: int = 0
    wait_until_s: float = 0.0
    dropped_at_s: float = 0.0


@dataclass(slots=True)
class _Shipment:
    """One spool being handed in."""

    folder: Path
    reader: SpoolReader
    place: Place
    is_lost_before: bool = False


class SpoolShipper:
    """Follows the spools of the gateway slots below a folder; ``step`` is called for ever."""

    def __init__(self, link: ControlLink, root: Path, clock: Clock, retention_us: int) -> None:
        self._link = link
        self._root = root
        self._clock = clock
        self._retention_us = retention_us
        self._shipments: dict[str, _Shipment] = {}
        self._progress: dict[str, Progress] = {}

    async def step(self) -> bool:
        """Hand in a batch of each spool; return whether one may have more.

        One that fails waits, longer and longer up to 3 s.
        """
        has_more = False
        for folder in list_spools(self._root):
            if _SLOT.fullmatch(folder.name):
                progress = self.get_progress(folder.name)
                if self._clock.monotonic_s() >= progress.wait_until_s:
                    has_more |= await self._try(folder, progress)
        return has_more

    async def finish(self, timeout_s: float) -> None:
        """Hand in what is left, for as long as there is time and an answer."""
        for progress in self._progress.values():
            progress.wait_until_s = 0.0
        try:
            async with asyncio.timeout(timeout_s):
                while await self.step():
                    pass
        except TimeoutError:
            _LOG.warning("not every record was handed in; the next start goes on")

    def get_progress(self, slot: str) -> Progress:
        """Return what is known of a slot."""
        if slot not in self._progress:
            self._progress[slot] = Progress(caught_up_at_us=self._clock.now_us())
        return self._progress[slot]

    def close(self) -> None:
        """Close every file."""
        for slot in list(self._shipments):
            self._forget(slot)

    async def _try(self, folder: Path, progress: Progress) -> bool:
        try:
            has_more = await self._ship_on(folder, progress)
        except (PilotageError, OSError) as failed:
            self._forget(folder.name)
            progress.failures = min(progress.failures + 1, 16)
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**progress.failures)
            progress.wait_until_s = self._clock.monotonic_s() + pause_s
            if str(failed) != progress.problem:
                _LOG.error("the records of %s stay here for now: %s", folder.name, failed)
            progress.problem = str(failed)
            return False
        except BaseException:  # the reader is ahead of what is known to have arrived
            self._forget(folder.name)
            raise
        if progress.problem:
            _LOG.warning("the records of %s are handed in again", folder.name)
        progress.problem, progress.failures = "", 0
        return has_more

    async def _ship_on(self, folder: Path, progress: Progress) -> bool:
        shipment = self._shipments.get(folder.name)
        if shipment is None or shipment.place.epoch != read_epoch(folder):
            self._forget(folder.name)
            shipment = self._shipments[folder.name] = await self._open(folder)
        started_us = self._clock.now_us()
        try:
            records = shipment.reader.read(BATCH_RECORDS)
        except SpoolDamage as damage:
            self._step_over(shipment, damage)
            return True
        if records:
            await self._send(shipment, records)
        progress.seq = shipment.place.seq
        if not shipment.reader.was_cut:
            progress.caught_up_at_us = started_us
        self._drop_old(shipment, progress)
        return bool(records)

    async def _open(self, folder: Path) -> _Shipment:
        """Begin at the stored place, or where the control plane says if it has less or more."""
        epoch = read_epoch(folder)
        place = _read_place(folder, epoch)
        there = await self._link.find_seq(folder.name, epoch)
        if there < place.seq:
            _LOG.warning(
                "the control plane has the records of %s up to %d, and had them up to %d",
                folder.name,
                there,
                place.seq,
            )
            place = Place(epoch=epoch, seq=there)
        firsts = list_firsts(folder)
        is_gone = bool(firsts) and firsts[0] > place.seq + 1
        reader = SpoolReader(folder, place.seq)
        return _Shipment(folder, reader, place, is_lost_before=is_gone)

    async def _send(self, shipment: _Shipment, records: list[tuple[int, bytes]]) -> None:
        body = await asyncio.to_thread(_prepare, shipment.folder, records)
        folder, place = shipment.folder, shipment.place
        seq = await self._link.ship(
            folder.name, place.epoch, records[0][0], body, is_lost_before=shipment.is_lost_before
        )
        if seq < records[-1][0]:
            raise PilotageError("unavailable", f"Only records up to {seq} were taken.")
        shipment.is_lost_before = False
        shipment.place = Place(epoch=place.epoch, seq=records[-1][0])
        write_private(folder / PLACE_FILE, msgspec.json.encode(shipment.place), is_durable=False)

    def _step_over(self, shipment: _Shipment, damage: SpoolDamage) -> None:
        _LOG.error("records are missing and cannot be handed in: %s", damage)
        shipment.reader.close()
        shipment.reader = SpoolReader(shipment.folder, damage.next_seq - 1)
        shipment.is_lost_before = True

    def _drop_old(self, shipment: _Shipment, progress: Progress) -> None:
        now_s = self._clock.monotonic_s()
        if progress.dropped_at_s and now_s - progress.dropped_at_s < DROP_EVERY_S:
            return
        progress.dropped_at_s = now_s
        oldest_us = self._clock.now_us() - self._retention_us
        drop_segments(shipment.folder, shipment.place.seq, oldest_us)

    def _forget(self, slot: str) -> None:
        shipment = self._shipments.pop(slot, None)
        if shipment is not None:
            shipment.reader.close()


def _prepare(folder: Path, records: list[tuple[int, bytes]]) -> bytes:
    """Force records to disk here and return them as they travel."""
    firsts = list_firsts(folder)
    begun_before = [first for first in firsts if first <= records[0][0]]
    for first in firsts:
        if begun_before[-1:] <= [first] and first <= records[-1][0]:
            fd = os.open(segment_path(folder, first), os.O_RDONLY)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
    return zlib.compress(pack_records(records), 1)


def _read_place(folder: Path, epoch: str) -> Place:
    try:
        place = msgspec.json.decode((folder / PLACE_FILE).read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError):
        return Place(epoch=epoch, seq=0)
    return place if place.epoch == epoch else Place(epoch=epoch, seq=0)
