"""The data folder: where everything of one installation lives, and who has it open."""

import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import Self

import msgspec

from pilotage.core.errors import PilotageError

UNFINISHED = ".restoring"  # in it a restore gathers what it puts back
LOOKS = 20
LOOK_S = 0.005


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the data folder; the URLs are empty for a command without a server."""

    pid: int
    started_at_us: int
    control_url: str = ""
    gateway_url: str = ""


class DataFolder:
    """Paths of one installation. Makes nothing by itself: see :meth:`prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "pilotage.db"
        self.credentials = path / "credentials.toml"
        self.keys = path / "keys"
        self.root_keys = path / "keys" / "root.key"
        self.blobs = path / "blobs"
        self.gs = path / "gs"  # what gs://BUCKET/PATH means here
        self.snapshots = path / "snapshots"
        self.spool = path / "spool"
        self.samples = path / "samples"
        self.run = path / "run"
        self.logs = path / "logs"
        self.audit = path / "audit"
        self.calls = path / "calls"
        self.checkpoints = path / "checkpoints"
        self.backups = path / "backups"
        self.targets = path / "run" / "targets.json"
        self.seeds = path / "run" / "seeds.json"
        self._lock = path / "lock"

    def prepare(self) -> Self:
        """Make the folder (0700) and prove that it can be written.

        Raise ``invalid_config`` if not, ``conflict`` if a restore into it was not finished.
        """
        if (self.path / UNFINISHED).exists():
            raise PilotageError(
                "conflict",
                f"A restore into {self.path} was not finished.",
                hint="Empty it and the database, and restore again.",
            )
        try:
            for folder in (
                self.path,
                self.keys,
                self.blobs,
                self.snapshots,
                self.spool,
                self.samples,
                self.run,
                self.logs,
                self.audit,
                self.calls,
                self.checkpoints,
                self.backups,
            ):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as failed:
            raise PilotageError(
                "invalid_config",
                f"The data folder {self.path} cannot be written: {failed.strerror}.",
                hint="Set PILOTAGE_DATA_DIR to a folder you own.",
            ) from None
        return self

    def acquire(self, info: ServerInfo) -> "FolderLock":
        """Take the folder for this process.

        Raise ``conflict``, naming the holder, if it is taken.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _take(descriptor):
            os.close(descriptor)
            holder = self._read_info()
            by = f"process {holder.pid}" if holder else "another process"
            raise PilotageError(
                "conflict",
                f"The data folder {self.path} is in use by {by}.",
                hint="Stop it first, or set PILOTAGE_DATA_DIR to another folder.",
            )
        os.ftruncate(descriptor, 0)  # nobody shall take the last holder for this one
        lock = FolderLock(descriptor)
        lock.write(info)
        return lock

    def find_server(self) -> ServerInfo | None:
        """Return who serves this folder now, or None."""
        holder = self.find_holder()
        return holder if holder and holder.control_url else None

    def find_holder(self) -> ServerInfo | None:
        """Return who holds this folder now, server or not, or None.

        Raise ``invalid_config`` if that cannot be read.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as failed:
            raise PilotageError(
                "invalid_config",
                f"{self._lock} cannot be read: {failed.strerror}.",
                hint="Set PILOTAGE_DATA_DIR to a folder you own.",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read_info() or ServerInfo(pid=0, started_at_us=0)
        finally:
            os.close(descriptor)
        return None

    def _read_info(self) -> ServerInfo | None:
        try:
            return msgspec.json.decode(self._lock.read_bytes(), type=ServerInfo)
        except (OSError, msgspec.DecodeError):
            return None


def _take(descriptor: int) -> bool:
    """Take the lock; try again for a moment, for whoever looks holds it as long as a look takes."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_S)
        else:
            return True
    return False


class FolderLock:
    """The held lock of a data folder; the kernel frees it when the process dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, info: ServerInfo) -> None:
        """Say who holds the folder and where it serves."""
        text = msgspec.json.encode(info)
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Give the folder back."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
