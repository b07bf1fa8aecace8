"""Which segments are merged, and what a question looks at."""

from itertools import count

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.monitoring.calls.rules import (
    DAY_US,
    FAN_IN,
    FULL_ROWS,
    SETTLED_US,
    find_columns,
    pick_merge,
)
from pilotage.monitoring.calls.types import Segment

NAMES = ("tenant_id", "model", "cost_nano", "ended_at")
_NUMBERS = count()


def make_segment(
    at_us: int, rows: int = 1, *, project_id: str = "prj", level: int = 0, name: str = ""
) -> Segment:
    return Segment(
        name=name or f"{next(_NUMBERS):09d}",
        project_id=project_id,
        level=level,
        rows=rows,
        size_bytes=1,
        first_at_us=at_us,
        last_at_us=at_us,
        created_at_us=at_us,
    )


def merge(parts: list[Segment]) -> Segment:
    return make_segment(
        min(part.first_at_us for part in parts),
        sum(part.rows for part in parts),
        project_id=parts[0].project_id,
        level=max(part.level for part in parts) + 1,
    )


def merge_all(living: list[Segment], now_us: int) -> list[Segment]:
    """Merge until there is nothing to gain."""
    while found := pick_merge(living, now_us):
        assert len(found) > 1
        assert len({(part.project_id, part.first_at_us // DAY_US) for part in found}) == 1
        assert found == sorted(found, key=lambda part: (part.first_at_us, part.name))
        living = [part for part in living if part not in found] + [merge(found)]
    return living


def test_a_running_day_is_merged_level_by_level() -> None:
    few = [make_segment(n) for n in range(FAN_IN - 1)]
    assert pick_merge(few, 0) == []
    assert pick_merge([*few, make_segment(0, level=1)], 0) == []
    enough = [*few, make_segment(FAN_IN)]
    assert pick_merge(enough, 0) == enough


def test_a_day_that_is_over_becomes_one() -> None:
    day = [make_segment(0), make_segment(5, level=2), make_segment(9)]
    assert pick_merge(day, DAY_US + SETTLED_US - 1) == []
    assert pick_merge(day, DAY_US + SETTLED_US) == day
    assert pick_merge(day[:1], 9 * DAY_US) == []


def test_projects_and_days_stay_apart_and_the_oldest_is_first() -> None:
    old = [make_segment(0, project_id="b"), make_segment(1, project_id="b")]
    new = [make_segment(DAY_US, project_id="a"), make_segment(DAY_US, project_id="a")]
    alone = make_segment(0, project_id="a")
    assert pick_merge([*new, alone, *old], 9 * DAY_US) == old


def test_what_is_full_is_merged_no_more() -> None:
    full = [make_segment(n, FULL_ROWS) for n in range(FAN_IN)]
    assert pick_merge(full, 9 * DAY_US) == []
    halves = [make_segment(n, FULL_ROWS // 2, name=f"{n:09d}") for n in range(4)]
    assert pick_merge(halves, 9 * DAY_US) == halves[:2]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, FULL_ROWS)), max_size=60),
    st.integers(0, 4 * DAY_US),
)
def test_merging_ends_with_few_files_and_all_rows(made: list[tuple[int, int]], now_us: int) -> None:
    living = [make_segment(day * DAY_US, rows) for day, rows in made]
    left = merge_all(living, now_us)
    assert sum(part.rows for part in left) == sum(rows for _, rows in made)
    for day in range(3):
        small = [
            part for part in left if part.first_at_us == day * DAY_US and part.rows < FULL_ROWS
        ]
        if (day + 1) * DAY_US + SETTLED_US <= now_us:
            assert len(small) <= 1
        else:
            assert len(small) <= 3 * FAN_IN


def parse(sql: str) -> object:
    """Return a statement as DuckDB parses it."""
    with duckdb.connect() as connection:
        found = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql])
        return msgspec.json.decode(found.fetchall()[0][0])


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT tenant_id, sum(cost_nano) FROM calls GROUP BY 1", {"tenant_id", "cost_nano"}),
        ("SELECT c.MODEL FROM calls c", {"model"}),
        ("SELECT count(*) FROM calls", set()),
        ("SELECT 1 FROM calls a JOIN calls b USING (model)", {"model"}),
        ("SELECT (SELECT max(ended_at) FROM calls)", {"ended_at"}),
        ("SELECT model, count(*) FROM calls GROUP BY ALL ORDER BY ALL", {"model"}),
        ("SELECT model FROM calls ORDER BY COLUMNS('t.*')", set(NAMES)),
        ("FROM calls", set(NAMES)),
        ("SELECT c FROM calls c", set(NAMES)),
        ("SELECT #1 FROM calls", set(NAMES)),
        ("SELECT a.model FROM calls a NATURAL JOIN calls b", set(NAMES)),
        ("SELECT COLUMNS('t.*') FROM calls", set(NAMES)),
        ("WITH x AS (SELECT model m FROM calls) SELECT m FROM x", set(NAMES)),
    ],
)
def test_a_question_looks_at_what_it_names_or_at_everything(sql: str, found: set[str]) -> None:
    assert find_columns(parse(sql), NAMES) == found
