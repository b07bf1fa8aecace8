"""What rollups decide: whose a call is, in which cells it is counted, and which make up a window.

Cells of minutes are folded into hours and those into days once they are over, and dropped when they
are old. A call that arrives late is counted wherever its time is told by then, so that each level
alone is complete: hours up to ``Marks.hours_until_us`` and days up to ``Marks.days_until_us``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from pilotage.core.frames import Ended, Flag, Frame, Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.monitoring.rollups.types import (
    OTHER,
    Cell,
    CellKey,
    Keep,
    Level,
    Marks,
)

MOST_CELLS = 2_000  # of one project in one span that tell tenants apart
AHEAD_US = 3_600_000_000  # of ours, that gateways' clocks may be
GRACE_US = 120_000_000  # after the end of an hour or day until it is folded
_MOST = 10**9  # of anything in one call: what 10^9 such calls add up to still fits 64 bits
_MOST_US = 10**11  # a day and a bit
_MOST_NANO = 10**13  # 10,000 USD
_MOST_STATUS = 999
_LAST_US = 253_402_300_799_000_000  # the last second of the year 9999
_BOUNDS = (
    ("at_us", 0, _LAST_US),
    ("status", 0, _MOST_STATUS),
    ("snapshot_n", 0, 2**53),
    ("cost_nano", 0, _MOST_NANO),
    ("chunks", 0, _MOST),
    ("attempts", 0, _MOST),
    ("duration_us", -1, _MOST_US),
    ("ttft_us", -1, _MOST_US),
    ("queue_us", -1, _MOST_US),
)
_NO_MODEL = "model_not_found"

Place = tuple[int, CellKey]
"""When a cell's span begins, and whose calls it counts."""
Cells = dict[Place, Cell]


class Stretch(NamedTuple):
    """Cells of one level whose spans begin from one time to before another."""

    level: Level
    since_us: int
    until_us: int


def settle_time(frame: Frame, now_us: int) -> Frame:
    """Return a frame of a time that can be; raise ValueError for one before 1970.

    One from far ahead was written by a clock that was wrong, and counts as written now: else what
    is made of it would be kept until that time has come and gone.
    """
    if frame.at_us < 0:
        raise ValueError(f"at_us is {frame.at_us}")
    if frame.at_us <= now_us + AHEAD_US:
        return frame
    return msgspec.structs.replace(frame, at_us=now_us)


def check_call(ended: Ended) -> Ended:
    """Return a call that can be counted; raise ValueError for numbers that no call has."""
    for name, least, most in _BOUNDS:
        if not least <= getattr(ended, name) <= most:
            raise ValueError(f"{name} is {getattr(ended, name)}")
    if not all(0 <= tokens <= _MOST for tokens in msgspec.structs.astuple(ended.usage)):
        raise ValueError(f"usage is {ended.usage}")
    return ended


def find_key(ended: Ended) -> CellKey:
    """Return whose cell a call belongs to.

    A copy that no client waited for belongs to nobody's. NUL letters, which Postgres refuses, are
    replaced.
    """
    is_copy = Flag.SHADOW in ended.flags
    return _make_key(
        ended.project_id,
        SHADOW_TENANT if is_copy else ended.tenant_id,
        find_alias(ended),
        ended.arm,
        ended.version_id,
        ended.model,
    )


def find_alias(ended: Ended) -> str:
    """Return the alias of a call; a name that no alias has is not kept.

    Clients can think of any number of them, and write anything there.
    """
    is_unknown = ended.outcome is Outcome.REFUSED and ended.code == _NO_MODEL and not ended.arm
    return OTHER if is_unknown else ended.alias


def add_up(calls: Iterable[Ended]) -> Cells:
    """Return the cells of some calls by minute."""
    cells: Cells = {}
    for ended in calls:
        place = (floor(ended.at_us, Level.MINUTE), find_key(ended))
        cell = cells.get(place)
        if cell is None:
            cell = cells[place] = Cell()
        cell.add(ended)
    return cells


def coarsen(coarse: Cells, cells: Iterable[tuple[int, CellKey, Cell]], level: Level) -> None:
    """Add cells to those of a longer level that they are parts of."""
    for at_us, key, cell in cells:
        _merge_at(coarse, (floor(at_us, level), key), cell)


def spread(cells: Cells, marks: Marks) -> dict[Level, Cells]:
    """Return what cells of minutes add to each level: to those that tell of their time by now."""
    added: dict[Level, Cells] = {level: {} for level in Level}
    for place, cell in cells.items():
        for level in list_levels(place[0], marks):
            _merge_at(added[level], (floor(place[0], level), place[1]), cell)
    return added


def list_levels(at_us: int, marks: Marks) -> Iterator[Level]:
    """Yield the levels that a call of a minute is to be counted in."""
    if at_us >= marks.minutes_since_us:
        yield Level.MINUTE
    if marks.hours_since_us <= at_us < marks.hours_until_us:
        yield Level.HOUR
    if at_us < marks.days_until_us:
        yield Level.DAY


def fit(cells: Cells, known: Iterable[Place], most: int = MOST_CELLS) -> Cells:
    """Return cells of one level, with as few more keys in each span as fit beside the known ones.

    Beyond ``most`` keys of a project in a span a new key loses its tenant, beyond twice as many it
    keeps only its project: what is counted stays complete. Which come too late depends on the
    order in which they come.
    """
    there = set(known)
    counts = Counter((at_us, key.project_id) for at_us, key in there)
    fitted: Cells = {}
    for (at_us, key), cell in cells.items():
        place = (at_us, key)
        count = counts[at_us, key.project_id]
        if place not in there and count >= most:
            place = (at_us, key._replace(tenant_id=OTHER))
        if place not in there and count >= 2 * most:
            place = (at_us, CellKey(key.project_id, OTHER, OTHER, "", "", ""))
        if place not in there:
            there.add(place)
            counts[at_us, key.project_id] += 1
        _merge_at(fitted, place, cell)
    return fitted


def find_next_fold(level: Level, first_us: int | None, marks: Marks, now_us: int) -> Stretch | None:
    """Return the next hour or day to be folded from the level below, None if none is over.

    ``first_us`` is when the first cell of the level below begins that is not folded. Where nothing
    is to be folded the stretch is empty, and is all the time that is over.
    """
    over = (
        now_us - GRACE_US if level is Level.HOUR else min(now_us - GRACE_US, marks.hours_until_us)
    )
    until_us = floor(max(over, 0), level)
    done_us = marks.hours_until_us if level is Level.HOUR else marks.days_until_us
    if until_us <= done_us:
        return None
    if first_us is None or first_us >= until_us:
        return Stretch(level, until_us, until_us)
    since_us = floor(first_us, level)
    return Stretch(level, since_us, since_us + level.span_us)


def mark_folded(marks: Marks, stretch: Stretch) -> Marks:
    """Return how far a level is folded once a stretch is."""
    if stretch.level is Level.HOUR:
        return msgspec.structs.replace(marks, hours_until_us=stretch.until_us)
    return msgspec.structs.replace(marks, days_until_us=stretch.until_us)


def age(marks: Marks, keep: Keep, now_us: int) -> Marks:
    """Return since when each level is kept from now on: nothing goes that is not folded."""
    minutes = min(floor(max(now_us - keep.minutes_us, 0), Level.HOUR), marks.hours_until_us)
    hours = min(floor(max(now_us - keep.hours_us, 0), Level.DAY), marks.days_until_us)
    days = floor(max(now_us - keep.days_us, 0), Level.DAY)
    return Marks(
        minutes_since_us=max(marks.minutes_since_us, minutes),
        hours_since_us=max(marks.hours_since_us, hours),
        days_since_us=max(marks.days_since_us, days),
        hours_until_us=marks.hours_until_us,
        days_until_us=marks.days_until_us,
    )


def cover(
    since_us: int, until_us: int, marks: Marks, longest: Level = Level.DAY
) -> Sequence[Stretch]:
    """Return the cells that a window is made of, none twice, with as few of them as there can be.

    It is widened to whole minutes, and to whole hours or days where only those are kept. Cells are
    no longer than ``longest`` where shorter ones are kept.
    """
    found: list[Stretch] = []
    at_us = since_us
    while at_us < until_us:
        stretch = _begin(at_us, until_us, marks, longest)
        at_us = stretch.until_us
        if found and found[-1].level is stretch.level:
            stretch = stretch._replace(since_us=found.pop().since_us)
        found.append(stretch)
    return found


def find_longest(step_us: int) -> Level:
    """Return the longest cells that steps of a length can be made of."""
    fitting = [level for level in Level if step_us % level.span_us == 0]
    return fitting[-1] if fitting else Level.MINUTE


def floor(at_us: int, level: Level) -> int:
    """Return when the span began that a time lies in."""
    return at_us - at_us % level.span_us


def _begin(at_us: int, until_us: int, marks: Marks, longest: Level) -> Stretch:
    """Return the first cells of a window that are of one level."""
    if at_us < marks.hours_since_us:
        end_us = min(_ceil(until_us, Level.DAY), marks.hours_since_us)
        return Stretch(Level.DAY, floor(at_us, Level.DAY), end_us)
    days_us = floor(min(until_us, marks.days_until_us), Level.DAY)
    if longest is Level.DAY and _fits(at_us, days_us, Level.DAY):
        return Stretch(Level.DAY, at_us, days_us)
    is_day_near = longest is Level.DAY and at_us < marks.days_until_us
    next_day_us = _ceil(at_us + 1, Level.DAY) if is_day_near else _LAST_US
    hours_us = floor(min(until_us, marks.hours_until_us), Level.HOUR)
    if at_us < marks.minutes_since_us:
        end_us = min(_ceil(until_us, Level.HOUR), marks.minutes_since_us, next_day_us)
        return Stretch(Level.HOUR, floor(at_us, Level.HOUR), end_us)
    if longest is not Level.MINUTE and _fits(at_us, hours_us, Level.HOUR):
        return Stretch(Level.HOUR, at_us, min(hours_us, next_day_us))
    is_hour_near = longest is not Level.MINUTE and at_us < marks.hours_until_us
    next_hour_us = _ceil(at_us + 1, Level.HOUR) if is_hour_near else _LAST_US
    end_us = min(_ceil(until_us, Level.MINUTE), next_hour_us)
    return Stretch(Level.MINUTE, floor(at_us, Level.MINUTE), end_us)


def _fits(at_us: int, until_us: int, level: Level) -> bool:
    return at_us % level.span_us == 0 and at_us + level.span_us <= until_us


def _ceil(at_us: int, level: Level) -> int:
    return -(-at_us // level.span_us) * level.span_us


def _merge_at(cells: Cells, place: Place, cell: Cell) -> None:
    mine = cells.get(place)
    if mine is None:
        mine = cells[place] = Cell()
    mine.merge(cell)


@lru_cache(4096)
def _make_key(*texts: str) -> CellKey:
    """Make a key once for the many calls that have it."""
    return CellKey(*(text.replace("\x00", "\N{REPLACEMENT CHARACTER}") for text in texts))
