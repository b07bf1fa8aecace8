"""Drift: measures that are zero for the same, grow with the difference, and are quiet by chance."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.drift import (
    ALPHA,
    LEAST_REFERENCE,
    LEAST_WINDOW,
    NOTABLE,
    choose_bounds,
    choose_words,
    compare_counts,
    compare_numbers,
    compare_words,
    count_bins,
    count_words,
    find_chi2,
    find_js,
    find_ks,
    find_psi,
)
from pilotage.core.sketch import Sketch

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any)
PAIRS = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        *[st.lists(st.integers(0, 1000), min_size=size, max_size=size).filter(any)] * 2
    )
)
VALUES = st.lists(st.integers(0, 10**9), min_size=1, max_size=80)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 10.827566), (2, 13.815511), (3, 16.266236), (9, 27.877165), (10, 29.588298)],
)
def test_the_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert find_chi2(0.999, freedom) == pytest.approx(quantile, abs=1e-5)


@given(COUNTS)
def test_the_same_counts_are_no_distance_apart(counts: list[int]) -> None:
    assert find_psi(counts, counts) == pytest.approx(0)
    assert find_js(counts, counts) == pytest.approx(0)


@given(PAIRS)
def test_distances_are_symmetric_and_js_is_at_most_one(pair: tuple[list[int], list[int]]) -> None:
    left, right = pair
    assert find_psi(left, right) == pytest.approx(find_psi(right, left))
    assert find_psi(left, right) >= -1e-12
    assert find_js(left, right) == pytest.approx(find_js(right, left))
    assert 0 <= find_js(left, right) <= 1


def test_counts_that_share_nothing_are_one_bit_apart() -> None:
    assert find_js([300, 0], [0, 500]) == pytest.approx(1)


@given(VALUES, VALUES)
def test_ks_is_the_largest_distance_of_both_distributions(
    left: list[int], right: list[int]
) -> None:
    def share(values: list[int], until: int) -> float:
        return sum(value <= until for value in values) / len(values)

    exact = max(abs(share(left, at) - share(right, at)) for at in left + right)
    found = find_ks(Sketch.of(left), Sketch.of(right))
    assert found <= exact + 1e-9  # values of one bucket count as equal
    if not exact:
        assert found == pytest.approx(0, abs=1e-9)


def test_ks_of_values_far_apart_is_exact() -> None:
    left, right = [1, 10, 100, 1000], [10, 100, 100, 1000, 10_000]
    assert find_ks(Sketch.of(left), Sketch.of(right)) == pytest.approx(0.3)


@given(VALUES, VALUES)
def test_every_value_is_in_one_bin(reference: list[int], window: list[int]) -> None:
    bounds = choose_bounds(Sketch.of(reference))
    assert bounds == sorted(set(bounds))
    assert len(bounds) >= 1 or len(set(reference)) > 1
    counts = count_bins(Sketch.of(window), bounds)
    assert len(counts) == len(bounds) + 1
    assert sum(counts) == len(window)


def test_bins_of_a_continuous_reference_hold_a_tenth_each() -> None:
    chance = random.Random(1)
    reference = Sketch.of([round(chance.lognormvariate(13, 0.8)) for _ in range(5000)])
    counts = count_bins(reference, choose_bounds(reference))
    assert len(counts) in (9, 10)
    assert all(count >= 500 for count in counts[:-1])
    assert 250 <= counts[-1] <= 900


def test_what_is_too_little_for_a_bin_belongs_to_the_one_before() -> None:
    fine = list(range(1000, 2000))
    reference = Sketch.of(fine * 10 + [10**6] * 30)
    assert count_bins(reference, choose_bounds(reference))[-1] >= 1000


def test_a_rest_beyond_a_frequent_value_has_a_bin_of_its_own() -> None:
    reference = Sketch.of([1] * 40 + [256] * 950 + [1000] * 10)
    assert count_bins(reference, choose_bounds(reference)) == [40, 950, 10]


@pytest.mark.parametrize("constant", [0, 1, 5000])
@pytest.mark.parametrize("other", [0, 1, 4000, 6000])
def test_a_constant_is_seen_to_move_either_way(constant: int, other: int) -> None:
    reference = Sketch.of([constant] * LEAST_REFERENCE)
    shift = compare_numbers(reference, Sketch.of([other] * LEAST_WINDOW))
    assert shift is not None
    assert shift.is_shifted is (other != constant)
    assert (shift.calibrated > NOTABLE) is shift.is_shifted


def test_few_values_say_nothing() -> None:
    many, few = Sketch.of(range(LEAST_REFERENCE)), Sketch.of(range(LEAST_WINDOW))
    assert compare_numbers(many, few) is not None
    assert compare_numbers(many, Sketch.of(range(LEAST_WINDOW - 1))) is None
    assert compare_numbers(Sketch.of(range(LEAST_REFERENCE - 1)), few) is None
    assert compare_words({"en": 1000}, {"en": 200}) is not None
    assert compare_words({"en": 1000}, {"en": 199}) is None
    assert compare_words({"en": 999}, {"en": 200}) is None


def test_rare_and_new_words_are_one_bin() -> None:
    reference = {"en": 900, "de": 90, "fr": 6, "it": 4}
    assert choose_words(reference, 1000) == ["de", "en"]
    assert choose_words(reference, 200) == ["en"]
    assert count_words({"en": 5, "fr": 2, "tlh": 3}, ["de", "en"]) == [0, 5, 5]


def test_a_new_word_is_a_shift() -> None:
    shift = compare_words({"en": 1000}, {"en": 150, "tlh": 50})
    assert shift is not None
    assert shift.is_shifted
    assert shift.ks is None


def test_the_limit_falls_with_the_number_of_values_and_rises_with_the_number_of_features() -> None:
    few = compare_counts([1000] * 10, [20] * 10)
    many = compare_counts([1000] * 10, [1000] * 10)
    assert few.psi_limit == pytest.approx(27.877165 * (1 / 200 + 1 / 10_000), rel=1e-6)
    assert many.psi_limit == NOTABLE
    assert compare_counts([1000] * 10, [20] * 10, tests=8).psi_limit > few.psi_limit
    reference, window = Sketch.of(range(1, 2000)), Sketch.of(range(1, 400))
    shift, careful = compare_numbers(reference, window), compare_numbers(reference, window, 8)
    assert shift is not None
    assert careful is not None
    assert shift.ks_limit == pytest.approx(
        math.sqrt(-math.log(ALPHA / 2) / 2 * (1 / 399 + 1 / 1999))
    )
    assert (careful.ks_limit or 0) > (shift.ks_limit or 1)
