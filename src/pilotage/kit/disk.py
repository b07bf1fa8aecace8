"""How full the disk is that holds a folder, and what is given up first when it fills.

In order: at 80 % somebody is told; at 90 % what is not needed for an answer or a bill (samples of
texts, traces) is no longer written; and when nothing is left, calls are refused (``spool_full``).
"""

import asyncio
import logging
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

_LOG = logging.getLogger("pilotage.disk")
LOOK_EVERY_S = 5.0
ALARM_AT = 0.80
SPARE_AT = 0.90
STEP_BACK = 0.02  # so much less before a level is left again: no alarm flickers


class DiskLevel(IntEnum):
    """How much a disk can still be given."""

    FINE = 0
    ALARM = 1
    SPARE = 2  # only what must be written


Listener = Callable[[DiskLevel, float], None]


class DiskWatch:
    """Looks at a disk; says in the log, and to whoever listens, when its level changes.

    ``level`` is what was seen last; whoever writes what can be spared asks :attr:`has_room` first.
    """

    def __init__(self, folder: Path, read_share: Callable[[Path], float] | None = None) -> None:
        self._folder = folder
        self._read_share = read_share or read_used_share
        self.level = DiskLevel.FINE
        self.used_share = 0.0
        self.on_change: list[Listener] = []

    @property
    def has_room(self) -> bool:
        """Whether samples, traces and the like may be written."""
        return self.level < DiskLevel.SPARE

    def look(self) -> DiskLevel:
        """Look once."""
        try:
            self.used_share = self._read_share(self._folder)
        except OSError as failed:
            _LOG.error("the disk of %s cannot be looked at: %s", self._folder, failed.strerror)
            return self.level
        before, self.level = self.level, assess_disk(self.used_share, self.level)
        if self.level != before:
            self._tell()
        return self.level

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self) -> None:
        percent = round(self.used_share * 100)
        if self.level == DiskLevel.FINE:
            _LOG.warning("the disk of %s has space again: %d %% is used", self._folder, percent)
        elif self.level == DiskLevel.ALARM:
            _LOG.error("the disk of %s fills: %d %% is used", self._folder, percent)
        else:
            _LOG.error(
                "the disk of %s is nearly full: %d %% is used; samples and traces stop, "
                "and calls will be refused when nothing is left",
                self._folder,
                percent,
            )
        for listener in self.on_change:
            listener(self.level, self.used_share)


def assess_disk(used_share: float, before: DiskLevel) -> DiskLevel:
    """Return the level of a disk of which a share (0 to 1) is used, after another level."""

    def is_at(threshold: float, level: DiskLevel) -> bool:
        return used_share >= threshold - (STEP_BACK if before >= level else 0)

    if is_at(SPARE_AT, DiskLevel.SPARE):
        return DiskLevel.SPARE
    return DiskLevel.ALARM if is_at(ALARM_AT, DiskLevel.ALARM) else DiskLevel.FINE


def read_used_share(folder: Path) -> float:
    """Return the used share of the space (and not less than that of the files) of a disk."""
    disk = os.statvfs(folder)
    blocks = disk.f_blocks - disk.f_bfree + disk.f_bavail  # what its owner kept back is no space
    space = 1 - disk.f_bavail / blocks if blocks else 1.0
    files = 1 - disk.f_favail / disk.f_files if disk.f_files else 0.0
    return max(space, files)
