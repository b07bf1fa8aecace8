"""Budgets: amounts and thresholds that can be, periods, what is left of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.budgets import check_budget
from pilotage.core.errors import PilotageError
from pilotage.finops.budgets.rules import (
    find_period,
    list_crossed,
)
from pilotage.finops.budgets.types import BudgetPer
from pilotage.finops.periods import list_days, list_remaining
from pilotage.kit.clock import parse_time


def test_an_amount_is_money() -> None:
    assert check_budget("500.5", (50, 90, 1000)) == 500_500_000_000


@pytest.mark.parametrize(
    ("amount", "thresholds", "param"),
    [
        ("0", (50,), "amount"),
        ("-5", (50,), "amount"),
        ("much", (50,), "amount"),
        ("9000001", (50,), "amount"),
        ("5", (90, 50), "thresholds"),
        ("5", (50, 50), "thresholds"),
        ("5", (0,), "thresholds"),
        ("5", (1001,), "thresholds"),
        ("5", tuple(range(1, 12)), "thresholds"),
    ],
)
def test_what_can_be_no_budget_is_refused(
    amount: str, thresholds: tuple[int, ...], param: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        check_budget(amount, thresholds)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert refused.value.hint


def test_periods_are_days_and_months() -> None:
    assert find_period(BudgetPer.DAY, "2026-12-31") == ("2026-12-31", "2026-12-31", "2027-01-01")
    assert find_period(BudgetPer.MONTH, "2026-12-31") == ("2026-12", "2026-12-01", "2027-01-01")
    assert find_period(BudgetPer.MONTH, "2028-02-29") == ("2028-02", "2028-02-01", "2028-03-01")
    assert list_days("2026-02-27", "2026-03-02") == ["2026-02-27", "2026-02-28", "2026-03-01"]


def test_a_threshold_is_crossed_at_its_amount_and_once() -> None:
    assert list_crossed((50, 90, 100), 499, 1000) == []
    assert list_crossed((50, 90, 100), 500, 1000) == [50]
    assert list_crossed((50, 90, 100), 1000, 1000, known=[50]) == [90, 100]
    assert list_crossed((50, 90, 100), 2000, 1000, known=[50, 90, 100]) == []


@given(st.integers(0, 86_399))
def test_what_is_left_of_today_is_a_part(second: int) -> None:
    now_us = parse_time("2026-03-30") + second * 1_000_000

    remaining = list_remaining(now_us, "2026-04-01")

    assert list(remaining) == ["2026-03-30", "2026-03-31"]
    assert remaining["2026-03-30"] == 1 - second / 86_400
    assert remaining["2026-03-31"] == 1.0
