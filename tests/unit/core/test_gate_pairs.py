"""Bets on differences of pairs: what they find, how often they are wrong, and how soon."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.gates.pairs import (
    FULL,
    add_pairs,
    count_pairs,
    find_interval,
    find_mean,
    find_spread,
    show_not_worse,
    show_worse,
)

BOUND = math.log(20)
DISAGREE = 0.1  # on so many inputs one arm's answer is good and the other's is not
DROP = 0.03
MANY = st.dictionaries(st.integers(-FULL, FULL), st.integers(1, 50), min_size=1, max_size=8)


def deal(coin: random.Random, drop: float, disagree: float = DISAGREE) -> int:
    """Return the difference of a pair whose candidate is lower by ``drop`` on average."""
    point = coin.random()
    if point < (disagree + drop) / 2:
        return -FULL
    return FULL if point < disagree else 0


def count_alarms(runs: int, pairs: int, drop: float, every: int = 40) -> int:
    """Count runs in which a drop is ever shown; somebody looks after every few pairs."""
    alarms = 0
    for run in range(runs):
        coin, counts = random.Random(run), {-FULL: 0, 0: 0, FULL: 0}
        for number in range(1, pairs + 1):
            counts[deal(coin, drop)] += 1
            if number % every == 0 and show_worse(counts) >= BOUND:
                alarms += 1
                break
    return alarms


def test_equal_arms_are_seldom_called_worse_however_often_one_looks() -> None:
    alarms = count_alarms(200, 2_400, 0.0)
    assert alarms / 200 <= 0.05


def test_a_drop_of_three_points_is_found_at_the_stated_number_of_pairs() -> None:
    stated = count_pairs(DROP, DISAGREE - DROP**2)
    assert stated == 2362
    found = count_alarms(150, stated, DROP)
    assert found / 150 >= 0.9


def test_a_candidate_that_is_worse_by_the_margin_seldom_passes() -> None:
    passed = 0
    for run in range(100):
        coin, counts = random.Random(run), {-FULL: 0, 0: 0, FULL: 0}
        for number in range(1, 1_601):
            counts[deal(coin, DROP)] += 1
            if number % 20 == 0 and show_not_worse(counts, DROP) >= BOUND:
                passed += 1
                break
    assert passed / 100 <= 0.05


def test_an_equal_candidate_is_shown_to_be_good_enough() -> None:
    passed = 0
    for run in range(60):
        coin, counts = random.Random(run), {-FULL: 0, 0: 0, FULL: 0}
        for number in range(1, count_pairs(DROP, DISAGREE) + 1):
            counts[deal(coin, 0.0)] += 1
            if number % 40 == 0 and show_not_worse(counts, DROP) >= BOUND:
                passed += 1
                break
    assert passed / 60 >= 0.9


def test_equal_marks_win_nothing_towards_worse() -> None:
    assert show_worse({0: 1_000_000}) == 0.0
    assert show_worse({}) == 0.0


@given(MANY)
def test_the_interval_holds_the_mean_and_widens_with_confidence(pairs: dict[int, int]) -> None:
    mean = find_mean(pairs)
    low, high = find_interval(pairs)
    lower, higher = find_interval(pairs, alpha=0.001)
    assert mean is not None
    assert low - 1e-9 <= mean <= high + 1e-9
    assert lower <= low + 1e-9
    assert high <= higher + 1e-9


@given(MANY, MANY)
def test_pairs_add_up_in_any_order(one: dict[int, int], other: dict[int, int]) -> None:
    assert add_pairs([one, other]) == add_pairs([other, one])
    assert show_worse(add_pairs([one, {}])) == show_worse(one)


@given(MANY, st.floats(0.01, 0.5))
def test_one_e_value_averages_to_one_on_its_own_null(pairs: dict[int, int], margin: float) -> None:
    """A pair at a time, by its definition: the expectation of each bet on the null's edge is 1."""
    total = sum(pairs.values())
    mean = sum(d * n for d, n in pairs.items()) / FULL / total
    lifted = sum(math.exp(show_worse({d: 1})) * n for d, n in pairs.items()) / total
    assert lifted == pytest.approx(1.0 - mean * sum((0.02, 0.05, 0.1, 0.2, 0.4, 0.8)) / 6)
    won = sum(math.exp(show_not_worse({d: 1}, margin)) * n for d, n in pairs.items()) / total
    assert (won <= 1 + 1e-12) == (mean + margin <= 1e-12)


def test_what_is_not_known_is_none() -> None:
    assert find_mean({}) is None
    assert find_spread({}) is None
    assert find_spread({0: 1}) is None
    assert find_spread({FULL: 1, -FULL: 1}) == 2.0
