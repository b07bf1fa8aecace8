"""Lines of costs, quantities and times: sums that lose nothing."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage
from pilotage.finops.costs.rules import (
    BANDS,
    DAY_US,
    HOUR_US,
    LINE_SUMS,
    find_band,
    find_corrected,
    make_line_id,
    make_lines,
    measure_busy_us,
    place_day,
    price_nano,
    reverse_shares,
    share_days,
    split_hours,
    to_micro_gib_months,
    to_micro_hours,
)
from pilotage.finops.costs.types import CostKind, EntrySpec, Share
from pilotage.finops.months.rules import find_due
from pilotage.finops.rules import make_charge, make_reversal
from pilotage.finops.types import LedgerEntry
from pilotage.kit.clock import parse_time

NOON = 1_773_144_000_000_000
ENDED = Ended(
    call_id="c",
    at_us=NOON,
    project_id="prj",
    tenant_id="ten",
    key_id="key",
    alias="chat",
    outcome=Outcome.OK,
    status=200,
    usage=Usage(10, 2, 3, 4, 5),
    cost_nano=700,
    is_estimated=False,
    duration_us=1,
    ttft_us=1,
    chunks=1,
    attempts=1,
)


def charge(**more: object) -> LedgerEntry:
    return make_charge(msgspec.structs.replace(ENDED, **more), "gateway-0")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.integers(0, 3),
            st.integers(0, 400_000),
            st.integers(0, 10**12),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_lines_have_what_the_entries_have_in_any_order(
    calls: Sequence[tuple[str, int, int, int, bool]], shuffle: object
) -> None:
    entries = [
        charge(
            call_id=f"c{number}",
            user=user,
            at_us=NOON + day * DAY_US,
            usage=Usage(prompt, 0, 0, 7, 0),
            cost_nano=cost,
            is_estimated=estimated,
        )
        for number, (user, day, prompt, cost, estimated) in enumerate(calls)
    ]

    lines = make_lines(entries)

    again = entries[:]
    shuffle.shuffle(again)  # type: ignore[attr-defined]
    assert make_lines(again) == lines
    assert sum(line.cost_nano for line in lines.values()) == sum(e.cost_nano for e in entries)
    assert sum(line.calls for line in lines.values()) == len(entries)
    assert sum(line.estimated_nano for line in lines.values()) == sum(
        e.cost_nano for e in entries if e.is_estimated
    )
    assert len({(e.user, e.day, find_band(e.input_tokens)) for e in entries}) == len(lines)


def test_a_reversal_in_the_same_line_leaves_calls_and_no_money() -> None:
    entry = charge()
    reversal = make_reversal(entry, NOON + HOUR_US)

    (line,) = make_lines([entry, reversal]).values()

    assert line.calls == 1
    assert [getattr(line, name) for name in LINE_SUMS[1:]] == [0] * 7


def test_a_reversal_of_another_month_is_a_line_of_its_own() -> None:
    entry = charge()
    reversal = make_reversal(entry, NOON + 40 * DAY_US)
    month = find_corrected(entry.day, reversal.day)

    lines = make_lines([entry, reversal], {"c": month})

    assert month == "2026-03"
    assert find_corrected("2026-03-01", "2026-03-31") == ""
    assert find_corrected("2026-06-01", "2026-03-31") == ""
    assert sorted(line.corrects for line in lines.values()) == ["", "2026-03"]
    assert sum(line.cost_nano for line in lines.values()) == 0


def test_a_late_call_is_of_the_day_on_which_it_is_billed() -> None:
    late = replace(charge(), billed_day="2026-04-20")

    (line,) = make_lines([late]).values()

    assert (line.day, line.corrects) == ("2026-04-20", "2026-03")
    assert make_reversal(late, NOON).billed_day is None


@pytest.mark.parametrize(
    ("day", "closed", "found"),
    [
        ("2026-03-31", "", ("2026-03-31", "")),
        ("2026-04-01", "2026-03", ("2026-04-01", "")),
        ("2026-03-31", "2026-03", ("2026-04-20", "2026-03")),
        ("2025-12-31", "2026-03", ("2026-04-20", "2025-12")),
        ("2026-03-31", "2026-05", ("2026-06-01", "2026-03")),  # the clock was set back
    ],
)
def test_what_belongs_to_a_closed_month_counts_today(
    day: str, closed: str, found: tuple[str, str]
) -> None:
    assert place_day(day, closed, "2026-04-20") == found


@given(
    st.integers(0, 10**16),
    st.integers(1, 400 * DAY_US),
    st.integers(-(10**18), 10**18),
    st.integers(0, 10**15),
    st.sampled_from(["", "1990-05", "2026-03"]),
)
def test_shares_of_days_add_up_and_can_be_taken_back(
    start_us: int, length_us: int, nano: int, quantity: int, closed: str
) -> None:
    spec = EntrySpec(
        kind=CostKind.NETWORK,
        source="bill",
        start_us=start_us,
        end_us=start_us + length_us,
        cost_nano=nano,
        quantity=quantity,
    )

    shares = share_days(spec, closed, "2026-04-20")
    gone = reverse_shares(shares, "2026-05-02")

    for each, sign in ((shares, 1), (gone, -1)):
        assert sum(share.cost_nano for share in each) == sign * nano
        assert sum(share.quantity for share in each) == sign * quantity
        assert len({(share.day, share.corrects) for share in each}) == len(each)
    assert all(share.day[:7] > closed for share in shares)
    assert all(share.day >= "2026-05-02" for share in gone)


def test_a_span_is_shared_by_the_time_of_its_days() -> None:
    spec = EntrySpec(
        kind=CostKind.OTHER,
        source="bill",
        start_us=NOON,
        end_us=NOON + 2 * DAY_US,
        cost_nano=401,
    )

    shares = share_days(spec, "", "2026-04-20")
    late = share_days(spec, "2026-03", "2026-04-20")
    gone = reverse_shares(shares, "2026-03-11")

    assert [(share.day, share.cost_nano) for share in shares] == [
        ("2026-03-10", 100),
        ("2026-03-11", 200),
        ("2026-03-12", 101),
    ]
    assert late == (Share(day="2026-04-20", cost_nano=401, corrects="2026-03"),)
    assert [(share.day, share.cost_nano) for share in gone] == [
        ("2026-03-11", -300),
        ("2026-03-12", -101),
    ]


@pytest.mark.parametrize(
    ("now", "due"),
    [("2026-04-03", "2026-02"), ("2026-04-04", "2026-03"), ("2026-01-04", "2025-12")],
)
def test_a_month_is_due_some_days_after_its_end(now: str, due: str) -> None:
    assert find_due(parse_time(now), 3 * DAY_US) == due


def test_a_prompt_is_in_the_band_that_it_is_above() -> None:
    assert [find_band(size) for size in (0, 100_000, 100_001, -128_001, 10**9)] == [
        0,
        0,
        100_000,
        128_000,
        BANDS[-1],
    ]


def test_lines_that_differ_in_anything_have_different_ids() -> None:
    assert make_line_id(["a", "b"]) != make_line_id(["ab", ""])
    assert make_line_id(["a", 1]) == make_line_id(["a", 1])


def test_quantities_cost_what_they_should() -> None:
    assert to_micro_hours(HOUR_US // 2) == 500_000
    assert price_nano(500_000, 710_000_000) == 355_000_000
    assert to_micro_gib_months(1 << 30, 730) == 1_000_000
    assert price_nano(1, 1) == 0
    assert price_nano(3, 500_000) == 2  # 1.5 goes to the even one


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 60))), st.integers(0, 100))
def test_busy_time_is_counted_once(found: Sequence[tuple[int, int]], start: int) -> None:
    spans = [(begin, begin + length) for begin, length in found]
    end = start + 50

    busy = measure_busy_us(spans, start, end)

    ticks = {tick for begin, until in spans for tick in range(begin, until)}
    assert busy == len(ticks & set(range(start, end)))


@given(st.integers(0, 10 * HOUR_US), st.integers(0, 10 * HOUR_US))
def test_hours_are_cut_without_a_gap(start: int, length: int) -> None:
    parts = split_hours(start, start + length)

    assert sum(end - begin for begin, end in parts) == length
    assert all(begin // HOUR_US == (end - 1) // HOUR_US for begin, end in parts)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
