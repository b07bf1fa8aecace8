"""Sketches: quantiles near the truth, and merges that are additions."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.sketch import GAMMA, Sketch

VALUES = st.lists(st.integers(-1, 10**12), max_size=60)
KNOWN = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


@given(KNOWN, st.floats(0, 1))
def test_a_quantile_is_the_value_of_its_rank_within_a_percent(
    values: list[int], share: float
) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    found = Sketch.of(values).quantile(share)
    assert found is not None
    assert abs(found - exact) <= exact * 0.01


@given(VALUES, VALUES, VALUES)
def test_merges_in_any_order_and_grouping_are_one_pass(
    first: list[int], second: list[int], third: list[int]
) -> None:
    once = Sketch.of(first + second + third)
    left, right = Sketch.of(third), Sketch.of(second)
    right.merge(Sketch.of(first))
    left.merge(right)
    assert left == once
    assert once.count == len([value for value in first + second + third if value >= 0])


@given(KNOWN)
def test_the_mean_is_exact(values: list[int]) -> None:
    assert Sketch.of(values).mean == sum(values) / len(values)


@given(VALUES, st.integers(-2, 10**12))
def test_what_lies_above_a_bound_is_known_but_for_its_bucket(values: list[int], bound: int) -> None:
    found = Sketch.of(values).count_above(bound)
    known = [value for value in values if value >= 0]
    assert found <= sum(value > bound for value in known)
    assert found >= sum(value > bound * GAMMA * 1.000001 for value in known) or bound <= 0


def test_nothing_has_no_quantile_and_no_mean() -> None:
    assert Sketch().quantile(0.5) is None
    assert Sketch().mean is None
