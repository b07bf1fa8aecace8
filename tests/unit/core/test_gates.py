"""The tests of a rollout: against independent formulas, and against their own promise."""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.gates import means, power
from pilotage.core.gates.events import show_below, show_not_worse, show_worse
from pilotage.core.gates.ranks import Ranks, find_shift
from pilotage.core.gates.ratio import show_mismatch
from pilotage.core.gates.types import Units, Values, Weight, add_units, mix
from pilotage.core.sketch import GAMMA, Sketch

TENTH = Weight(1_000, 9_000)
HALF = Weight(5_000, 5_000)
COUNTS = st.dictionaries(
    st.sampled_from([Weight(100, 9_900), TENTH, Weight(2_500, 7_500), HALF]),
    st.builds(Units, st.integers(0, 500), st.integers(0, 5_000)),
)
FRACTIONS = (0.01, 0.03, 0.1, 0.3, 0.8)
VALUES = st.lists(st.integers(0, 10**9), max_size=60)


def test_a_weight_is_the_share_of_two_arms() -> None:
    assert Weight(1, 9).share == Weight(1_000, 9_000).share == 0.1
    assert add_units({TENTH: Units(1, 2), HALF: Units(3, 4)}) == Units(4, 6)
    assert mix([0.0, math.log(3)]) == pytest.approx(math.log(2))


@given(COUNTS)
def test_what_bad_units_show_is_the_mean_of_products_of_coins(counts: dict[Weight, Units]) -> None:
    """Each bad unit is one toss; the product of its likelihood ratios is the bet."""
    expected = []
    for ratio in (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0):
        log = 0.0
        for weight, (candidate, baseline) in counts.items():
            worse = weight.share * ratio / (weight.share * ratio + 1 - weight.share)
            log += candidate * math.log(worse / weight.share)
            log += baseline * math.log((1 - worse) / (1 - weight.share))
        expected.append(log)
    assert show_worse(counts) == pytest.approx(_mean_of_logs(expected), abs=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("bad", [1, 5, 30])
def test_the_mean_of_the_evidence_is_one_where_the_arms_are_alike(share: float, bad: int) -> None:
    """The exact expectation over all tosses: an e-value and no more."""
    weight = Weight(round(share * 100), round((1 - share) * 100))
    tosses = [
        (math.comb(bad, k) * share**k * (1 - share) ** (bad - k), {weight: Units(k, bad - k)})
        for k in range(bad + 1)
    ]
    assert sum(chance * math.exp(show_worse(c)) for chance, c in tosses) == pytest.approx(1)
    twice = 2 * share / (1 + share)
    tosses = [
        (math.comb(bad, k) * twice**k * (1 - twice) ** (bad - k), {weight: Units(k, bad - k)})
        for k in range(bad + 1)
    ]
    mean = sum(chance * math.exp(show_not_worse(c, 1.0)) for chance, c in tosses)
    assert mean == pytest.approx(1)


@given(st.integers(1, 60), st.sampled_from([0.001, 0.01, 0.05, 0.5]))
def test_a_share_at_the_limit_wins_nothing_on_average(units: int, limit: float) -> None:
    mean = sum(
        math.comb(units, bad)
        * limit**bad
        * (1 - limit) ** (units - bad)
        * math.exp(show_below(bad, units, limit))
        for bad in range(units + 1)
    )
    assert mean == pytest.approx(1)


def test_so_many_good_units_show_a_share_below_the_limit() -> None:
    assert [power.count_clean_units(limit, 0.025) for limit in (0.001, 0.01, 0.05)] == [
        4608,
        459,
        90,
    ]
    assert show_below(0, 458, 0.01) < math.log(40) <= show_below(0, 459, 0.01)


@given(VALUES, VALUES, st.sampled_from([0.0, 0.2, 0.5]))
def test_ranks_of_sketches_win_what_ranks_of_values_do(
    candidate: list[int], baseline: list[int], margin: float
) -> None:
    """Value by value, every value taken as its bucket's upper end."""
    reference = [random.Random(7).lognormvariate(13, 1) for _ in range(300)]
    ranks = Ranks(Sketch.of(int(value) for value in reference))
    values = {TENTH: Values(Sketch.of(candidate), Sketch.of(baseline))}
    ordered = sorted(_bucket(int(value)) for value in reference)
    for sign, margin_used in ((1, 0.0), (-1, margin)):
        logs = [0.0] * 6
        for arm, shift in ((candidate, find_shift(margin_used)), (baseline, 0)):
            for value in arm:
                u = bisect_left(ordered, _bucket(value) - shift) / (len(ordered) + 1)
                _bet_on_rank(logs, u if value else 0.0, 0.1, sign, is_candidate=arm is candidate)
        shown = ranks.show_not_higher(values, margin) if sign < 0 else ranks.show_higher(values)
        assert shown == pytest.approx(_mean_of_logs(logs), abs=1e-6)


def _bet_on_rank(
    logs: list[float], u: float, share: float, sign: int, *, is_candidate: bool
) -> None:
    tail = -math.log(1 - u + 0.002) - 1
    bets = [slope * (2 * u - 1) for slope in (0.25, 0.5, 1, 2)] + [0.2 * tail, 0.5 * tail]
    for index, bet in enumerate(bets):
        gain = math.exp(sign * bet)
        logs[index] += math.log((gain if is_candidate else 1.0) / (1 - share + share * gain))


@given(VALUES.map(lambda values: [value % 1_000_001 for value in values]), st.integers(0, 60))
def test_bets_on_means_win_at_most_what_the_values_themselves_would(
    values: list[int], cut: int
) -> None:
    """The ends of buckets that are taken speak against what is to be shown."""
    candidate, baseline = values[:cut], values[cut:]
    sketches = {TENTH: Values(Sketch.of(candidate), Sketch.of(baseline))}
    cap, share = 1_000_000.0, 0.1
    exact = []
    for fraction in FRACTIONS:
        log = sum(math.log1p(fraction * (1 - share) / share * y / cap) for y in candidate)
        exact.append(log + sum(math.log1p(-fraction * y / cap) for y in baseline))
    shown = means.show_higher(sketches, cap)
    assert shown <= _mean_of_logs(exact) + 1e-9
    exact = []
    for fraction in FRACTIONS:
        log = sum(math.log1p(-fraction / 1.5 * y / cap) for y in candidate)
        exact.append(
            log + sum(math.log1p(fraction * share / (1 - share) * y / cap) for y in baseline)
        )
    shown = means.show_not_higher(sketches, cap, 0.5)
    assert shown <= _mean_of_logs(exact) + 1e-9


def test_an_equal_mean_is_shown_not_to_be_higher_and_a_higher_one_to_be_so() -> None:
    draws = random.Random(3)
    equal, dear = Values(Sketch(), Sketch()), Values(Sketch(), Sketch())
    for _ in range(20_000):
        is_candidate, value = draws.random() < 0.1, int(draws.lognormvariate(8, 0.5))
        (equal.candidate if is_candidate else equal.baseline).add(min(value, 30_000))
        dearer = value * 3 // 2 if is_candidate else value
        (dear.candidate if is_candidate else dear.baseline).add(min(dearer, 30_000))
    assert means.show_not_higher({TENTH: equal}, 30_000, 0.2) > math.log(20)
    assert means.show_higher({TENTH: equal}, 30_000) < math.log(20)
    assert means.show_higher({TENTH: dear}, 30_000) > math.log(20)
    assert means.show_not_higher({TENTH: dear}, 30_000, 0.2) < math.log(20)


@pytest.mark.parametrize("weight", [TENTH, HALF])
@pytest.mark.parametrize(("one_in", "times"), [(100, 100), (10, 20), (1, 3)])
def test_what_few_values_above_the_cap_add_to_a_mean_is_not_overlooked(
    weight: Weight, one_in: int, times: int
) -> None:
    """The candidate's mean is two to three times as high, and hardly so if cut off at the cap."""
    cap = 3_000 if one_in == 1 else 24_000  # the cap of the last is below what a call costs
    draws = random.Random(5)
    values = Values(Sketch(), Sketch())
    for _ in range(20_000):
        is_candidate, value = draws.random() < weight.share, int(draws.lognormvariate(8, 0.5))
        dear = times * value if draws.randrange(one_in) == 0 else value
        (values.candidate if is_candidate else values.baseline).add(dear if is_candidate else value)
    assert means.show_not_higher({weight: values}, cap, 0.2) < 0


def test_one_dear_call_of_either_arm_does_not_decide() -> None:
    draws = random.Random(3)
    values = Values(Sketch(), Sketch())
    for _ in range(20_000):
        arm = values.candidate if draws.random() < 0.5 else values.baseline
        arm.add(int(draws.lognormvariate(8, 0.5)))
    for arm in values:
        was = means.show_higher({HALF: values}, 30_000)
        arm.add(10**12)
        assert abs(means.show_higher({HALF: values}, 30_000) - was) < math.log(1 / 0.2) + 0.1
    fine = Values(Sketch(), Sketch.of([10**12]))
    assert means.show_not_higher({HALF: fine}, 30_000, 0.2) == pytest.approx(math.log(2))
    assert means.show_not_higher({HALF: Values(Sketch.of([10**12]), Sketch())}, 1, 0.2) == -1e9


def test_a_bet_that_lost_all_does_not_come_back() -> None:
    """One call of 20,000 costs 100,000 times as much, all others half: 5.5 times the mean."""
    candidate, baseline = Sketch.of([5_000]), Sketch.of([10_000])
    for arm in (candidate, baseline):
        arm.buckets = dict.fromkeys(arm.buckets, 200_000)
    for _ in range(10):
        candidate.add(1_000_000_000)
    assert means.show_not_higher({HALF: Values(candidate, baseline)}, 80_000, 0.2) < 0


def test_means_are_compared_at_the_same_times() -> None:
    """All calls got cheaper when the candidate got more of them."""
    values = {
        TENTH: Values(Sketch.of([4_000] * 10), Sketch.of([4_000] * 90)),
        HALF: Values(Sketch.of([1_500] * 60), Sketch.of([1_000] * 40)),
        Weight(1, 1): Values(Sketch.of([10**6]), Sketch()),
    }
    mine, theirs = means.weigh_means(values)
    assert mine / theirs == pytest.approx(1.1)
    assert means.weigh_means({}) == (0.0, 0.0)


@pytest.mark.parametrize("weight", [Weight(100, 9_900), TENTH, HALF])
def test_the_mean_of_the_evidence_of_a_mismatch_is_one_for_a_fair_coin(weight: Weight) -> None:
    units, share = 40, weight.share
    mean = sum(
        math.comb(units, k)
        * share**k
        * (1 - share) ** (units - k)
        * math.exp(show_mismatch({weight: Units(k, units - k)}))
        for k in range(units + 1)
    )
    assert mean == pytest.approx(1)
    assert show_mismatch({}) == 0


def test_a_mismatch_is_found_and_a_fair_coin_is_not() -> None:
    assert show_mismatch({TENTH: Units(1_000, 9_000)}) < 0
    assert show_mismatch({TENTH: Units(800, 9_200)}) > math.log(1_000)
    assert show_mismatch({TENTH: Units(1_200, 8_800)}) > math.log(1_000)


def test_a_margin_is_a_whole_number_of_buckets() -> None:
    assert find_shift(0.0) == 0
    assert GAMMA ** find_shift(0.2) <= 1.2 < GAMMA ** (find_shift(0.2) + 1)
    assert find_shift(GAMMA**5 - 1) == 5


def test_what_is_needed_grows_with_smaller_weights_and_margins() -> None:
    assert power.count_bad_units(0.01, 1, 2) == pytest.approx(1489.2, abs=0.1)
    assert power.count_bad_units(0.1, 1, 2) == pytest.approx(172.9, abs=0.1)
    assert power.count_bad_units(0.5, 1, 2) == pytest.approx(76.3, abs=0.1)
    assert power.count_bad_units(0.5, 1, 1) == math.inf
    assert power.count_units_to_show_not_worse(0.5, 0.01, 1.0) == pytest.approx(7634, abs=1)
    assert power.count_units_to_show_not_worse(0.5, 0.0, 1.0) == math.inf
    assert power.count_units_to_show_worse(0.1, 0.0, 2.0) == math.inf
    worse = power.count_units_to_show_worse(0.1, 0.01, 10.0)
    assert 150 < worse < power.count_units_to_show_worse(0.1, 0.01, 2.0)


@pytest.mark.parametrize(("share", "ratio"), [(0.1, 3.0), (0.5, 3.0), (0.1, 10.0), (0.5, 0.0)])
def test_the_forecast_is_near_what_it_takes(share: float, ratio: float) -> None:
    """The median of 200 draws is at 0.6 to 1 of the forecast; ratio 0 stands for an equal one."""
    weight = Weight(round(share * 100), round((1 - share) * 100))
    draws, took = random.Random(11), []
    truth = ratio or 1.0
    theirs = share * truth / (1 - share + share * truth)
    for _ in range(200):
        mine = bad = 0
        while True:
            bad += 1
            mine += draws.random() < theirs
            counts = {weight: Units(mine, bad - mine)}
            if (show_worse(counts) if ratio else show_not_worse(counts, 1.0)) >= math.log(20):
                break
            if bad > 5_000:
                break
        took.append(bad)
    forecast = power.count_bad_units(share, truth, 1.0 if ratio else 2.0)
    assert 0.5 < sorted(took)[100] / forecast < 1.05


def _bucket(value: int) -> int:
    return math.ceil(math.log(value) / math.log(GAMMA)) if value > 0 else -(10**9)


def _mean_of_logs(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))
