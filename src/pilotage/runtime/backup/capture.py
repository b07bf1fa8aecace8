"""Hold a moment still: links to every file of the data folder, taken in an order that agrees.

Files of the data folder are replaced as a whole, or appended to, or removed, and never changed in
place. So a link to a file and its size at that moment are its content at that moment, however long
copying it takes. Of the audit log, what rests on other files is linked before them: checkpoints
kept elsewhere, the log's checkpoint, its write-ahead files, bundles of entries, then their tiles.
"""

import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from pilotage.kit.data_folder import DataFolder
from pilotage.kit.spool_reader import (
    LOCK_FILE,
    RESERVE_FILE,
    SEGMENT_SUFFIX,
    list_firsts,
    list_spools,
    read_floor,
)
from pilotage.runtime.backup.archive import is_archived

_LOG = logging.getLogger("pilotage.backup")
NeededFrom = Callable[[Path], int]
"""Return the first record of a spool that the database does not have yet."""
STAGING = ".backup-"
_FIRST_OF_AUDIT = ("checkpoint", "wal", "tile/entries")


class Held(NamedTuple):
    """A file of one moment: its name in the archive, where its content is, how much counts."""

    name: str
    path: Path
    size: int


class Staging:
    """A folder of links within the data folder; gone when the block ends."""

    def __init__(self, folder: DataFolder, backup_id: str) -> None:
        self._folder = folder
        self._path = folder.path / f"{STAGING}{backup_id}"
        self._held: dict[str, Held] = {}

    def __enter__(self) -> Self:
        self._path.mkdir(mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def files(self) -> list[Held]:
        """Everything that is held, by name."""
        return [self._held[name] for name in sorted(self._held)]

    def hold_log(self) -> None:
        """Hold the audit log; what rests on other files first."""
        self._hold("checkpoints", self._folder.checkpoints)
        for name in _FIRST_OF_AUDIT:
            self._hold(f"audit/{name}", self._folder.audit / name)
        self._hold("audit", self._folder.audit)

    def hold_spools(self, needed_from: NeededFrom) -> None:
        """Hold of each spool the records that the database does not have, and the newest segment.

        A call that still runs began before them: it counts from where the spool says that every
        older call has ended.
        """
        for spool in list_spools(self._folder.spool):
            start = min(needed_from(spool), read_floor(spool) or 1)
            firsts = list_firsts(spool)
            oldest = max((first for first in firsts if first <= start), default=0)
            for path in sorted(spool.iterdir()):
                number = path.name.removesuffix(SEGMENT_SUFFIX)
                is_read = number != path.name and int(number) < oldest
                if path.name not in (LOCK_FILE, RESERVE_FILE) and not is_read:
                    self._hold(f"spool/{spool.name}/{path.name}", path)

    def hold_files(self, *, with_models: bool) -> None:
        """Hold what is there before anything speaks of it: Snapshots, calls and models."""
        self._hold("snapshots", self._folder.snapshots)
        self._hold("calls", self._folder.calls)
        if with_models:
            self._hold("blobs", self._folder.blobs)

    def _hold(self, name: str, path: Path) -> None:
        """Link a file, or every file below a folder; what is temporary or gone is left out.

        So is what somebody else has put there under a name that no file of this program has.
        """
        for found, place in _walk(name, path):
            if found in self._held:
                continue
            if not is_archived(found):
                say_left_out(place)
                continue
            link = self._path / str(len(self._held))
            with suppress(FileNotFoundError):
                os.link(place, link)
                self._held[found] = Held(found, link, link.stat().st_size)


def say_left_out(path: Path) -> None:
    """Say that a file is not in a backup because of its name."""
    _LOG.warning("%r is no file of pilotage: it is not in the backup", str(path))


def _walk(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        yield name, path
    elif stat.S_ISDIR(mode):
        with os.scandir(path) as entries:
            inner = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for entry in inner:
            yield from _walk(f"{name}/{entry}", path / entry)
