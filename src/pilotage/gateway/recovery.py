"""Take over the spool of a dead process: end its calls, and work out what its owner used.

Every Begun gets exactly one Ended, and every counter the sum of the Ended frames that name it.
"""

import logging
from pathlib import Path

import msgspec

from pilotage.core.frames import Begun, Ended, Outcome, decode_frame, encode_frame, make_lost
from pilotage.core.seeds import name_owner
from pilotage.gateway.counters.checkpoint import (
    WIDENED_FILE,
    Checkpoint,
    charge,
    read_checkpoint,
    read_widened,
    write_checkpoint,
)
from pilotage.kit.spool import SpoolWriter
from pilotage.kit.spool_reader import (
    SpoolDamage,
    SpoolReader,
    find_last_seq,
    is_held,
    read_epoch,
    read_floor,
)

_RECORDS_AT_ONCE = 4096

_log = logging.getLogger(__name__)


class Recovered(msgspec.Struct, frozen=True):
    """How many calls had been left open, and where the owner's counters stand now."""

    lost: int
    counters: Checkpoint


def recover_spool(writer: SpoolWriter, folder: Path, now_us: int) -> Recovered:
    """End each call without an end as lost, at its worst case, and sum up the counters.

    Whoever got the dead process's spool calls this before it records calls of its own. A second
    run finds nothing to do. Frames of a newer program are left alone, and the floor stays below
    them, so that the newer program can still end those calls.
    """
    last = _read_last(folder)
    found = _read_on(folder, read_floor(folder), last, writer.seq)
    for begun in found.calls.values():
        ended = make_lost(begun, now_us)
        writer.append_end(encode_frame(ended))
        charge(found.totals, ended, begun)
    if found.unread:
        _log.warning(
            "%s: %d call frames could not be read (a newer program's?); the first is number %d",
            folder,
            found.unread,
            found.first_unread_seq,
        )
    counters = Checkpoint(
        owner=last.owner,
        life=max(last.life + 1, now_us),
        seq=writer.seq,
        peers=last.peers,
        totals=found.totals,
    )
    # What waits in memory dies with the process, and tokens of lost calls are in their Begun only:
    # whatever is not written down now must be found again.
    if not writer.pending and write_checkpoint(folder, counters, is_durable=True):
        (folder / WIDENED_FILE).unlink(missing_ok=True)
        writer.set_floor(found.first_unread_seq or writer.seq + 1)
    return Recovered(len(found.calls), counters)


def sum_up_stopped(folder: Path, now_us: int) -> Checkpoint | None:
    """Return what the owner of a spool would say if it started now; None while it runs.

    Nothing is written: whoever takes the spool over comes to the same sums.
    """
    if is_held(folder):
        return None
    last = _read_last(folder)
    last_seq = find_last_seq(folder)
    found = _read_on(folder, read_floor(folder), last, last_seq)
    for begun in found.calls.values():
        charge(found.totals, make_lost(begun, now_us), begun)
    if is_held(folder):  # it started meanwhile: an open call of its own is not lost
        return None
    return msgspec.structs.replace(last, seq=last_seq, totals=found.totals)


def end_lost_calls(writer: SpoolWriter, folder: Path, now_us: int) -> int:
    """Do as :func:`recover_spool` and return how many calls had been left open."""
    return recover_spool(writer, folder, now_us).lost


class _Found:
    """The calls without an end, what has been used, and the frames that say nothing to us."""

    def __init__(self, floor: int, last: Checkpoint, widened: dict[str, tuple[int, int]]) -> None:
        self.calls: dict[str, Begun] = {}
        self.totals = dict(last.totals)
        self.unread = 0
        self.first_unread_seq = 0
        self._floor = floor
        self._summed_seq = last.seq
        self._widened = widened

    def take(self, seq: int, payload: bytes) -> None:
        try:
            frame = decode_frame(payload)
        except ValueError:
            self.unread += 1
            self.first_unread_seq = self.first_unread_seq or seq
            return
        if isinstance(frame, Begun):
            if seq < self._floor:  # it has ended, whether or not the end can still be read
                return
            self.calls[frame.call_id] = self._widen(frame)
            return
        if not isinstance(frame, Ended):
            return
        begun = self.calls.pop(frame.call_id, None)
        if seq > self._summed_seq:
            charge(self.totals, frame, begun if _is_lost(frame) else None)

    def _widen(self, begun: Begun) -> Begun:
        nano, tokens = self._widened.get(begun.call_id, (0, 0))
        if not nano and not tokens:
            return begun
        return msgspec.structs.replace(
            begun, worst_nano=begun.worst_nano + nano, worst_tokens=begun.worst_tokens + tokens
        )


def _read_last(folder: Path) -> Checkpoint:
    """Return the checkpoint of this life of a spool, an empty one if there is none."""
    owner = name_owner(folder.name, read_epoch(folder).strip())
    last = read_checkpoint(folder)
    return last if last and last.owner == owner else Checkpoint(owner=owner, life=0, seq=0)


def _is_lost(ended: Ended) -> bool:
    return ended.outcome is Outcome.LOST


def _read_on(folder: Path, floor: int, last: Checkpoint, last_seq: int) -> _Found:
    """Read from the oldest call that may be open, or from the checkpoint if that is older."""
    found = _Found(floor, last, read_widened(folder))
    if last.seq > last_seq:  # a power cut took records whose charges the checkpoint holds
        last = msgspec.structs.replace(last, seq=last_seq)
    after = max(min(floor - 1, last.seq), 0)
    while after < last_seq:
        try:
            with SpoolReader(folder, after) as reader:
                while records := reader.read(_RECORDS_AT_ONCE):
                    for after, payload in records:
                        found.take(after, payload)
                return found
        except SpoolDamage as damage:
            # An end lost in there makes its call count at its worst case: never too cheap.
            _log.error("%s", damage)
            after = damage.next_seq - 1
    return found
