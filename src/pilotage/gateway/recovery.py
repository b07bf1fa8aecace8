"""End the calls that a dead process left open, so that every Begun has exactly one Ended."""

import logging
from pathlib import Path

import msgspec

from pilotage.core.frames import Begun, decode_frame, encode_frame, make_lost
from pilotage.kit.spool import SpoolWriter
from pilotage.kit.spool_reader import SpoolDamage, SpoolReader, read_floor

_RECORDS_AT_ONCE = 4096

_log = logging.getLogger(__name__)


def end_lost_calls(writer: SpoolWriter, folder: Path, now_us: int) -> int:
    """End each call without an end as lost, at its worst case; return how many there were.

    Whoever got the dead process's spool calls this before it records calls of its own. A second
    run finds nothing to do. Frames of a newer program are left alone, and the floor stays below
    them, so that the newer program can still end those calls.
    """
    found = _find_open(folder, read_floor(folder), writer.seq)
    for begun in found.calls.values():
        writer.append_end(encode_frame(make_lost(begun, now_us)))
    if found.unread:
        _log.warning(
            "%s: %d call frames could not be read (a newer program's?); the first is number %d",
            folder,
            found.unread,
            found.first_unread_seq,
        )
    if not writer.pending:  # what waits in memory dies with the process: find it again then
        writer.set_floor(found.first_unread_seq or writer.seq + 1)
    return len(found.calls)


class _Found(msgspec.Struct):
    """The calls without an end, and the frames that say nothing to this program."""

    calls: dict[str, Begun] = msgspec.field(default_factory=dict)
    unread: int = 0
    first_unread_seq: int = 0

    def take(self, seq: int, payload: bytes) -> None:
        try:
            frame = decode_frame(payload)
        except ValueError:
            self.unread += 1
            self.first_unread_seq = self.first_unread_seq or seq
            return
        if isinstance(frame, Begun):
            self.calls[frame.call_id] = frame
        else:
            self.calls.pop(frame.call_id, None)


def _find_open(folder: Path, floor: int, last_seq: int) -> _Found:
    found = _Found()
    after = max(floor - 1, 0)
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
