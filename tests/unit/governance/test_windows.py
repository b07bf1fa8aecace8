"""Freezes in time: what they cover, across weeks and clock changes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.governance.icalendar import write_calendar
from pilotage.governance.types import (
    Freeze,
    FreezeSpec,
    ReleaseState,
    Repeat,
    ScheduledRelease,
    Window,
)
from pilotage.governance.windows import check_freeze, find_window, is_for, list_windows

BERLIN = ZoneInfo("Europe/Berlin")
DAY_US = 86_400_000_000


def us(text: str, zone: ZoneInfo | None = None) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=zone or UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


FRIDAY = Freeze(
    id="frz_1",
    rev=1,
    project_id="prj_1",
    name="weekend",
    reason="nobody is there",
    starts_at_us=us("2026-03-20T18:00", BERLIN),
    ends_at_us=us("2026-03-23T07:00", BERLIN),
    repeat=Repeat.WEEKLY,
    time_zone="Europe/Berlin",
    created_by="usr_1",
    created_at_us=0,
)


def test_a_weekly_freeze_keeps_its_local_hours_when_the_clocks_change() -> None:
    windows = islice(list_windows(FRIDAY, BERLIN, FRIDAY.starts_at_us, us("2027-01-01")), 3)

    local = [
        (
            datetime.fromtimestamp(window.starts_at_us / 1e6, BERLIN).isoformat(),
            datetime.fromtimestamp(window.ends_at_us / 1e6, BERLIN).isoformat(),
        )
        for window in windows
    ]
    assert local == [
        ("2026-03-20T18:00:00+01:00", "2026-03-23T07:00:00+01:00"),
        ("2026-03-27T18:00:00+01:00", "2026-03-30T07:00:00+02:00"),
        ("2026-04-03T18:00:00+02:00", "2026-04-06T07:00:00+02:00"),
    ]


@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        ("2026-10-24T16:00", "2026-10-25T01:45"),  # ends at the second 02:45
        ("2026-10-25T01:10", "2026-10-25T01:50"),  # lies in the second hour
        ("2026-10-25T00:10", "2026-10-25T01:10"),  # from 02:10 to 02:10
    ],
)
@pytest.mark.parametrize("repeat", Repeat)
def test_a_freeze_in_the_hour_that_comes_twice_is_as_it_was_set(
    starts: str, ends: str, repeat: Repeat
) -> None:
    freeze = replace(FRIDAY, starts_at_us=us(starts), ends_at_us=us(ends), repeat=repeat)

    window = next(list_windows(freeze, BERLIN, 0, us("2026-10-27")))

    assert (window.starts_at_us, window.ends_at_us) == (us(starts), us(ends))
    assert find_window(freeze, BERLIN, us(starts)) == window
    assert find_window(freeze, BERLIN, us(ends) - 1) == window
    assert find_window(freeze, BERLIN, us(ends)) is None


@pytest.mark.parametrize(
    ("sunday", "starts", "ends"),
    [
        ("2026-10-25", "2026-10-25T00:10", "2026-10-25T01:50"),  # from the first to the second
        ("2026-03-29", "2026-03-29T00:10", "2026-03-29T01:50"),  # neither 02:10 nor 02:50 comes
    ],
)
def test_a_later_week_holds_for_longer_where_the_clocks_change(
    sunday: str, starts: str, ends: str
) -> None:
    day = datetime.fromisoformat(sunday) - timedelta(days=21)
    freeze = replace(
        FRIDAY,
        starts_at_us=us(f"{day:%Y-%m-%d}T02:10", BERLIN),
        ends_at_us=us(f"{day:%Y-%m-%d}T02:50", BERLIN),
    )

    windows = list(list_windows(freeze, BERLIN, 0, us(ends) + 8 * DAY_US))

    assert (windows[3].starts_at_us, windows[3].ends_at_us) == (us(starts), us(ends))
    lengths = [item.ends_at_us - item.starts_at_us for item in windows]
    assert [length // 60_000_000 for length in lengths] == [40, 40, 40, 100, 40]


@given(st.integers(0, 400 * DAY_US), st.integers(1, 30 * DAY_US))
def test_windows_of_a_span_are_those_that_touch_it(start: int, length: int) -> None:
    from_us = FRIDAY.starts_at_us - DAY_US + start
    every = list(list_windows(FRIDAY, BERLIN, 0, FRIDAY.starts_at_us + 500 * DAY_US))
    to_us = from_us + length

    found = list(list_windows(FRIDAY, BERLIN, from_us, to_us))

    touching = [item for item in every if item.starts_at_us < to_us and item.ends_at_us > from_us]
    assert found == touching
    holds = any(item.starts_at_us <= from_us < item.ends_at_us for item in every)
    assert (find_window(FRIDAY, BERLIN, from_us) is not None) == holds


def test_a_freeze_ends_before_its_last_moment() -> None:
    once = replace(FRIDAY, repeat=Repeat.NEVER)

    assert find_window(once, BERLIN, once.starts_at_us) is not None
    assert find_window(once, BERLIN, once.starts_at_us - 1) is None
    assert find_window(once, BERLIN, once.ends_at_us - 1) is not None
    assert find_window(once, BERLIN, once.ends_at_us) is None
    assert find_window(once, BERLIN, once.ends_at_us + 7 * DAY_US - 1) is None


def test_repetitions_end() -> None:
    until = replace(FRIDAY, until_us=us("2026-04-03"))

    assert len(list(list_windows(until, BERLIN, 0, us("2030-01-01")))) == 2
    assert list(list_windows(replace(FRIDAY, lifted_at_us=1), BERLIN, 0, us("2030-01-01"))) == []


@pytest.mark.parametrize(
    ("names", "subject", "holds"),
    [
        ((), "chat", True),
        (("chat",), "chat", True),
        (("chat",), "chatter", False),
        (("tiny",), "tiny@1.0.0", True),
        (("tiny@1.0.0",), "tiny@1.0.0", True),
        (("tiny@1.0.0",), "tiny@2.0.0", False),
    ],
)
def test_what_a_freeze_is_for(names: tuple[str, ...], subject: str, holds: bool) -> None:
    assert is_for(replace(FRIDAY, names=names), subject) is holds


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"ends_at_us": 0}, "ends_at"),
        ({"ends_at_us": 367 * DAY_US}, "ends_at"),
        ({"ends_at_us": 8 * DAY_US, "repeat": Repeat.WEEKLY}, "ends_at"),
        ({"until_us": 5}, "until"),
        ({"until_us": 0, "repeat": Repeat.WEEKLY}, "until"),
    ],
)
def test_what_no_freeze_can_be(changes: dict[str, object], param: str) -> None:
    spec = FreezeSpec(reason="a", starts_at_us=0, ends_at_us=DAY_US)

    assert check_freeze(spec) == spec
    with pytest.raises(PilotageError) as refused:
        check_freeze(replace(spec, **changes))  # type: ignore[arg-type]
    assert refused.value.param == param


def test_the_calendar_is_one_that_calendar_programs_read() -> None:
    hostile = "over;\r\nEND:VCALENDAR\r\nBEGIN:X, \\ \x07" + "ü" * 60
    freeze = replace(FRIDAY, reason=hostile)
    window = Window(freeze=freeze, starts_at_us=us("2026-03-20"), ends_at_us=us("2026-03-21"))
    release = ScheduledRelease(
        id="sch_1",
        rev=2,
        project_id="prj_1",
        action="registry.version.promote",
        subject_id="ver_1",
        subject="tiny@1.0.0",
        arguments={},
        at_us=us("2026-03-22T10:00"),
        requested_by="usr_1",
        requested_at_us=0,
        reason="June",
        state=ReleaseState.REFUSED,
        outcome="frozen: a, b",
    )

    text = write_calendar("default", [window], [release], us("2026-01-01"))

    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert "\n" not in text.replace("\r\n", "")
    lines = text.replace("\r\n ", "").split("\r\n")
    assert [line for line in lines if line.startswith(("BEGIN", "END"))] == [
        "BEGIN:VCALENDAR",
        "BEGIN:VEVENT",
        "END:VEVENT",
        "BEGIN:VEVENT",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    assert "DTSTART:20260320T000000Z" in lines
    assert "STATUS:CANCELLED" in lines
    description = next(line for line in lines if line.startswith("DESCRIPTION:over"))
    assert description.startswith("DESCRIPTION:over\\;\\nEND:VCALENDAR\\nBEGIN:X\\, \\\\  ü")
