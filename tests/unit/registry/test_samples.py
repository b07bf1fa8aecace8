"""Numbers and intervals from raw samples: published values, and coverage in simulated worlds."""

import random
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.registry.samples import summarise, t_quantile

SAMPLES = st.lists(st.decimals(-1000, 1000, places=2), min_size=1, max_size=150)
NAMES = st.sampled_from(["score", "latency_p50", "p95", "latency_p999_ms"])


def in_decimals(numbers: Sequence[float]) -> list[Decimal]:
    return [Decimal(str(number)) for number in numbers]


@given(NAMES, SAMPLES)
def test_the_value_lies_in_its_interval_and_among_the_samples(
    name: str, samples: list[Decimal]
) -> None:
    found = summarise(name, samples)

    assert found.n == len(samples)
    assert (found.low is None) == (found.high is None)
    near = Decimal("1e-6")
    assert min(samples) - near <= found.value <= max(samples) + near
    if found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high


@given(NAMES, SAMPLES, st.randoms())
def test_the_order_of_the_samples_does_not_matter(
    name: str, samples: list[Decimal], chance: random.Random
) -> None:
    mixed = list(samples)
    chance.shuffle(mixed)

    assert summarise(name, mixed)[:5] == summarise(name, samples)[:5]


@pytest.mark.parametrize(
    ("freedom", "published"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (10, 2.228),
        (30, 2.042),
        (100, 1.984),
        (10**6, 1.960),
    ],
)
def test_the_t_distribution_is_that_of_the_tables(freedom: int, published: float) -> None:
    assert t_quantile(freedom) == pytest.approx(published, rel=2e-3)


def test_a_share_has_the_interval_of_wilson() -> None:
    found = summarise("accuracy", in_decimals([1] * 81 + [0] * 182))

    assert (found.statistic, found.value) == ("share", Decimal("0.307984790875"))
    assert float(found.low or 0) == pytest.approx(0.2553, abs=1e-4)  # Newcombe 1998, table I
    assert float(found.high or 0) == pytest.approx(0.3662, abs=1e-4)
    sure = summarise("accuracy", in_decimals([1] * 10))
    assert sure.value == sure.high == Decimal(1)
    assert float(sure.low or 0) == pytest.approx(0.7225, abs=1e-4)


def test_a_percentile_is_an_order_statistic_between_two_others() -> None:
    found = summarise("latency_p95", in_decimals(list(range(1, 101))))

    assert found[:5] == (100, Decimal(95), Decimal(90), Decimal(100), "p95")
    assert summarise("p50", in_decimals([3, 1, 2])).value == 2


def test_too_few_samples_have_no_interval() -> None:
    assert summarise("score", [Decimal(3)])[:4] == (1, Decimal(3), None, None)
    for n in (71, 72):
        found = summarise("latency_p95", in_decimals(list(range(n))))
        assert (found.low is None) == (n == 71)


@pytest.mark.parametrize("name", ["latency_p100", "p00", "p1000_ms"])
def test_what_is_no_percentile_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        summarise(name, [Decimal(1)])


def test_nothing_has_no_value() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise("score", [])


def test_the_hash_is_that_of_the_samples_as_they_came() -> None:
    one, other = (summarise("score", in_decimals(numbers)) for numbers in ([1, 2], [2, 1]))

    assert one.hash != other.hash
    assert one.hash == summarise("other", in_decimals([1, 2])).hash


@pytest.mark.parametrize(
    ("name", "n", "draw", "truth"),
    [
        ("mean", 30, lambda chance: chance.gauss(10, 3), 10.0),
        ("accuracy", 60, lambda chance: float(chance.random() < 0.9), 0.9),
        ("latency_p95", 150, lambda chance: chance.expovariate(1), 2.995732273553991),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    name: str, n: int, draw: Callable[[random.Random], float], truth: float
) -> None:
    chance, held = random.Random(4), 0
    for _ in range(400):
        found = summarise(name, in_decimals([draw(chance) for _ in range(n)]))
        assert found.low is not None
        assert found.high is not None
        held += float(found.low) <= truth <= float(found.high)

    assert held / 400 >= 0.93
