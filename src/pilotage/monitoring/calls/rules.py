"""What segments decide: which are merged next, and what a question needs to know of a call."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from pilotage.monitoring.calls.types import Segment

FAN_IN = 16  # segments of a level that are merged to one of the next
FULL_ROWS = 1_000_000  # a segment of so many rows is merged no more
_WIDE = {"STAR", "POSITIONAL_REFERENCE"}  # types of expressions
DAY_US = 86_400_000_000
SETTLED_US = 900_000_000  # after its end a day gets few more calls


def pick_merge(segments: Iterable[Segment], now_us: int) -> list[Segment]:
    """Return segments to be merged to one, oldest calls first; none if there is nothing to gain.

    Segments are merged within a project and a day, so that retention stays exact to the day. Of a
    day that is over all that are not full become one; before that, ``FAN_IN`` of the same level
    do, so that a row is written again only a few times and there are never many files.
    """
    groups: dict[tuple[str, int], list[Segment]] = defaultdict(list)
    for segment in segments:
        if segment.rows < FULL_ROWS:
            groups[segment.project_id, segment.first_at_us // DAY_US].append(segment)
    for project_id, day in sorted(groups, key=lambda group: (group[1], group[0])):
        is_over = (day + 1) * DAY_US + SETTLED_US <= now_us
        found = _pick_in_day(groups[project_id, day], is_over=is_over)
        if found:
            return sorted(found, key=lambda segment: (segment.first_at_us, segment.name))
    return []


def find_columns(parsed: object, columns: Collection[str]) -> set[str]:
    """Return the columns that a parsed statement (DuckDB's JSON) may look at.

    Whatever is not plain (a star, a natural join, a place instead of a name, a word that is no
    column and might be the row as a whole) counts as all of them.
    """
    known = {name.lower(): name for name in columns}
    found: set[str] = set()
    for node in _walk(parsed):
        if isinstance(node, str):
            if node.lower() in known:
                found.add(known[node.lower()])
        elif _is_wide(node, known):
            return set(columns)
    return found


def _pick_in_day(segments: Sequence[Segment], *, is_over: bool) -> list[Segment]:
    if is_over:
        return _fill(segments) if len(segments) > 1 else []
    levels: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        levels[segment.level].append(segment)
    for level in sorted(levels):
        if len(levels[level]) >= FAN_IN:
            return levels[level][:FAN_IN]
    return []


def _fill(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments until they are a full one together; at least two."""
    found: list[Segment] = []
    rows = 0
    for segment in sorted(segments, key=lambda item: (item.rows, item.name)):
        if rows >= FULL_ROWS and len(found) > 1:
            break
        found.append(segment)
        rows += segment.rows
    return found


def _is_wide(node: dict[str, object], known: dict[str, str]) -> bool:
    if node.get("type") in _WIDE or node.get("ref_type") == "NATURAL":
        return True
    names = node.get("column_names")
    return isinstance(names, list) and str(names[-1]).lower() not in known


def _walk(parsed: object) -> Iterator[dict[str, object] | str]:
    """Yield every object and every text of a JSON document."""
    waiting = [parsed]
    while waiting:
        item = waiting.pop()
        if _is_order_by_all(item):
            continue  # its star stands for what is selected
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str):
            yield item


def _is_order_by_all(item: object) -> bool:
    match item:
        case {"null_order": _, "expression": {"type": "STAR", "columns": True, "expr": None}}:
            return True
    return False
