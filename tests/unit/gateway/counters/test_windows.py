"""Days and months begin when a tenant's calendar says so."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.counters.windows import (
    ENDLESS,
    NOW,
    RATE,
    Calendar,
    find_window,
    forget_at_us,
)

ZONES = ["UTC", "Europe/Paris", "Australia/Sydney", "Asia/Kathmandu", "America/Sao_Paulo"]
times = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive by contract


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@given(times, st.sampled_from(ZONES), st.sampled_from(["day", "month"]))
def test_a_window_holds_its_time_and_is_named_by_the_local_date(
    moment: datetime, zone: str, per: str
) -> None:
    now_us = micros(moment)
    window = find_window(per, zone, now_us)
    assert window.start_us <= now_us < window.end_us
    local = moment.astimezone(ZoneInfo(zone))
    assert window.name == f"{local:%Y-%m-%d}" if per == "day" else f"{local:%Y-%m}"
    following = find_window(per, zone, window.end_us)
    assert following.start_us == window.end_us
    assert following.name > window.name
    assert (
        window.end_us + 86_400_000_000 <= window.forget_at_us <= window.end_us + 4 * 86_400_000_000
    )


def test_a_day_of_the_change_of_clocks_has_its_own_length() -> None:
    noon = micros(datetime(2026, 3, 29, 12, tzinfo=UTC))
    window = find_window("day", "Europe/Paris", noon)
    assert window.end_us - window.start_us == 23 * 3_600_000_000


def test_the_calendar_works_each_window_out_once() -> None:
    calendar = Calendar()
    now_us = micros(datetime(2026, 11, 21, 7, tzinfo=UTC))
    first = calendar.find("month", "UTC", now_us)
    assert calendar.find("month", "UTC", now_us + 1) is first
    assert calendar.find("month", "UTC", first.end_us).name == "2026-12"
    assert calendar.find("month", "UTC", now_us).name == "2026-11"  # a clock that was set back
    assert calendar.find("minute", "UTC", now_us).name == "2026-11-21T07:00"


@pytest.mark.parametrize("endless", [ENDLESS, RATE, NOW])
def test_what_has_no_end_is_never_forgotten(endless: object) -> None:
    assert (endless.shown_end_us, endless.forget_at_us) == (0, 0)  # type: ignore[attr-defined]


def test_a_zone_that_is_not_known_is_utc() -> None:
    assert find_window("day", "Mars/Olympus", 0) == find_window("day", "UTC", 0)
    assert forget_at_us("1970-01-01") == 3 * 86_400_000_000
    assert forget_at_us("2026-12") == micros(datetime(2027, 1, 3, tzinfo=UTC))
