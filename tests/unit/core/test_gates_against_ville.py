"""The tests of ``core.gates`` beside those of an independent implementation."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ville import BernoulliCS, BernoulliTest, BettingTest

from pilotage.core.gates import events, means, ratio
from pilotage.core.gates.types import Units, Values, Weight
from pilotage.core.sketch import Sketch

SEED = 20_261_122
ALPHA = 0.05
BOUND = math.log(1 / ALPHA)
TENTH, HALF = Weight(1_000, 9_000), Weight(5_000, 5_000)


def toss(number: int, count: int, share: float) -> Any:  # noqa: ANN401 - an array of 0 and 1
    return (np.random.default_rng([SEED, number]).random(count) < share).astype(float)


def find_first(x: Any, find: Callable[[int, int], float], bound: float) -> int | None:  # noqa: ANN401
    """Return after how many observations the evidence of (ones, all) first reaches a bound."""
    sums = np.cumsum(x).astype(int).tolist()
    return next((n for n, ones in enumerate(sums, 1) if find(ones, n) >= bound), None)


@pytest.mark.parametrize("weight", [TENTH, HALF])
@pytest.mark.parametrize("truth", [0.5, 1.0, 1.5])
def test_a_mismatch_of_units_is_the_same_evidence_at_every_unit(
    weight: Weight, truth: float
) -> None:
    a, b = 100 * weight.share, 100 * (1 - weight.share)
    for number in range(20):
        x = toss(number, 600, truth * weight.share)
        theirs = BernoulliTest(weight.share, prior=(a, b)).fit(x).log_e_values_
        sums = np.cumsum(x).astype(int).tolist()
        ours = [
            ratio.show_mismatch({weight: Units(mine, n - mine)}) for n, mine in enumerate(sums, 1)
        ]
        assert ours == pytest.approx(theirs.tolist(), abs=1e-8)


def test_a_mismatch_is_found_at_the_unit_where_its_confidence_sequence_leaves_the_weight() -> None:
    def find_mismatch(ones: int, n: int) -> float:
        return ratio.show_mismatch({TENTH: Units(ones, n - ones)})

    found = 0
    bound = math.log(1 / ratio.ALPHA)
    for number in range(30):
        x = toss(number, 1_500, 0.05 if number % 2 else 0.1)
        theirs = BernoulliCS(alpha=ratio.ALPHA, prior=(10.0, 90.0)).fit(x).excludes(0.1)
        ours = find_first(x, find_mismatch, bound)
        assert ours == theirs
        found += ours is not None
    print(f"{found} of 30 found, each at the same unit")
    assert 10 <= found <= 16


@pytest.mark.parametrize(("times", "share"), [(2.0, 0.5), (3.0, 0.1), (10.0, 0.1)])
def test_more_frequent_bad_units_are_found_as_soon_as_by_a_two_sided_test(
    times: float, share: float
) -> None:
    """Theirs mixes over all shares, ours over larger ones only: it needs no more bad units."""
    weight = Weight(round(share * 10_000), round((1 - share) * 10_000))
    truth = share * times / (1 - share + share * times)

    def find_worse(ones: int, n: int) -> float:
        return events.show_worse({weight: Units(ones, n - ones)})

    mine, theirs = [], []
    for number in range(60):
        x = toss(number, 600, truth)
        other = BernoulliTest(share, prior=(10 * share, 10 * (1 - share))).fit(x)
        theirs.append(other.stopping_time() or 600)
        own = find_first(x, find_worse, BOUND)
        mine.append(own or 600)
    print(
        f"{times:g}x at {share:.0%}: {statistics.median(mine):.0f} bad units, "
        f"theirs {statistics.median(theirs):.0f}"
    )
    assert statistics.median(mine) <= 1.05 * statistics.median(theirs)


def test_a_share_below_a_limit_is_shown_no_later_than_by_betting_on_the_mean() -> None:
    def find_below(ones: int, n: int) -> float:
        return events.show_below(ones, n, 0.02)

    mine, theirs = [], []
    for number in range(60):
        x = toss(number, 3_000, 0.005)
        other = BettingTest(0.02, alternative="less").fit(x)
        theirs.append(other.stopping_time() or 3_000)
        own = find_first(x, find_below, BOUND)
        mine.append(own or 3_000)
    print(
        f"0.5 % against 2 %: {statistics.median(mine):.0f} units, "
        f"theirs {statistics.median(theirs):.0f}"
    )
    assert statistics.median(mine) <= 1.2 * statistics.median(theirs)


@pytest.mark.parametrize(("times", "is_higher"), [(1.0, False), (1.5, True), (0.7, False)])
def test_a_higher_mean_is_found_where_betting_on_weighted_differences_finds_it(
    times: float, is_higher: bool
) -> None:
    """Theirs bets on ``y (A / w - (1 - A) / (1 - w))``, whose mean is the difference, bounded."""
    cap, share, agreed = 8.0, 0.5, 0
    for number in range(20):
        rng = np.random.default_rng([SEED, number])
        is_mine = rng.random(1_500) < share
        y = np.minimum(cap, rng.lognormal(0, 0.5, 1_500) * np.where(is_mine, times, 1.0))
        phi = y / cap * np.where(is_mine, 1 / share, -1 / (1 - share))
        bounds = (-1 / (1 - share), 1 / share)
        theirs = BettingTest(0.0, bounds=bounds, alternative="greater").fit(phi)
        scaled = np.floor(y * 1e6).astype(int)
        values = Values(Sketch.of(scaled[is_mine].tolist()), Sketch.of(scaled[~is_mine].tolist()))
        ours = means.show_higher({HALF: values}, cap * 1e6) >= BOUND
        agreed += ours == theirs.rejected_ == is_higher
    assert agreed >= 19
