"""Retries stay a small share of the calls, whatever fails."""

from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.routing.retry_budget import (
    EARNED_BY_SECOND,
    MOST_ALIASES,
    MOST_SAVED,
    PRICE,
    RetryBudget,
)

ALIAS = ("prj_1", "chat")


def take_all(budget: RetryBudget, now_s: float, alias: tuple[str, str] = ALIAS) -> int:
    taken = 0
    while budget.take(alias, now_s):
        taken += 1
    return taken


def test_an_alias_begins_with_a_few() -> None:
    budget = RetryBudget()
    assert not budget.is_used
    assert take_all(budget, 0.0) == MOST_SAVED / PRICE
    assert budget.is_used


def test_calls_and_seconds_earn_more() -> None:
    budget = RetryBudget()
    take_all(budget, 0.0)
    for _ in range(50):
        budget.earn(ALIAS)
    assert take_all(budget, 0.0) == 50 / PRICE
    assert take_all(budget, 2.0) == 2 * EARNED_BY_SECOND / PRICE
    assert take_all(budget, 1000.0) == MOST_SAVED / PRICE


def test_aliases_pay_for_themselves() -> None:
    budget = RetryBudget()
    take_all(budget, 0.0)
    budget.earn(("prj_2", "chat"))
    assert not budget.take(ALIAS, 0.0)
    assert take_all(budget, 0.0, ("prj_2", "chat")) == MOST_SAVED / PRICE


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 3)), max_size=60))
def test_no_history_gets_more_than_a_share(spans: list[tuple[int, float]]) -> None:
    budget, now_s, calls, taken = RetryBudget(), 0.0, 0, 0
    for count, seconds in spans:
        now_s += seconds
        for _ in range(count):
            calls += 1
            budget.earn(ALIAS)
        taken += take_all(budget, now_s)
    assert taken * PRICE <= MOST_SAVED + calls + now_s * EARNED_BY_SECOND + 1e-6


def test_memory_is_bounded() -> None:
    budget = RetryBudget()
    for n in range(MOST_ALIASES + 3):
        budget.take(("prj_1", f"alias-{n}"), float(n))
    assert len(budget._accounts) == MOST_ALIASES
    assert ("prj_1", "alias-2") not in budget._accounts
