"""Which limits a call counts against, and which counter of each: looked up once per kind of call.

``""`` in a limit matches any and counts all together, ``"*"`` matches any and counts each apart.
A call without a user counts, where users count apart, under its key.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from pilotage.core.snapshot import LimitEntry
from pilotage.gateway.counters.slices import Slice
from pilotage.gateway.counters.windows import Window

_ANY = ("", "*")


class Subject(NamedTuple):
    """Who calls what."""

    project_id: str
    tenant_id: str
    key_id: str
    alias: str
    user: str


class Bundle(NamedTuple):
    """The slices that a kind of call counts against, until the first of their windows ends.

    ``counters`` are the keys of the totals among them, ``shown`` the slices of which replies tell.
    """

    slices: tuple[Slice, ...]
    until_us: int
    counters: list[str]
    shown: tuple[Slice, ...]


class LimitIndex:
    """The limits of one Snapshot by whom they are for."""

    def __init__(self, limits: Sequence[LimitEntry]) -> None:
        self._by_place: dict[tuple[str, str, str, str], list[LimitEntry]] = {}
        for limit in limits:
            tenant_id, key_id, user = map(_fold, (limit.tenant_id, limit.key_id, limit.user))
            place = (limit.project_id, tenant_id, key_id, user)
            self._by_place.setdefault(place, []).append(limit)

    @property
    def is_empty(self) -> bool:
        """Whether there is no limit at all."""
        return not self._by_place

    def find(self, subject: Subject) -> Iterator[LimitEntry]:
        """Return the limits that calls of a subject count against."""
        places = product(
            (subject.project_id,),
            {"", subject.tenant_id},
            {"", subject.key_id},
            {"", subject.user},
        )
        for place in places:
            for limit in self._by_place.get(place, ()):
                if limit.alias in _ANY or limit.alias == subject.alias:
                    yield limit


def name_counter(limit: LimitEntry, subject: Subject, window: Window) -> str:
    """Return the key of a limit's counter: ``lim_1|cost|2026-11|key=key_1|user=alice``.

    The parts before the last hold no ``|``; the user, who may be named anything, comes last.
    """
    parts = [limit.id, limit.measure, window.name]
    if limit.tenant_id == "*":
        parts.append(f"tenant={subject.tenant_id}")
    if limit.key_id == "*" or (limit.user == "*" and not subject.user):
        parts.append(f"key={subject.key_id}")
    if limit.alias == "*":
        parts.append(f"alias={subject.alias}")
    if limit.user == "*" and subject.user:
        parts.append(f"user={subject.user}")
    return "|".join(parts)


def measure_of(key: str) -> str:
    """Return what a counter measures: requests, tokens or cost."""
    return key.split("|", 2)[1]


def window_of(key: str) -> str:
    """Return the name of a counter's window."""
    return key.split("|", 3)[2]


def _fold(wanted: str) -> str:
    return "" if wanted == "*" else wanted
