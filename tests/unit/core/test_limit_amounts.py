"""Which limits there can be, and of how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.limits import (
    CALENDAR,
    CONCURRENCY,
    PERIODS,
    REQUESTS,
    TOKENS,
    USD,
    check_amount,
    check_downgrade,
    format_amount,
    parse_count,
)

MOST = {
    (USD, "month"): "9000000",
    (TOKENS, "minute"): "100000000000",
    (TOKENS, "total"): "1000000000000000",
    (REQUESTS, "day"): "1000000000000000",
    (CONCURRENCY, ""): "100000",
}


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("60", 60), ("100k", 100_000), ("1.5m", 1_500_000), ("2K", 2_000), ("1.50", None)],
)
def test_a_number_may_be_written_short(text: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(ValueError, match="no whole number"):
            parse_count(text)
    else:
        assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "k", "1.2345k", "1 000", "٣", "1_0", "1g"])
def test_what_is_no_number_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number such as"):
        parse_count(text)


@given(st.integers(1, 10**15))
def test_an_amount_is_read_as_it_is_written(amount: int) -> None:
    assert check_amount(TOKENS, format_amount(TOKENS, amount), "day") == amount
    nano = amount % (9_000_000 * 10**9) + 1
    assert check_amount(USD, format_amount(USD, nano), "day") == nano


@pytest.mark.parametrize("place", MOST)
def test_there_is_a_most(place: tuple[str, str]) -> None:
    measure, per = place
    most = check_amount(measure, MOST[place], per)
    more = format_amount(measure, most + 1)

    assert most == int(MOST[place]) * (10**9 if measure == USD else 1)
    with pytest.raises(PilotageError) as refused:
        check_amount(measure, more, per)
    assert (refused.value.param, refused.value.code) == ("amount", "invalid_request")
    assert format_amount(measure, most) in refused.value.detail


@pytest.mark.parametrize(("measure", "per"), [(USD, "day"), (TOKENS, "minute"), (CONCURRENCY, "")])
@pytest.mark.parametrize("text", ["0", "0.0", "-1", "nothing", ""])
def test_nothing_is_no_limit(measure: str, per: str, text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_amount(measure, text, per)
    assert refused.value.param == "amount"


@pytest.mark.parametrize("measure", PERIODS)
@pytest.mark.parametrize("per", ["", "second", "minute", "day", "month", "total"])
def test_each_measure_has_its_periods(measure: str, per: str) -> None:
    if per in PERIODS[measure]:
        assert check_amount(measure, "7", per) >= 7
        return
    with pytest.raises(PilotageError) as refused:
        check_amount(measure, "7", per)
    assert refused.value.param == "per"
    assert refused.value.hint


@pytest.mark.parametrize("measure", PERIODS)
@pytest.mark.parametrize("per", ["", "minute", *CALENDAR])
def test_only_what_is_used_up_moves_calls_elsewhere(measure: str, per: str) -> None:
    if measure in (USD, TOKENS) and per in CALENDAR:
        check_downgrade(measure, per, "large", "small")
        with pytest.raises(PilotageError) as to_itself:
            check_downgrade(measure, per, "small", "small")
        assert to_itself.value.param == "downgrade_to"
    else:
        with pytest.raises(PilotageError) as refused:
            check_downgrade(measure, per, "large", "small")
        assert refused.value.param == "action"
