"""Brings to a gateway that runs apart what the ledger knows of owners that cannot speak."""

import asyncio
import hashlib
import logging
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.core.seeds import decode_seeds
from pilotage.kit.clock import Clock
from pilotage.kit.files import write_private
from pilotage.runtime.control_link import ControlLink

_LOG = logging.getLogger("pilotage.remote")
FETCH_EVERY_S = 10.0


class SeedFetcher:
    """Keeps the file up to date; ``step`` is called about every second.

    The last one fetched stays, also over restarts: with the control plane away it serves on.
    """

    def __init__(self, link: ControlLink, path: Path, clock: Clock) -> None:
        self._link = link
        self._path = path
        self._clock = clock
        self._known = ""
        self._due_s = 0.0
        self._problem = ""

    async def step(self) -> bool:
        """Fetch what is new if it is time; after a failure it is time at once. Return False."""
        if self._clock.monotonic_s() < self._due_s:
            return False
        try:
            content = await self._link.get_seeds(self._known)
            if content is not None:
                decode_seeds(content)
                await asyncio.to_thread(write_private, self._path, content)
                self._known = hashlib.sha256(content).hexdigest()
        except (PilotageError, OSError, ValueError) as failed:
            if str(failed) != self._problem:
                _LOG.warning("what the ledger knows of limits cannot be had: %s", failed)
            self._problem = str(failed)
            return False
        self._problem = ""
        self._due_s = self._clock.monotonic_s() + FETCH_EVERY_S
        return False
