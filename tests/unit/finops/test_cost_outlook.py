"""Forecasts hold their word, ordinary days do not stand out, and spikes do."""

import random
from datetime import date, timedelta

import pytest

from pilotage.finops.costs.outlook import LEAST_BEFORE, find_anomalies, find_limit, forecast

FIRST = date(2026, 1, 1)


def make_days(
    rng: random.Random, count: int, spread: float, *, is_weekly: bool
) -> dict[str, float]:
    """Return amounts of days that multiply by chance, and fall at weekends."""
    days = [FIRST + timedelta(days=ahead) for ahead in range(count)]
    return {
        day.isoformat(): (30 if is_weekly and day.weekday() > 4 else 100)
        * rng.lognormvariate(0, spread)
        for day in days
    }


@pytest.mark.parametrize("seen", [7, 14, 28, 56])
@pytest.mark.parametrize("is_weekly", [False, True])
def test_nine_of_ten_intervals_have_the_truth_in_them(seen: int, is_weekly: bool) -> None:
    rng, runs, hits = random.Random(seen), 400, 0
    for _ in range(runs):
        days = make_days(rng, seen + 20, 0.4, is_weekly=is_weekly)
        known, ahead = sorted(days)[:seen], sorted(days)[seen:]

        found = forecast({day: days[day] for day in known}, 5.0, dict.fromkeys(ahead, 1.0), 0.9)

        assert found is not None
        assert found.low <= found.expected <= found.high
        hits += found.low <= 5.0 + sum(days[day] for day in ahead) <= found.high
    print(f"{seen} days, weekly {is_weekly}: {hits / runs:.1%} of intervals at 90 %")
    assert hits / runs > 0.82


def test_without_a_week_there_is_no_forecast() -> None:
    days = make_days(random.Random(1), 6, 0.1, is_weekly=False)

    assert forecast(days, 1.0, {"2026-02-01": 1.0}, 0.9) is None


def test_what_is_over_is_what_was_spent() -> None:
    days = make_days(random.Random(1), 20, 0.1, is_weekly=False)

    found = forecast(days, 42.0, {}, 0.9)

    assert found is not None
    assert (found.low, found.expected, found.high) == (42.0, 42.0, 42.0)


def test_days_without_costs_have_none_ahead() -> None:
    days = dict.fromkeys(make_days(random.Random(1), 30, 0.1, is_weekly=False), 0.0)

    found = forecast(days, 0.0, {"2026-02-01": 1.0}, 0.9)

    assert found is not None
    assert (found.low, found.expected, found.high) == (0.0, 0.0, 0.0)
    assert find_anomalies(days) == []


def test_ordinary_days_do_not_stand_out() -> None:
    rng, days, found = random.Random(3), 0, 0
    for spread in (0.1, 0.3, 0.6):
        for is_weekly in (False, True):
            for _ in range(3):
                history = make_days(rng, 150, spread, is_weekly=is_weekly)
                days += len(history) - LEAST_BEFORE
                found += len(find_anomalies(history))
    print(f"{found} of {days} ordinary days stood out ({found / days:.2%})")
    assert found / days < 0.008


def test_a_spike_and_a_gap_stand_out() -> None:
    history = make_days(random.Random(5), 60, 0.2, is_weekly=True)
    spike, gap = sorted(history)[40], sorted(history)[50]
    history[spike] *= 10
    history[gap] = 0.0

    found = {item.day: item for item in find_anomalies(history)}

    assert found.keys() == {spike, gap}
    assert found[spike].deviations > 0 > found[gap].deviations
    assert found[spike].amount > 3 * found[spike].usual


@pytest.mark.parametrize("seen", [LEAST_BEFORE, 20, 28, 60])
@pytest.mark.parametrize("least", [0.0, 100.0])
def test_a_day_stands_out_upwards_from_its_limit_on(seen: int, least: float) -> None:
    for seed in range(20):
        history = make_days(random.Random(seed), seen + 1, 0.1 + seed / 40, is_weekly=seed % 2 == 0)
        *before, day = sorted(history)
        limit = find_limit({known: history[known] for known in before}, day, least)
        assert limit is not None

        marked = [
            [item.day for item in find_anomalies(history | {day: amount}, least)].count(day)
            for amount in (limit * 0.9999, limit * 1.0001, limit * 100)
        ]

        assert marked == [0, 1, 1]


@pytest.mark.parametrize("usual", [100e9, 10_000.0])
@pytest.mark.parametrize("rest", ["none", "a day", "weekends", "a day taken back"])
@pytest.mark.parametrize("seen", [20, 28, 56])
def test_days_of_rest_and_corrections_hide_no_spike(usual: float, rest: str, seen: int) -> None:
    history = {
        day: amount * usual / 100
        for day, amount in make_days(random.Random(2), seen + 1, 0.1, is_weekly=False).items()
    }
    *before, last = sorted(history)
    if rest == "weekends":
        before = [day for day in before if date.fromisoformat(day).weekday() < 5]
        history |= dict.fromkeys(set(history) - {*before, last}, 0.0)
        last = before[-1]
    elif rest != "none":
        history[before[-9]] = -3 * usual if rest == "a day taken back" else 0.0
    limit = find_limit(history, last)

    assert limit is not None
    knows_weeks = seen > 21 or rest != "weekends"
    assert 1.2 * usual < limit < (15 if knows_weeks else 100) * usual
    history[last] = 1000 * usual
    assert last in {item.day for item in find_anomalies(history)}


def test_before_two_weeks_no_day_has_a_limit() -> None:
    history = make_days(random.Random(1), LEAST_BEFORE, 0.1, is_weekly=False)

    assert find_limit(history, max(history)) is None


def test_what_is_small_does_not_stand_out() -> None:
    history = make_days(random.Random(5), 60, 0.2, is_weekly=False)
    history[sorted(history)[40]] *= 10

    assert len(find_anomalies(history, least=100.0)) == 1
    assert find_anomalies(history, least=100_000.0) == []
