"""From the ledger to gateways: who counted what, should their store of counters come back empty.

Gateways wait for every owner that may come back. One is gone if its spool is no longer there or was
begun anew, and of a gateway that runs apart also if that was revoked; but never before the ledger
has read what there is of its spool.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pilotage.core.seeds import Seeds, encode_seeds, name_owner
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.files import write_private
from pilotage.kit.spool_reader import (
    EPOCH_FILE,
    find_last_seq,
    list_firsts,
    list_spools,
    read_epoch,
    segment_path,
)
from pilotage.publisher.remotes import parse_copy

LOOK_EVERY_S = 2.0
LOOK_SHARE = 50  # looking may take this part of the time

Owner = tuple[str, str]  # a spool's name here and its epoch


class Life(NamedTuple):
    """A spool that is here, and since when."""

    spool: str
    epoch: str
    begun_ns: int


class SeedFile:
    """Keeps the file up to date; ``step`` is called for ever."""

    def __init__(
        self,
        db: Database,
        identity: IdentityService,
        finops: FinopsService,
        clock: Clock,
        *,
        spools: Path,
        path: Path,
    ) -> None:
        self._db = db
        self._identity = identity
        self._finops = finops
        self._clock = clock
        self._spools = spools
        self._path = path
        self._content = b""
        self._seen: object = None
        self._due_s = 0.0
        self._ends: dict[str, tuple[object, int]] = {}

    async def step(self) -> bool:
        """Write the file if something changed since the last look; return False."""
        began_s = self._clock.monotonic_s()
        if began_s < self._due_s:
            return False
        lives = await asyncio.to_thread(_list_lives, self._spools)
        async with self._db.read(SYSTEM) as tx:
            places = await self._finops.list_places(tx)
            active = await self._list_active(tx)
        if (lives, places, active) != self._seen:
            ended = find_ended(lives, active)
            ends = await asyncio.to_thread(self._find_ends, ended)
            gone = find_gone(lives, places, ends)
            async with self._db.read(SYSTEM) as tx:
                seeds = await self._collect(tx, gone)
            await self._write(encode_seeds(seeds))
            self._seen = (lives, places, active)
        took_s = self._clock.monotonic_s() - began_s
        self._due_s = began_s + max(LOOK_EVERY_S, took_s * LOOK_SHARE)
        return False

    def read(self, known: str) -> bytes | None:
        """Return what the file says; None if that is known already, by its SHA-256 in hex."""
        return None if known == hashlib.sha256(self._content).hexdigest() else self._content

    async def _list_active(self, tx: Tx) -> frozenset[str]:
        gateways = await self._identity.list_gateways(tx)
        return frozenset(item.name for item in gateways if self._identity.is_gateway(item))

    async def _collect(self, tx: Tx, gone: set[Owner]) -> Seeds:
        counted = await self._finops.list_counter_owners(tx)
        totals = {
            _name(owner): await self._finops.get_counters_of(tx, *owner) if owner in counted else {}
            for owner in sorted(gone)
        }
        return Seeds(living=[_name(owner) for owner in sorted(counted - gone)], gone=totals)

    async def _write(self, content: bytes) -> None:
        if content != self._content:
            await asyncio.to_thread(write_private, self._path, content)
            self._content = content

    def _find_ends(self, lives: Sequence[Life]) -> dict[Owner, int]:
        """Return the last record of each; it is looked for only where something was added."""
        found = {}
        for life in lives:
            folder = self._spools / life.spool
            firsts = list_firsts(folder)
            stamp = (firsts, segment_path(folder, firsts[-1]).stat().st_size if firsts else 0)
            known, seq = self._ends.get(life.spool, (None, 0))
            if known != stamp:
                seq = find_last_seq(folder)
                self._ends[life.spool] = stamp, seq
            found[life.spool, life.epoch] = seq
        return found


def find_ended(lives: Sequence[Life], active: Collection[str]) -> list[Life]:
    """Return the copies that get no more records: of gateways not active, and of earlier lives."""
    newest: dict[Owner, Life] = {}
    copies = [(slot, life) for life in lives if (slot := parse_copy(life.spool))]
    for slot, life in copies:
        if slot not in newest or newest[slot].begun_ns < life.begun_ns:
            newest[slot] = life
    return [life for slot, life in copies if slot[0] not in active or newest[slot] != life]


def find_gone(
    lives: Sequence[Life], places: Sequence[SpoolPlace], ends: Mapping[Owner, int]
) -> set[Owner]:
    """Return the owners that will not come back; ``ends`` has the last records of ended copies."""
    read = {(place.gateway, place.epoch): place.seq for place in places}
    here = {(life.spool, life.epoch) for life in lives}
    return (read.keys() - here) | {one for one, end in ends.items() if read.get(one, 0) >= end}


def _list_lives(spools: Path) -> list[Life]:
    return [
        Life(folder.name, read_epoch(folder), (folder / EPOCH_FILE).stat().st_mtime_ns)
        for folder in list_spools(spools)
    ]


def _name(owner: Owner) -> str:
    """Return what its gateway calls itself."""
    copy = parse_copy(owner[0])
    return name_owner(copy[1] if copy else owner[0], owner[1])
