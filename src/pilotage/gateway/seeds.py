"""What a store of counters that comes back empty must know of owners that do not speak.

The control plane's ledger knows who is gone for ever; of slots of this data folder that nobody
runs, the folder itself knows more, to the last call.
"""

import asyncio
import logging
from pathlib import Path

from pilotage.core.seeds import Seeds, decode_seeds
from pilotage.gateway.recovery import sum_up_stopped
from pilotage.kit.clock import Clock
from pilotage.kit.spool_reader import LOCK_FILE, list_spools

_LOG = logging.getLogger("pilotage.gateway")


class SeedFinder:
    """Looks when asked. ``path`` is what the ledger says, ``spools`` where this folder's slots are.

    Without a ledger, what other folders' owners used is for them alone to say.
    """

    def __init__(self, path: Path, spools: Path, clock: Clock, *, has_ledger: bool = True) -> None:
        self._path = path
        self._spools = spools
        self._clock = clock
        self._has_ledger = has_ledger

    async def find(self) -> Seeds | None:
        """Return what is known now; None while the ledger has not said anything yet."""
        return await asyncio.to_thread(self._find)

    def _find(self) -> Seeds | None:
        told = self._read() if self._has_ledger else Seeds()
        if told is None:
            return None
        gone = dict(told.gone)
        for folder in list_spools(self._spools):
            # A stopped slot may come back, but holds nothing, and used what its spool says. If it
            # starts this very moment it registers before it is granted anything, and its own word
            # goes before ours. Copies of other folders' spools have no lock: they say nothing here.
            if not (folder / LOCK_FILE).exists():
                continue
            stopped = self._sum_up(folder)
            if stopped is not None:
                gone[stopped[0]] = stopped[1]
        return Seeds(living=told.living, gone=gone)

    def _read(self) -> Seeds | None:
        try:
            return decode_seeds(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as broken:
            _LOG.error("%s cannot be read: %s", self._path, broken)
            return None

    def _sum_up(self, folder: Path) -> tuple[str, dict[str, int]] | None:
        try:
            found = sum_up_stopped(folder, self._clock.now_us())
        except OSError as failed:  # it is waited for, like any other
            _LOG.error("the spool %s cannot be summed up: %s", folder.name, failed)
            return None
        return (found.owner, found.totals) if found else None
