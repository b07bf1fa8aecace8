"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.duration import MAX_US, UNITS_US, format_duration, parse_duration_us


@given(st.integers(0, MAX_US))
def test_what_is_written_is_read_back(microseconds: int) -> None:
    assert parse_duration_us(format_duration(microseconds)) == microseconds


@given(st.integers(0, 36_500), st.sampled_from(sorted(UNITS_US)))
def test_a_whole_number_of_a_unit_is_that_many(count: int, unit: str) -> None:
    assert parse_duration_us(f"{count}{unit}") == count * UNITS_US[unit]


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("100ms", 100_000),
        ("1.5s", 1_500_000),
        ("1h30m", 5_400_000_000),
        ("0.001ms", 1),
        ("0s", 0),
        ("36500d", MAX_US),
    ],
)
def test_durations_are_read(text: str, microseconds: int) -> None:
    assert parse_duration_us(text) == microseconds


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0ms"),
        (1, "0.001ms"),
        (1_500, "1.5ms"),
        (90 * 60_000_000, "1h30m"),
        (86_400_000_000, "1d"),
        (61_001_000, "1m1s1ms"),
    ],
)
def test_durations_are_written(microseconds: int, text: str) -> None:
    assert format_duration(microseconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "-5s",
        "5 s",
        "5S",
        "5s ",
        "1.s",
        ".5s",
        "5w",
        "5s5",
        "\N{ARABIC-INDIC DIGIT FIVE}s",
        "1e3s",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration: .* \(write 100ms"):
        parse_duration_us(text)


@pytest.mark.parametrize("text", ["36500d1ms", "9" * 400 + "d", "999999h" * 2])
def test_a_duration_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 36500d"):
        parse_duration_us(text)
