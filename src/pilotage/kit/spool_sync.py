"""Force a spool to disk from a thread of its own, so that the event loop never waits for a disk."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pilotage.core.errors import PilotageError

_EVERY_S = 0.1


class SpoolSync:
    """The thread that syncs the segment being written, and owns closing the ones left behind.

    ``get_seq`` tells the last record written; ``on_failure`` is called in the thread when the disk
    refuses. ``synced_seq`` is the last record known to be on disk.
    """

    def __init__(
        self,
        folder: Path,
        fd: int,
        get_seq: Callable[[], int],
        on_failure: Callable[[OSError], None],
    ) -> None:
        self.synced_seq = get_seq()
        self._folder = folder
        self._fd = fd
        self._get_seq = get_seq
        self._on_failure = on_failure
        self._left: list[int] = []
        self._is_name_synced = False
        self._lost = range(0)  # records of the last refusal; a second try would claim success
        self._lock = threading.Lock()  # a segment change against the thread's look at it
        self._wake = threading.Event()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def change(self, fd: int) -> None:
        """Take over the old segment (to sync and close it) before anything is written to a new."""
        with self._lock:
            self._left.append(self._fd)
            self._fd = fd
            self._is_name_synced = False

    async def wait(self, seq: int) -> None:
        """Return once a record is on disk; raise ``spool_full`` if the disk refuses it."""
        if seq in self._lost:
            raise PilotageError("spool_full", retry_after_s=1)
        if seq <= self.synced_seq:
            return
        self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self._waiters.append((seq, future))
        self._wake.set()
        await future

    def close(self) -> None:
        """Stop the thread, sync what it had not, close every segment, free who waits."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        self._sync()
        os.close(self._fd)
        if self._loop is not None and not self._loop.is_closed():
            self._settle()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            self._sync()
            if self._waiters and self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop ended first: nobody waits
                    self._loop.call_soon_threadsafe(self._settle)

    def _sync(self) -> None:
        """Bring everything written before now to disk."""
        with self._lock:
            seq, fd, left, self._left = self._get_seq(), self._fd, self._left, []
            is_named, self._is_name_synced = self._is_name_synced, True
        if seq == self.synced_seq and not left and is_named:
            return
        try:
            for old in left:
                os.fdatasync(old)
            os.fdatasync(fd)
            if not is_named:
                _sync_folder(self._folder)
        except OSError as failed:
            self._lost = range(self.synced_seq + 1, seq + 1)
            self._is_name_synced = False
            self._on_failure(failed)
            return
        finally:
            for old in left:
                os.close(old)
        self.synced_seq = seq

    def _settle(self) -> None:
        waiting, self._waiters = self._waiters, []
        for seq, future in waiting:
            if future.done():  # its call was cancelled
                continue
            if seq in self._lost:
                future.set_exception(PilotageError("spool_full", retry_after_s=1))
            elif seq <= self.synced_seq:
                future.set_result(None)
            else:
                self._waiters.append((seq, future))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
