"""Write a spool: append numbered records that neither kill -9 nor a full disk tears or loses.

The format and the reading side are in ``spool_reader``. One process writes a spool (it holds the
folder's lock until it closes); a restart never appends behind what may be a torn end but starts a
new segment. Beginnings are refused when the disk is full; endings are then written into space that
was held back for them, and wait in memory if even that is used up.
"""

import errno
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from zlib import crc32

from pilotage.core.errors import PilotageError
from pilotage.kit.files import write_private
from pilotage.kit.spool_reader import (
    EPOCH_FILE,
    FLOOR_FILE,
    HEADER,
    LOCK_FILE,
    RESERVE_FILE,
    find_last_seq,
    read_floor,
    segment_path,
)
from pilotage.kit.spool_sync import SpoolSync

Sync = Literal["none", "100ms", "every"]

_LOCK_RETRY_S = 0.02
_FLOORS_WAITING = 64
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is

_log = logging.getLogger(__name__)
_pack = HEADER.pack
_write = os.write


def open_spool(
    folder: Path,
    *,
    segment_bytes: int,
    reserve_bytes: int,
    sync: Sync,
    on_roll: Callable[[], None] | None = None,
    lock_wait_s: float = 5.0,
    pending_limit: int = 65_536,
) -> "SpoolWriter":
    """Open a spool for writing, making it if there is none.

    ``on_roll`` is called, before the first record of a further segment, in the middle of an append:
    it may call ``set_floor``, must not append and must not raise. Raises ``conflict`` naming the
    folder if another writer holds it for ``lock_wait_s``, ``spool_full`` if not even an empty
    segment can be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    lock = _take_lock(folder, lock_wait_s)
    try:
        if not (folder / EPOCH_FILE).exists():
            write_private(folder / EPOCH_FILE, os.urandom(16).hex().encode())
        return SpoolWriter(
            folder,
            lock,
            segment_bytes=segment_bytes,
            reserve_bytes=reserve_bytes,
            sync=sync,
            on_roll=on_roll,
            pending_limit=pending_limit,
        )
    except BaseException as failed:
        os.close(lock)
        if not isinstance(failed, OSError):
            raise
        raise PilotageError(
            "spool_full",
            f"The spool {folder} cannot be written: {failed.strerror}.",
            hint="Free space on its disk.",
        ) from failed


class SpoolWriter:
    """The only writer of a spool; made by ``open_spool``.

    ``seq`` is the number of the last record, ``dropped`` counts endings that found no room even in
    memory. While ``is_full``, ``append`` refuses at once; the
    owner calls ``mend`` about once a second until it answers True.
    """

    __slots__ = (
        "_fd",
        "_floors",
        "_limit",
        "_lock",
        "_on_roll",
        "_pending",
        "_reserve_bytes",
        "_segment_bytes",
        "_size",
        "_sync",
        "_waits",
        "dropped",
        "folder",
        "is_full",
        "seq",
    )

    def __init__(
        self,
        folder: Path,
        lock: int,
        *,
        segment_bytes: int,
        reserve_bytes: int,
        sync: Sync,
        on_roll: Callable[[], None] | None,
        pending_limit: int,
    ) -> None:
        self.folder = folder
        self.dropped = 0
        self._lock = lock
        self._on_roll = on_roll
        self._segment_bytes = self._limit = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._pending: deque[bytes] = deque(maxlen=pending_limit)
        self.seq = find_last_seq(folder)
        self._fd = _open_segment(folder, self.seq + 1)
        self._size = 0
        self.is_full = not _has_reserve(folder, reserve_bytes)
        self._floors: deque[tuple[int, int]] = deque(maxlen=_FLOORS_WAITING)
        if read_floor(folder) > self.seq + 1:  # a power cut took records but not the floor
            _write_floor(folder, 0)
        self._waits = sync == "every"
        self._sync = (
            None
            if sync == "none"
            else SpoolSync(folder, self._fd, lambda: self.seq, self._distrust_segment)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """How many endings wait in memory for space."""
        return len(self._pending)

    @property
    def synced_seq(self) -> int:
        """The last record known to be on disk; that is not known (0) without syncing."""
        return self._sync.synced_seq if self._sync else 0

    def append(self, payload: bytes) -> int:
        """Write a record and return its number, or write nothing and raise ``spool_full``."""
        if self.is_full:
            raise _refuse()
        try:
            return self._append(payload)
        except OSError as failed:
            self._become_full(failed)
            raise _refuse() from failed

    def append_end(self, payload: bytes) -> int | None:
        """Write a record whatever it takes and return its number; never raise.

        On a full disk the reserve is given up for it; if that is not enough the record waits in
        memory (None) and is written, in order, as soon as there is space.
        """
        if self._pending and not self._write_pending():
            self._keep(payload)
            return None
        try:
            return self._append(payload)
        except OSError as failed:
            self._become_full(failed)
        self._keep(payload)
        return self.seq if self._write_pending() else None

    def mend(self) -> bool:
        """Try to leave the state of a full disk; say whether ``append`` is taken again.

        That needs everything pending written, the reserve back, and as much free space again.
        """
        if not self.is_full:
            return True
        if self._fd < 0 or not self._write_pending():
            return False
        if not _has_reserve(self.folder, self._reserve_bytes):
            return False
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < self._reserve_bytes:
            return False
        self.is_full = False
        _log.info("the spool %s has space again", self.folder)
        return True

    async def synced(self, seq: int) -> None:
        """With sync ``every``, return once a record is on disk; otherwise at once.

        Raises ``spool_full`` if the disk refuses it.
        """
        if self._waits and self._sync:
            await self._sync.wait(seq)

    def set_floor(self, seq: int) -> bool:
        """Keep in a file that every call begun before a number has ended; say whether it is there.

        Recovery reads from there. With syncing, the file is written only once those endings are
        on disk, that is by a later call or by closing, and never while an ending waits in memory
        or was dropped. A floor that is too low costs time only, so a disk that refuses it is no
        error.
        """
        if self._pending or self.dropped:
            return False
        self._floors.append((seq, self.seq))
        return self._write_due_floor()

    def close(self) -> None:
        """Write what waits if possible, sync, and let another process have the spool."""
        if self._fd < 0:
            return
        if not self._write_pending():
            _log.error("%d endings did not fit the spool %s", self.pending, self.folder)
        self.is_full = True
        if self._sync:
            self._sync.close()
        else:
            os.close(self._fd)
        self._fd = -1
        self._write_due_floor()
        os.close(self._lock)

    def _append(self, payload: bytes) -> int:
        seq = self.seq + 1
        check = crc32(payload, crc32(seq.to_bytes(8, "little")))
        record = _pack(seq, len(payload), check) + payload
        size = self._size + len(record)
        if size > self._limit:
            self._roll()
            size = self._size + len(record)
        try:
            if _write(self._fd, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._cut_back()
            raise
        self._size = size
        self.seq = seq
        return seq

    def _roll(self) -> None:
        """Go on in a new segment; stay in the old one if that cannot be had and it is sound."""
        if self._fd < 0:
            raise OSError(errno.EBADF, "the spool is closed")
        must = self._limit < 0
        if not must and not self._size:  # one record is larger than a segment
            return
        try:
            fd = _open_segment(self.folder, self.seq + 1)
        except OSError:
            if must:
                raise
            return
        if self._sync:
            self._sync.change(fd)
        else:
            os.close(self._fd)
        self._fd, self._size, self._limit = fd, 0, self._segment_bytes
        if self._on_roll:
            self._on_roll()

    def _cut_back(self) -> None:
        """Take a torn record away, or never write behind it."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._limit = -1

    def _keep(self, payload: bytes) -> None:
        if len(self._pending) == self._pending.maxlen:  # recovery ends that call as lost
            self.dropped += 1
            _log.error("the spool %s dropped an ending: %d wait", self.folder, self.pending)
        self._pending.append(payload)

    def _write_pending(self) -> bool:
        """Write waiting endings in order, giving up the reserve for them; say whether all are."""
        while self._pending:
            try:
                self._append(self._pending[0])
            except OSError as failed:
                self._become_full(failed)
                if not _drop_reserve(self.folder):
                    return False
            else:
                self._pending.popleft()
        return True

    def _write_due_floor(self) -> bool:
        on_disk = self._sync.synced_seq if self._sync else self.seq
        due = None
        while self._floors and self._floors[0][1] <= on_disk:
            due, _ = self._floors.popleft()
        is_there = due is None or _write_floor(self.folder, due)
        return is_there and not self._floors

    def _become_full(self, failed: OSError) -> None:
        if not self.is_full:
            self.is_full = True
            _log.error("the spool %s takes no more calls: %s", self.folder, failed.strerror)

    def _distrust_segment(self, failed: OSError) -> None:
        """Leave a segment that could not be synced (a second try would claim success)."""
        self._limit = -1
        self._become_full(failed)


def _take_lock(folder: Path, wait_s: float) -> int:
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(int(wait_s / _LOCK_RETRY_S)):
        if _can_lock(fd):
            return fd
        time.sleep(_LOCK_RETRY_S)  # who asks whether it is held, holds it for an instant
    if _can_lock(fd):
        return fd
    os.close(fd)
    raise PilotageError(
        "conflict",
        f"Another process writes the spool {folder}.",
        hint="Stop that process, or give this one a folder of its own.",
    )


def _can_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_segment(folder: Path, first_seq: int) -> int:
    # A file of that name holds no whole record (the next one would have another number).
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
    return os.open(segment_path(folder, first_seq), flags, 0o600)


def _write_floor(folder: Path, seq: int) -> bool:
    path = folder / FLOOR_FILE
    temporary = path.with_suffix(".new")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(b"%d\n" % seq)
        temporary.replace(path)
    except OSError:
        return False
    return True


def _has_reserve(folder: Path, size: int) -> bool:
    """Make sure that the space for endings is really taken, not sparse."""
    path = folder / RESERVE_FILE
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            found = os.fstat(fd)
            if found.st_size != size or found.st_blocks * _BLOCK_BYTES < size:
                os.ftruncate(fd, 0)
                os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)
    except OSError:
        _drop_reserve(folder)
        return False
    return True


def _drop_reserve(folder: Path) -> bool:
    """Give the space back; say whether there was any."""
    try:
        (folder / RESERVE_FILE).unlink()
    except OSError:
        return False
    return True


def _refuse() -> PilotageError:
    return PilotageError(
        "spool_full",
        "Calls cannot be recorded, so none is taken.",
        hint="Free space on the disk that holds the spool.",
        retry_after_s=1,
    )
