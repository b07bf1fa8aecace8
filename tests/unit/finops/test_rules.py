"""Prices and charges: which price is in force, what it means, what a frame becomes."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage, cost_nano
from pilotage.finops.rules import (
    check_price,
    check_rate,
    check_subject,
    get_day,
    make_charge,
    make_reversal,
    pick_price,
    to_rates,
)
from pilotage.finops.types import EntryKind, Price

RATES = st.decimals(0, 1_000_000, places=9).map(lambda rate: f"{rate:f}")
TOKENS = st.integers(0, 10_000_000)


def make_price(valid_from_us: int = 0, rate: str = "1.00", *, is_free: bool = False) -> Price:
    return Price(
        id=f"prc_{valid_from_us}",
        project_id="prj",
        subject="tiny",
        valid_from_us=valid_from_us,
        input=rate,
        output=rate,
        cache_read=rate,
        cache_write=rate,
        reasoning=rate,
        is_free=is_free,
        created_at_us=0,
        created_by="usr",
    )


def make_ended(**more: object) -> Ended:
    ended = Ended(
        call_id="c",
        at_us=1_773_144_000_000_000,
        project_id="prj",
        tenant_id="ten",
        key_id="key",
        alias="chat",
        outcome=Outcome.UPSTREAM_CUT,
        status=200,
        usage=Usage(1, 2, 3, 4, 5),
        cost_nano=6,
        is_estimated=True,
        duration_us=-1,
        ttft_us=-1,
        chunks=0,
        attempts=1,
    )
    return msgspec.structs.replace(ended, **more)


@given(st.sets(st.integers(0, 50), max_size=8), st.integers(-5, 55))
def test_the_price_in_force_is_the_last_to_become_valid(starts: set[int], at_us: int) -> None:
    found = pick_price([make_price(start) for start in starts], at_us)

    valid = [start for start in starts if start <= at_us]
    assert (found.valid_from_us if found else None) == (max(valid) if valid else None)


@given(st.sets(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 50), st.integers(0, 50))
def test_a_later_price_changes_nothing_before_it(starts: set[int], at_us: int, later: int) -> None:
    prices = [make_price(start) for start in starts if start != at_us + later + 1]

    assert pick_price([*prices, make_price(at_us + later + 1)], at_us) == pick_price(prices, at_us)


@given(RATES, RATES, TOKENS, TOKENS)
def test_a_cost_is_within_half_a_nano_of_the_exact_one(
    input_rate: str, output_rate: str, read: int, written: int
) -> None:
    price = make_price()
    rates = msgspec.structs.replace(
        to_rates(price),
        input=to_rates(make_price(rate=check_rate(input_rate, "input"))).input,
        output=to_rates(make_price(rate=check_rate(output_rate, "output"))).output,
    )

    exact = Decimal(input_rate) * 1000 * read + Decimal(output_rate) * 1000 * written
    assert abs(cost_nano(Usage(input=read, output=written), rates) - exact) <= Decimal("0.5")


@given(RATES)
def test_a_rate_has_one_written_form_of_the_same_value(text: str) -> None:
    written = check_rate(text, "input")

    assert Decimal(written) == Decimal(text)
    assert check_rate(written, "input") == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "1e3",
        "1000000.01",
        "0.1234567891",
        "NaN",
        "1,5",
        " 1",
        "1.",
        ".5",
        "\u0661",
        "9" * 99,
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_rate(text, "output")

    assert (refused.value.code, refused.value.param) == ("invalid_request", "output")


def test_the_highest_rate_is_taken() -> None:
    assert check_rate("1000000", "input") == "1000000.00"


@pytest.mark.parametrize("subject", ["smollm2", "smollm2@1.0.0-rc.1+b", "team/chat:small"])
def test_a_subject_names_a_model(subject: str) -> None:
    assert check_subject(subject) == subject


@pytest.mark.parametrize("subject", ["", "@1.0.0", "a b", "a" * 256, "tiny\n"])
def test_what_names_no_model_is_refused(subject: str) -> None:
    with pytest.raises(PilotageError):
        check_subject(subject)


@pytest.mark.parametrize(("rate", "is_free"), [("0.00", False), ("1.00", True)])
def test_zero_and_free_go_together(rate: str, is_free: bool) -> None:
    with pytest.raises(PilotageError) as refused:
        check_price(make_price(rate=rate, is_free=is_free))

    assert refused.value.param == "is_free"
    assert check_price(make_price(rate=rate, is_free=not is_free)).is_free is not is_free


def test_a_charge_is_the_end_of_its_call() -> None:
    charge = make_charge(make_ended(alias="a\x00b"), "gateway-0")

    assert (charge.kind, charge.day, charge.outcome) == (
        EntryKind.CHARGE,
        "2026-03-10",
        "upstream_cut",
    )
    assert (charge.input_tokens, charge.cache_read_tokens, charge.cache_write_tokens) == (1, 2, 3)
    assert (charge.output_tokens, charge.reasoning_tokens, charge.cost_nano) == (4, 5, 6)
    assert (charge.alias, charge.gateway, charge.is_estimated) == ("a\ufffdb", "gateway-0", True)


@pytest.mark.parametrize(
    "more",
    [
        {"cost_nano": -1},
        {"cost_nano": 10**16 + 1},
        {"usage": Usage(input=1 << 63)},
        {"status": 1000},
        {"at_us": 1 << 62},
        {"duration_us": -2},
    ],
)
def test_what_no_table_can_hold_is_no_charge(more: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        make_charge(make_ended(**more), "gateway-0")


@given(
    st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS), st.integers(0, 10**16), st.booleans()
)
def test_a_reversal_and_its_charge_add_up_to_nothing(
    usage: Usage, cost: int, is_estimated: bool
) -> None:
    charge = make_charge(make_ended(usage=usage, cost_nano=cost, is_estimated=is_estimated), "g")
    reversal = make_reversal(charge, 0)

    for name in charge.__dataclass_fields__:
        if name.endswith(("_tokens", "_nano")):
            assert getattr(charge, name) + getattr(reversal, name) == 0
        elif name not in ("seq", "kind", "at_us", "day"):
            assert getattr(charge, name) == getattr(reversal, name)
    assert (reversal.kind, reversal.day, reversal.at_us) == (EntryKind.REVERSAL, "1970-01-01", 0)


@pytest.mark.parametrize(
    ("at_us", "day"),
    [(0, "1970-01-01"), (86_399_999_999, "1970-01-01"), (86_400_000_000, "1970-01-02")],
)
def test_a_day_is_a_day_in_utc(at_us: int, day: str) -> None:
    assert get_day(at_us) == day


@pytest.mark.parametrize("at_us", [1 << 62, 10**30])
def test_what_is_beyond_the_calendar_has_no_day(at_us: int) -> None:
    with pytest.raises(ValueError):
        get_day(at_us)
