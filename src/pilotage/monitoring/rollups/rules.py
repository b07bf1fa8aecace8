"""What rollups decide: which cell a call belongs to, and which cells make up a window."""

from collections.abc import Iterable, Mapping

import msgspec

from pilotage.core.frames import Ended, Flag
from pilotage.monitoring.rollups.types import (
    SHADOW_TENANT,
    Cell,
    CellKey,
    Level,
)

_MOST = 10**16  # of anything in one call; sums of hundreds of them still fit 64 bits
_LAST_US = 253_402_300_799_000_000  # the last second of the year 9999
Cells = dict[tuple[int, CellKey], Cell]
"""Cells by when their span begins and whose calls they count."""


def find_key(ended: Ended) -> CellKey:
    """Return whose cell a call belongs to.

    A copy that no client waited for belongs to nobody's. NUL letters, which Postgres refuses in
    text, are replaced: a client's model name may have them.
    """
    is_copy = Flag.SHADOW in ended.flags
    return CellKey(
        _clean(ended.project_id),
        SHADOW_TENANT if is_copy else _clean(ended.tenant_id),
        _clean(ended.alias),
        _clean(ended.arm),
        _clean(ended.version_id),
        _clean(ended.model),
    )


def check_call(ended: Ended) -> Ended:
    """Return a call that can be counted; raise ValueError for numbers that no call has."""
    for name in ("cost_nano", "chunks", "attempts"):
        if not 0 <= getattr(ended, name) <= _MOST:
            raise ValueError(f"{name} is {getattr(ended, name)}")
    for name in ("duration_us", "ttft_us", "queue_us"):
        if not -1 <= getattr(ended, name) <= _MOST:
            raise ValueError(f"{name} is {getattr(ended, name)}")
    if not 0 <= ended.at_us <= _LAST_US:
        raise ValueError(f"at_us is {ended.at_us}")
    if not all(0 <= tokens <= _MOST for tokens in msgspec.structs.astuple(ended.usage)):
        raise ValueError(f"usage is {ended.usage}")
    return ended


def add_up(calls: Iterable[Ended], level: Level = Level.MINUTE) -> Cells:
    """Return the cells of some calls."""
    cells: Cells = {}
    span_us = level.span_us
    for ended in calls:
        place = (ended.at_us - ended.at_us % span_us, find_key(ended))
        cell = cells.get(place)
        if cell is None:
            cell = cells[place] = Cell()
        cell.add(ended)
    return cells


def merge_into(cells: Cells, more: Mapping[tuple[int, CellKey], Cell]) -> None:
    """Add cells to cells."""
    for place, cell in more.items():
        mine = cells.setdefault(place, Cell())
        mine.merge(cell)


def floor(at_us: int, level: Level) -> int:
    """Return when the span began that a time lies in."""
    return at_us - at_us % level.span_us


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
