"""Checkpoints kept elsewhere: what makes a rewritten log show, even by who has the key.

A folder gets one file for each size that was published, named by it. What is outside cannot be
altered from here: nothing is ever replaced or removed there.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path

from pilotage.audit.open_log import OpenLog
from pilotage.kit.clock import Clock
from pilotage.kit.files import write_private
from pilotage.kit.worker import Wakeup, Worker

_LOG = logging.getLogger("pilotage.audit")


@dataclass(slots=True)
class Outside:
    """A folder elsewhere: the size of the log at its newest checkpoint, and what is wrong now."""

    folder: Path
    size: int = -1
    at_us: int = 0
    problem: str = ""


class CheckpointPublisher:
    """Puts a checkpoint into every folder whenever the log has grown."""

    def __init__(self, log: OpenLog, folders: Sequence[Path], clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self.outside = [Outside(folder) for folder in folders]

    async def step(self) -> bool:
        """Publish to the folders that are behind; one that is away is tried again next time."""
        behind = [place for place in self.outside if place.size < self._log.size]
        if behind:
            note = await self._log.publish()
            size = int(note.split("\n")[1])
            for place in behind:
                await asyncio.to_thread(self._put, place, size, note)
        return False

    def _put(self, place: Outside, size: int, note: str) -> None:
        path = place.folder / f"{size:020d}"
        try:
            if (
                not place.folder.is_dir()
            ):  # of a disk that is not there: nothing is made in its place
                raise FileNotFoundError(ENOENT, "there is no such folder")
            if not path.exists():
                write_private(path, note.encode())
        except OSError as failed:
            if not place.problem:
                _LOG.error("no checkpoint can be put into %s: %s", place.folder, failed)
            place.problem = failed.strerror or str(failed)
            return
        if place.problem:
            _LOG.info("checkpoints are put into %s again", place.folder)
        place.size, place.at_us, place.problem = size, self._clock.now_us(), ""


def make_checkpoint_worker(publisher: CheckpointPublisher, every_s: float) -> Worker:
    """Make the worker."""
    return Worker("audit checkpoints", publisher.step, Wakeup(), every_s)
