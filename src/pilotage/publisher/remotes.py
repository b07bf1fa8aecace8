"""Gateways that run apart: which Snapshot each serves, and the spools that they send."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import BEFORE_ROLLOUTS, SNAPSHOT_VERSION
from pilotage.kit.clock import Clock
from pilotage.kit.files import write_private
from pilotage.kit.spool_copy import Piece, SpoolCopies

ALIVE_S = 8.0  # a gateway says every three seconds that it is there
PREFIX = "remote-"
_SLOT = re.compile(r"gateway-\d{1,2}")
_NAME = re.compile(rf"{PREFIX}(.+)-({_SLOT.pattern})")
_COPY = re.compile(rf"{_NAME.pattern}\.[0-9a-f]+")


class SlotReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot of a gateway says of itself.

    It serves Snapshot ``n``, has handed in its records up to ``shipped``, and was last known to
    have handed in everything ``lag_us`` ago. ``reads`` is the newest version of Snapshots that it
    can read; programs that do not say so are of before rollouts.
    """

    n: int
    shipped: int = 0
    lag_us: int = 0
    reads: int = BEFORE_ROLLOUTS

    @property
    def is_outdated(self) -> bool:
        """Whether it cannot read what this program may publish: rollouts and adapters."""
        return self.reads < SNAPSHOT_VERSION


class SlotState(msgspec.Struct, frozen=True, kw_only=True):
    """A slot, what it said, and when it was heard."""

    slot: str
    seen_at_us: int
    report: SlotReport


class RemoteGateways:
    """Keeps what gateways report (a file for each slot) and takes in their spools."""

    def __init__(self, run: Path, copies: SpoolCopies, clock: Clock) -> None:
        self._run = run
        self._copies = copies
        self._clock = clock
        self._changed = asyncio.Condition()
        self._states = self._read_states()

    async def note(self, gateway: str, slot: str, report: SlotReport) -> None:
        """Take in what a slot of a gateway reports."""
        path = self._run / f"{name_slot(gateway, slot)}.json"
        state = SlotState(slot=slot, seen_at_us=self._clock.now_us(), report=report)
        async with self._changed:
            self._states[gateway, slot] = state
            self._changed.notify_all()
        content = msgspec.json.encode(state)
        await asyncio.to_thread(write_private, path, content, is_durable=False)

    async def wait_served(self, n: int, timeout_s: float) -> list[str]:
        """Wait until every slot that is alive serves Snapshot ``n``; return those that do not."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: not self._list_behind(n))
        except TimeoutError:
            return self._list_behind(n)
        return []

    def list_states(self, gateway: str) -> Sequence[SlotState]:
        """Return what is known of a gateway's slots, in order."""
        return [self._states[key] for key in sorted(self._states) if key[0] == gateway]

    def list_outdated(self) -> list[str]:
        """Return the slots that are alive and would end to serve if a rollout began."""
        return sorted(
            name_slot(*key)
            for key, state in self._states.items()
            if state.report.is_outdated and self.is_alive(state)
        )

    def is_alive(self, state: SlotState) -> bool:
        """Say whether a slot was heard of within seconds."""
        return self._clock.now_us() - state.seen_at_us < ALIVE_S * 1_000_000

    def forget(self, gateway: str) -> None:
        """Wait no more for a gateway whose credential is gone."""
        for state in self.list_states(gateway):
            del self._states[gateway, state.slot]
            (self._run / f"{name_slot(gateway, state.slot)}.json").unlink(missing_ok=True)

    async def find_seq(self, gateway: str, slot: str, epoch: str) -> int:
        """Return the last record of a gateway's spool that is here."""
        return await self._copies.find_seq(name_slot(gateway, slot), epoch)

    async def append(
        self, gateway: str, slot: str, epoch: str, piece: Piece, *, is_lost_before: bool
    ) -> int:
        """Take in records of a gateway's spool; return the last one that is on disk here."""
        return await self._copies.append(
            name_slot(gateway, slot), epoch, piece, is_lost_before=is_lost_before
        )

    def close(self) -> None:
        """Close every file."""
        self._copies.close()

    def _list_behind(self, n: int) -> list[str]:
        return sorted(
            name_slot(*key)
            for key, state in self._states.items()
            if state.report.n < n and self.is_alive(state)
        )

    def _read_states(self) -> dict[tuple[str, str], SlotState]:
        states = {}
        for path in self._run.glob(f"{PREFIX}*.json"):
            named = _NAME.fullmatch(path.stem)
            try:
                state = msgspec.json.decode(path.read_bytes(), type=SlotState)
            except (OSError, msgspec.DecodeError):  # the next report writes it anew
                continue
            if named:
                states[named[1], named[2]] = state
        return states


def parse_copy(folder: str) -> tuple[str, str] | None:
    """Return whose spool a folder is a copy of: the gateway and its slot; None for a local one."""
    named = _COPY.fullmatch(folder)
    return (named[1], named[2]) if named else None


def name_slot(gateway: str, slot: str) -> str:
    """Return what a gateway's slot is called here; local ones have no such names."""
    if not _SLOT.fullmatch(slot):
        raise PilotageError(
            "invalid_request", f"{slot[:80]!r} is no slot of a gateway.", param="slot"
        )
    return f"{PREFIX}{gateway}-{slot}"
