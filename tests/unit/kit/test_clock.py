"""Clocks, and times as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.ids import decode_uuid
from pilotage.kit.clock import ManualClock, SystemClock, parse_rfc3339, rfc3339, to_datetime

TIMES_US = st.integers(0, 253_402_300_799_999_999)  # 1970 to 9999


@given(TIMES_US)
def test_a_time_is_the_same_as_text_to_the_microsecond(at_us: int) -> None:
    assert parse_rfc3339(rfc3339(at_us)) == at_us
    moment = to_datetime(at_us)
    assert moment is not None
    assert parse_rfc3339(moment.isoformat()) == at_us


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2026-01-31T12:00:00.000001Z", 1_769_860_800_000_001),
        ("1969-12-31T23:59:59Z", -1_000_000),
    ],
)
def test_times_are_read(text: str, at_us: int) -> None:
    assert parse_rfc3339(text) == at_us


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-13-01T00:00:00Z"]
)
def test_a_time_without_an_offset_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|isoformat|month"):
        parse_rfc3339(text)


def test_no_time_stays_no_time() -> None:
    assert to_datetime(None) is None


def test_a_time_is_written_in_utc() -> None:
    assert rfc3339(1_769_860_800_000_001) == "2026-01-31T12:00:00.000001Z"


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock(1_000_000)
    first = clock.new_id("key")
    clock.advance(1.5)

    assert (clock.now_us(), clock.monotonic_s()) == (2_500_000, 1.5)
    assert first != clock.new_id("key")
    assert ManualClock(1_000_000).new_id("key") == first


def test_the_system_clock_makes_ids_of_now() -> None:
    clock = SystemClock()
    before = clock.now_us()
    made = [clock.new_id("key") for _ in range(2_000)]
    after = clock.now_us()

    assert len(set(made)) == 2_000
    for object_id in made:
        assert before // 1000 <= decode_uuid(object_id) >> 80 <= after // 1000
    assert clock.monotonic_s() <= clock.monotonic_s()
