"""Read a spool: numbered records that survive their writer, while they are written or long after.

A spool is a folder of segments, each named by the number of its first record
(``00000000000000000001.seg``). A record is ``<QII`` number, length and CRC-32 (of the number's 8
bytes and the payload), then the payload. Numbers run on without a gap over segments and restarts,
so a loss anywhere but at the very end shows. What the payload says is not known here.
"""

import fcntl
import itertools
import os
import struct
import sys
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

HEADER = struct.Struct("<QII")
SEGMENT_SUFFIX = ".seg"
LOCK_FILE = "lock"
EPOCH_FILE = "epoch"
FLOOR_FILE = "floor"
RESERVE_FILE = "reserve"

READ_BYTES = 8 << 20  # of payloads at once: whoever reads holds them and what they become
_CHUNK_BYTES = 256 << 10
_SEARCH_BYTES = 1 << 20  # how far behind a damaged record the next whole one is looked for


class SpoolDamage(ValueError):  # noqa: N818 - a state of the disk, which readers step over
    """Records are missing where they cannot be a torn end.

    ``path`` and ``offset`` say where; ``next_seq`` is the first record that can be read again, so
    ``SpoolReader(folder, damage.next_seq - 1)`` goes on behind the loss.
    """

    def __init__(self, path: Path, offset: int, expected_seq: int, next_seq: int) -> None:
        self.path = path
        self.offset = offset
        self.expected_seq = expected_seq
        self.next_seq = next_seq
        super().__init__(
            f"{path} is damaged at offset {offset}: record {expected_seq} cannot be read, "
            f"the next readable record is {next_seq}"
        )


class SpoolReader:
    """Follow a spool from behind a record; keeps its place, so that each look costs only the new.

    Any number may read while one process writes. Starts at the oldest record kept if the one
    asked for was dropped by retention.
    """

    def __init__(self, folder: Path, after_seq: int) -> None:
        self.was_cut = False  # whether the last read ended at its limits: there may be more
        self._folder = folder
        self._after = after_seq
        self._fd = -1
        self._first = 0  # number that names the segment being read
        self._offset = 0
        self._expected = 0
        self._judged = (0, 0, 0)  # the torn end that was last searched and held nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, limit: int, most_bytes: int = READ_BYTES) -> list[tuple[int, bytes]]:
        """Return up to ``limit`` further records (number, payload); none only at the end.

        Reading ends, too, soon after their payloads have ``most_bytes``. A torn record at the end
        of the newest segment is not there yet. Raises ``SpoolDamage`` (a ValueError naming file
        and offset) where records are lost in the middle, each time anew, after everything before
        the loss was returned.
        """
        records: list[tuple[int, bytes]] = []
        size = 0
        self.was_cut = False
        try:
            while len(records) < limit and size < most_bytes:
                known = len(records)
                if not self._advance(records, limit):
                    return records
                size += sum(len(payload) for _, payload in records[known:])
        except SpoolDamage:
            if not records:
                raise
        else:
            self.was_cut = True
        return records

    def close(self) -> None:
        """Give the file back; a later read would start again behind the last record."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _advance(self, records: list[tuple[int, bytes]], limit: int) -> bool:
        """Take what is at this place, or go to the next; say whether there was something."""
        is_open = self._fd >= 0 or self._enter_first()
        return is_open and (self._read_chunk(records, limit) or self._go_on())

    def _enter_first(self) -> bool:
        firsts = list_firsts(self._folder)
        if not firsts:
            return False
        before = [first for first in firsts if first <= self._after + 1]
        return self._enter(before[-1] if before else firsts[0])

    def _enter(self, first: int) -> bool:
        try:
            fd = os.open(segment_path(self._folder, first), os.O_RDONLY)
        except FileNotFoundError:  # dropped between the listing and now
            return False
        self.close()
        self._fd, self._first, self._offset, self._expected = fd, first, 0, first
        return True

    def _read_chunk(self, records: list[tuple[int, bytes]], limit: int) -> bool:
        """Take the whole records at this place; say whether there was one."""
        data = os.pread(self._fd, _CHUNK_BYTES, self._offset)
        if len(data) == _CHUNK_BYTES < self._record_bytes(data):
            data = os.pread(self._fd, self._record_bytes(data), self._offset)
        unpack, crc32, head = HEADER.unpack_from, zlib.crc32, HEADER.size
        expected, after, start, end = self._expected, self._after, 0, len(data)
        while start + head <= end and len(records) < limit:
            seq, length, crc = unpack(data, start)
            stop = start + head + length
            if seq != expected or stop > end:
                break
            payload = data[start + head : stop]
            if crc32(payload, crc32(data[start : start + 8])) != crc:
                break
            if seq > after:
                records.append((seq, payload))
            expected += 1
            start = stop
        self._offset += start
        self._expected = expected
        self._after = max(after, expected - 1)
        return start > 0

    def _record_bytes(self, data: bytes) -> int:
        """Return how long the record at this place says it is, at most what the file holds."""
        length: int = HEADER.unpack_from(data)[1] if len(data) >= HEADER.size else 0
        return min(HEADER.size + length, os.fstat(self._fd).st_size - self._offset)

    def _go_on(self) -> bool:
        """Leave the end of what can be read here; say whether there is something to read now."""
        newer = [first for first in list_firsts(self._folder) if first > self._first]
        if newer and newer[0] == self._expected:  # a torn end before a restart is left behind
            return self._enter(newer[0])
        found = self._find_whole()
        if newer or found:
            return self._pass_loss(found, newer)
        if self._expected <= self._after:  # the reader remembers more than the disk kept
            raise SpoolDamage(self._path, self._offset, self._after, self._expected)
        return False

    def _find_whole(self) -> tuple[int, int] | None:
        """Return the distance to the next whole record of this segment, and its number."""
        size = os.fstat(self._fd).st_size
        if size <= self._offset or (self._first, self._offset, size) == self._judged:
            return None
        data = os.pread(self._fd, _SEARCH_BYTES + _CHUNK_BYTES, self._offset)
        if len(data) < self._record_bytes(data):
            data = os.pread(self._fd, self._record_bytes(data), self._offset)
        unpack, lowest, highest = HEADER.unpack_from, self._expected, self._expected + _SEARCH_BYTES
        for start in range(min(len(data), _SEARCH_BYTES) - HEADER.size + 1):
            seq, length, crc = unpack(data, start)
            stop = start + HEADER.size + length
            if not lowest <= seq <= highest or stop > len(data):
                continue
            payload = data[start + HEADER.size : stop]
            if zlib.crc32(payload, zlib.crc32(data[start : start + 8])) == crc:
                return start, seq
        self._judged = (self._first, self._offset, size)
        return None

    def _pass_loss(self, found: tuple[int, int] | None, newer: list[int]) -> bool:
        """Step over missing records if they lie before what was asked for, else raise.

        Nothing is missing where the writer has gone on since the look that ended here.
        """
        next_seq = found[1] if found else newer[0]
        if next_seq - 1 > self._after or not (found or next_seq > self._expected):
            raise SpoolDamage(self._path, self._offset, self._expected, next_seq)
        if not found:
            return self._enter(next_seq)
        self._offset += found[0]
        self._expected = next_seq
        return True

    @property
    def _path(self) -> Path:
        return segment_path(self._folder, self._first)


def read_records(folder: Path, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
    """Return up to ``limit`` records behind a number; raises as ``SpoolReader.read``."""
    with SpoolReader(folder, after_seq) as reader:
        return reader.read(limit, sys.maxsize)


def list_spools(root: Path) -> list[Path]:
    """Return the spools directly below a folder, in order of name.

    One that cannot be looked into is among them, so that whoever reads it finds out.
    """
    if not root.is_dir():
        return []
    return sorted(filter(_may_be_spool, root.iterdir()))


def read_epoch(folder: Path) -> str:
    """Return the name of this life of a spool; numbers of another life mean other records."""
    return (folder / EPOCH_FILE).read_text()


def read_floor(folder: Path) -> int:
    """Return the number before which every call begun has ended; 0 if that is not known."""
    try:
        text = (folder / FLOOR_FILE).read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return 0
    number = text.removesuffix("\n")
    return int(number) if text != number and number.isascii() and number.isdigit() else 0


def is_held(folder: Path) -> bool:
    """Say whether a writer lives: somebody holds the spool's lock."""
    try:
        fd = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def drop_segments(folder: Path, consumed_seq: int, older_than_us: int) -> int:
    """Remove whole old segments, oldest first; return how many.

    Kept are the newest segment, records above ``consumed_seq`` or not below the floor (a call
    begun there may still be open), and segments changed at or after ``older_than_us``.
    """
    floor = read_floor(folder)
    droppable_seq = min(consumed_seq, floor - 1) if floor else consumed_seq
    firsts = list_firsts(folder)
    dropped = 0
    for first, following in itertools.pairwise(firsts):
        path = segment_path(folder, first)
        if following - 1 > droppable_seq or path.stat().st_mtime_ns // 1000 >= older_than_us:
            break
        path.unlink()
        dropped += 1
    return dropped


def find_last_seq(folder: Path) -> int:
    """Return the highest number in the newest segment, or the one before it; 0 without any."""
    firsts = list_firsts(folder)
    last = firsts[-1] - 1 if firsts else 0
    while True:
        try:
            with SpoolReader(folder, last) as reader:
                while records := reader.read(4096):
                    last = records[-1][0]
                return last
        except SpoolDamage as damage:  # for whoever reads; writing must go on behind it
            last = damage.next_seq - 1


def list_firsts(folder: Path) -> list[int]:
    """Return the numbers that name the segments, ascending."""
    with os.scandir(folder) as entries:
        stems = [
            entry.name.removesuffix(SEGMENT_SUFFIX)
            for entry in entries
            if entry.name.endswith(SEGMENT_SUFFIX)
        ]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def segment_path(folder: Path, first_seq: int) -> Path:
    """Return where the segment that starts with a number lies."""
    return folder / f"{first_seq:020d}{SEGMENT_SUFFIX}"


def _may_be_spool(folder: Path) -> bool:
    try:
        return (folder / EPOCH_FILE).is_file()
    except OSError:
        return True
