"""Money: nano-USD against Decimal."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.money import MAX_CAP_NANO, NANO, divide_half_even, format_usd, parse_usd

AMOUNTS = st.integers(-(2**63) + 1, 2**63 - 1)


@given(AMOUNTS)
def test_what_is_written_is_read_back(nano: int) -> None:
    assert parse_usd(format_usd(nano)) == nano
    assert Decimal(format_usd(nano)) == Decimal(nano) / NANO


@given(AMOUNTS)
def test_an_amount_has_two_to_nine_decimals_and_no_zero_too_many(nano: int) -> None:
    decimals = format_usd(nano).partition(".")[2]

    assert 2 <= len(decimals) <= 9
    assert len(decimals) == 2 or not decimals.endswith("0")


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (123_000, "0.000123"),
        (12_500_000_000, "12.50"),
        (-10_000_000, "-0.01"),
        (MAX_CAP_NANO, "9000000.00"),
    ],
)
def test_amounts_as_people_see_them(nano: int, text: str) -> None:
    assert format_usd(nano) == text


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1", NANO),
        ("-0.5", -NANO // 2),
        ("1E-9", 1),
        ("1e3", 1000 * NANO),
        ("1.50000000000", 1_500_000_000),
    ],
)
def test_any_decimal_text_is_read(text: str, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "free",
        "$1",
        "1,50",
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "0.0000000001",
        "1.0000000000000000000000000000000000001",
        "1E-999999999",
        "1E+999999999",
        "9223372036.854775808",
        "-9223372036.854775808",
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount in USD"):
        parse_usd(text)


def test_the_whole_of_64_bits_is_read() -> None:
    assert parse_usd("9223372036.854775807") == 2**63 - 1


@given(st.integers(-(2**80), 2**80), st.integers(1, 2**40))
def test_a_quotient_is_rounded_half_to_even(numerator: int, denominator: int) -> None:
    with localcontext() as context:
        context.prec = 200
        exact = Decimal(numerator) / Decimal(denominator)
        expected = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))

    assert divide_half_even(numerator, denominator) == expected


@pytest.mark.parametrize(
    ("numerator", "rounded"),
    [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (-7, -4)],
)
def test_ties_go_to_even(numerator: int, rounded: int) -> None:
    assert divide_half_even(numerator, 2) == rounded
