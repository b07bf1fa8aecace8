"""What the gateways of this machine ask of its replicas: one file for each slot (0600).

A slot replaces its file at once when a call begins to wait for a replica, else when something has
changed (at most ten times a second), and at least once a second. Whoever runs the replicas reads
them all, so that it needs neither a database nor the control process to wake one up.
"""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import MappingProxyType

import msgspec

from pilotage.kit.files import write_private

TELL_EVERY_S = 0.1  # the shortest time between two files of a slot
TELL_AGAIN_S = 1.0  # the longest
STALE_US = 5_000_000  # of a slot that is silent for so long, nothing is known
_PREFIX = "demand-"


class DeploymentDemand(msgspec.Struct, frozen=True, kw_only=True):
    """What calls ask of one deployment now.

    ``in_flight`` calls are at a replica, ``waiting`` ones wait for one to be ready;
    ``oldest_wait_ms`` is how long the oldest call that waits, or that streams, has been without
    content; of others nobody knows when a replica begins with them. ``calls`` were begun since the
    slot was opened: a call may be shorter than the time between two looks.
    """

    in_flight: int = 0
    waiting: int = 0
    oldest_wait_ms: int = 0
    calls: int = 0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot says: its calls by deployment, and how many are at each replica.

    ``replicas`` has replicas that are gone from the Targets too, until their last call has ended.
    ``targets_n`` is the Targets file that the slot goes by.
    """

    at_us: int
    targets_n: int = 0
    deployments: Mapping[str, DeploymentDemand] = MappingProxyType({})
    replicas: Mapping[str, int] = MappingProxyType({})


class DemandFile:
    """The file of one slot."""

    def __init__(self, run: Path, slot: str) -> None:
        self._path = run / f"{_PREFIX}{slot}.json"
        self._lock = Lock()  # it is written in a thread that may outlive whoever began it
        self._is_removed = False

    def write(self, demand: Demand) -> None:
        """Replace the file; raise OSError where there is no space."""
        with self._lock:
            if not self._is_removed:
                write_private(self._path, msgspec.json.encode(demand), is_durable=False)

    def remove(self) -> None:
        """Say nothing more: the slot has no calls and takes none."""
        with self._lock:
            self._is_removed = True
            self._path.unlink(missing_ok=True)


class DemandFolder:
    """The files of all slots, read again only where they were replaced."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: dict[str, tuple[tuple[int, int], Demand]] = {}

    def read(self, now_us: int) -> dict[str, Demand]:
        """Return what slots say, by slot; one that is silent for long or broken says nothing."""
        found: dict[str, tuple[tuple[int, int], Demand]] = {}
        for path in self._run.glob(f"{_PREFIX}*.json"):
            try:
                stat = path.stat()
                stamp = (stat.st_mtime_ns, stat.st_ino)
                known = self._known.get(path.name)
                if known is None or known[0] != stamp:
                    known = (stamp, msgspec.json.decode(path.read_bytes(), type=Demand))
            except (OSError, msgspec.DecodeError):
                continue
            found[path.name] = known
        self._known = found
        return {
            name.removeprefix(_PREFIX).removesuffix(".json"): said
            for name, (_, said) in found.items()
            if said.at_us > now_us - STALE_US
        }
