"""Cells and levels: nothing is counted twice or lost, in whatever order it comes."""

import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls import NOON_US, make_call
from pilotage.core.frames import Ended, Outcome
from pilotage.core.names import SHADOW_TENANT
from pilotage.monitoring.rollups.packing import pack, unpack
from pilotage.monitoring.rollups.rules import (
    AHEAD_US,
    GRACE_US,
    Cells,
    Stretch,
    add_up,
    age,
    check_call,
    coarsen,
    cover,
    find_key,
    find_next_fold,
    fit,
    floor,
    mark_folded,
    settle_time,
    spread,
)
from pilotage.monitoring.rollups.types import (
    MOST_NAMES,
    OTHER,
    Cell,
    CellKey,
    Keep,
    Level,
    Marks,
    is_error,
)

MINUTE_US = Level.MINUTE.span_us
HOUR_US = Level.HOUR.span_us
DAY_US = Level.DAY.span_us
KEEP = Keep(minutes_us=3 * HOUR_US, hours_us=2 * DAY_US, days_us=10 * DAY_US)

durations = st.integers(-1, 10**9)
calls = st.builds(
    make_call,
    tenant_id=st.sampled_from(["ten_a", "ten_b"]),
    alias=st.sampled_from(["chat", "code"]),
    outcome=st.sampled_from(Outcome),
    duration_us=durations,
    ttft_us=durations,
    queue_us=durations,
    chunks=st.integers(0, 50),
    cost_nano=st.integers(0, 10**12),
    is_estimated=st.booleans(),
    code=st.sampled_from(["", "rate_limited", "deadline"]),
    feature=st.sampled_from(["", "search"]),
    flags=st.lists(st.sampled_from(["shadow", "retried"]), unique=True),
    at_us=st.integers(NOON_US - DAY_US, NOON_US + DAY_US),
)


def list_cells(cells: Cells) -> list[tuple[int, CellKey, Cell]]:
    return [(at_us, key, cell) for (at_us, key), cell in cells.items()]


class Book:
    """The levels as a store keeps them, in memory."""

    def __init__(self) -> None:
        self.levels: dict[Level, Cells] = {level: {} for level in Level}
        self.marks = Marks()

    def add(self, some: Sequence[Ended]) -> None:
        for level, cells in spread(add_up(some), self.marks).items():
            self.merge(level, cells)

    def merge(self, level: Level, cells: Cells) -> None:
        for place, cell in cells.items():
            self.levels[level].setdefault(place, Cell()).merge(cell)

    def fold(self, now_us: int) -> None:
        for level, below in ((Level.HOUR, Level.MINUTE), (Level.DAY, Level.HOUR)):
            while stretch := find_next_fold(level, self.first(level, below), self.marks, now_us):
                found = self.read(stretch._replace(level=below))
                coarsen(self.levels[level], list_cells(found), level)
                self.marks = mark_folded(self.marks, stretch)

    def first(self, level: Level, below: Level) -> int | None:
        marks = self.marks
        done_us = marks.hours_until_us if level is Level.HOUR else marks.days_until_us
        return min((at for at, _ in self.levels[below] if at >= done_us), default=None)

    def drop(self, now_us: int) -> None:
        self.marks = age(self.marks, KEEP, now_us)
        for level, since_us in zip(
            Level,
            (self.marks.minutes_since_us, self.marks.hours_since_us, self.marks.days_since_us),
            strict=True,
        ):
            cells = self.levels[level]
            self.levels[level] = {place: cells[place] for place in cells if place[0] >= since_us}

    def read(self, stretch: Stretch) -> Cells:
        cells = self.levels[stretch.level]
        return {
            place: cells[place]
            for place in cells
            if stretch.since_us <= place[0] < stretch.until_us
        }

    def sum(self, since_us: int, until_us: int, longest: Level = Level.DAY) -> Cell:
        whole = Cell()
        for stretch in cover(since_us, until_us, self.marks, longest):
            for cell in self.read(stretch).values():
                whole.merge(cell)
        return whole


def add(some: Sequence[Ended]) -> Cell:
    cell = Cell()
    for call in some:
        cell.add(call)
    return cell


@given(st.lists(calls, max_size=30), st.randoms(use_true_random=False), st.integers(1, 7))
def test_cells_merged_in_any_order_and_grouping_are_the_same(
    some: list[Ended], random: object, size: int
) -> None:
    parts = [add(some[start : start + size]) for start in range(0, len(some), size)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = Cell()
    for part in parts:
        merged.merge(part)
    assert merged == add(some)


@given(st.lists(calls, max_size=30))
def test_a_cell_comes_back_from_its_bytes(some: list[Ended]) -> None:
    cell = add(some)
    assert unpack(pack(cell)) == cell


@given(
    st.lists(
        st.one_of(
            st.lists(calls, max_size=8),
            st.sampled_from(["fold", "drop"]),
            st.integers(0, 3 * 24).map(lambda hours: hours * HOUR_US + 17_000_000),
        ),
        max_size=25,
    ),
    st.sampled_from(Level),
)
@settings(deadline=None)
def test_late_calls_folding_and_dropping_lose_nothing(
    steps: list[list[Ended] | str | int], longest: Level
) -> None:
    book, now_us, told = Book(), NOON_US, []
    for step in steps:
        if isinstance(step, int):
            now_us += step
        elif step == "fold":
            book.fold(now_us)
        elif step == "drop":
            book.drop(now_us)
        elif isinstance(step, list):
            book.add(step)
            told += step
    kept = [call for call in told if call.at_us >= book.marks.days_since_us]
    since_us, until_us = book.marks.days_since_us, NOON_US + 5 * DAY_US
    assert book.sum(since_us, until_us, longest).calls == len(kept)
    assert book.sum(since_us, until_us, longest) == add(kept)
    marks = book.marks
    assert marks.minutes_since_us <= marks.hours_until_us
    assert marks.hours_since_us <= marks.days_until_us <= marks.hours_until_us


@given(
    st.integers(0, 4 * DAY_US),
    st.integers(0, 3 * DAY_US),
    st.tuples(*(st.integers(0, 3 * 24) for _ in range(4))),
    st.sampled_from(Level),
)
def test_a_window_is_covered_without_gap_or_overlap(
    since: int, length: int, hours: tuple[int, int, int, int], longest: Level
) -> None:
    hours_until = NOON_US + hours[0] * HOUR_US
    days_until = min(floor(NOON_US + hours[1] * HOUR_US, Level.DAY), floor(hours_until, Level.DAY))
    marks = Marks(
        hours_until_us=hours_until,
        days_until_us=days_until,
        minutes_since_us=min(hours_until, NOON_US + hours[2] * HOUR_US),
        hours_since_us=min(days_until, floor(NOON_US + hours[3] * HOUR_US, Level.DAY)),
    )
    since_us = NOON_US - DAY_US + since
    until_us = since_us + length
    found = cover(since_us, until_us, marks, longest)
    assert bool(found) == (length > 0)
    for one, following in itertools.pairwise(found):
        assert one.until_us == following.since_us
        assert one.level is not following.level
    for level, start_us, end_us in found:
        assert start_us % level.span_us == end_us % level.span_us == 0
        assert level is not Level.MINUTE or start_us >= marks.minutes_since_us
        assert level is not Level.HOUR or marks.hours_since_us <= start_us
        assert level is not Level.HOUR or end_us <= marks.hours_until_us
        assert level is not Level.DAY or end_us <= marks.days_until_us
    if found:
        assert found[0].since_us <= since_us
        assert found[-1].until_us >= until_us
        assert since_us - found[0].since_us < found[0].level.span_us
        assert found[-1].until_us - until_us < found[-1].level.span_us
    assert len(found) <= 8


def test_a_long_window_is_made_of_few_stretches() -> None:
    midnight = floor(NOON_US, Level.DAY)
    marks = Marks(hours_until_us=NOON_US, days_until_us=midnight)
    assert cover(midnight - 30 * DAY_US, NOON_US + 90_000_000, marks) == [
        Stretch(Level.DAY, midnight - 30 * DAY_US, midnight),
        Stretch(Level.HOUR, midnight, NOON_US),
        Stretch(Level.MINUTE, NOON_US, NOON_US + 2 * MINUTE_US),
    ]
    assert cover(0, NOON_US, Marks()) == [Stretch(Level.MINUTE, 0, NOON_US)]


def test_an_hour_is_folded_when_it_is_over_and_empty_ones_are_passed_at_once() -> None:
    now_us = NOON_US + 10 * HOUR_US + GRACE_US
    first = find_next_fold(Level.HOUR, NOON_US + 5 * MINUTE_US, Marks(), now_us)
    assert first == Stretch(Level.HOUR, NOON_US, NOON_US + HOUR_US)
    marks = mark_folded(Marks(), first)
    rest = find_next_fold(Level.HOUR, None, marks, now_us)
    assert rest == Stretch(Level.HOUR, NOON_US + 10 * HOUR_US, NOON_US + 10 * HOUR_US)
    assert find_next_fold(Level.HOUR, None, mark_folded(marks, rest), now_us) is None
    assert find_next_fold(Level.DAY, None, Marks(), now_us) is None


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Outcome.OK, False),
        (Outcome.REFUSED, False),
        (Outcome.CLIENT_GONE, False),
        (Outcome.READER_STALLED, False),
        (Outcome.CANCELLED, False),
        (Outcome.UPSTREAM_ERROR, True),
        (Outcome.UPSTREAM_CUT, True),
        (Outcome.UPSTREAM_STALL, True),
        (Outcome.DEADLINE, True),
        (Outcome.DRAINING, True),
        (Outcome.INTERNAL_ERROR, True),
        (Outcome.LOST, True),
    ],
)
def test_what_counts_as_an_error(outcome: Outcome, counts: bool) -> None:
    assert is_error(outcome) is counts
    cell = add([make_call(outcome=outcome), make_call()])
    assert cell.errors == counts


def test_rates_of_nothing_are_not_known() -> None:
    assert Cell().error_rate is Cell().refusal_rate is None
    refused = add([make_call(outcome=Outcome.REFUSED)])
    assert (refused.error_rate, refused.refusal_rate) == (None, 1)


def test_time_per_chunk_is_of_what_follows_the_first() -> None:
    cell = add([make_call(duration_us=300_000, ttft_us=100_000, chunks=11), make_call(chunks=1)])
    assert cell.per_chunk.total == 20_000
    assert (cell.streams, cell.chunks, cell.per_chunk.count) == (2, 12, 1)


def test_names_beyond_the_bound_are_counted_together() -> None:
    cell = add([make_call(finish_reason=f"why{n}") for n in range(MOST_NAMES + 5)])
    assert len(cell.finish_reasons) == MOST_NAMES + 1
    assert cell.finish_reasons[OTHER] == 5
    assert sum(cell.finish_reasons.values()) == cell.calls


def test_copies_unknown_names_and_odd_letters_find_their_cells() -> None:
    assert find_key(make_call(flags=["shadow"])).tenant_id == SHADOW_TENANT
    unknown = make_call(outcome=Outcome.REFUSED, code="model_not_found", alias="x1", arm="")
    assert find_key(unknown).alias == OTHER
    assert find_key(make_call(model="a\x00b")).model == "a\N{REPLACEMENT CHARACTER}b"


@given(st.lists(calls, max_size=40), st.integers(0, 3))
def test_cells_of_a_span_are_bounded_and_complete(some: list[Ended], most: int) -> None:
    cells: Cells = {}
    coarsen(cells, list_cells(add_up(some)), Level.DAY)
    fitted = fit(cells, [], most)
    for at_us in {at for at, _ in fitted}:
        mine = [key for at, key in fitted if at == at_us]
        with_tenant = [key for key in mine if key.tenant_id != OTHER]
        assert len(with_tenant) <= most
        assert len(mine) <= 2 * most + 1
    whole = Cell()
    for cell in fitted.values():
        whole.merge(cell)
    assert whole == add(some)


def test_what_is_known_keeps_its_place_when_there_are_too_many() -> None:
    cells = add_up([make_call(), make_call(tenant_id="ten_b")])
    known = next(iter(cells))
    fitted = fit(cells, [known], 1)
    assert fitted.keys() == {known, (known[0], known[1]._replace(tenant_id=OTHER))}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost_nano": -1},
        {"chunks": 10**17},
        {"duration_us": -2},
        {"at_us": 10**18},
        {"status": 2**31},
        {"snapshot_n": 2**63},
        {"usage": msgspec.structs.replace(make_call().usage, output=-5)},
    ],
)
def test_numbers_that_no_call_has_are_refused(wrong: dict[str, object]) -> None:
    assert check_call(make_call()) == make_call()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check_call(make_call(**wrong))


@given(calls, st.integers(0, 2 * NOON_US))
def test_no_frame_is_of_a_time_far_ahead(call: Ended, now_us: int) -> None:
    settled = settle_time(call, now_us)
    assert settled.at_us <= now_us + AHEAD_US
    assert settled == msgspec.structs.replace(call, at_us=settled.at_us)
    assert settled.at_us in {call.at_us, now_us}
    assert settle_time(settled, now_us) is settled


def test_there_was_no_call_before_1970() -> None:
    with pytest.raises(ValueError, match="at_us"):
        settle_time(make_call(at_us=-1), 0)
