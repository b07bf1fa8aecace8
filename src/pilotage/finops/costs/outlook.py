"""Where daily amounts are going, and which days stand out: pure, of whole days in order.

The forecast is a level with weekday factors; its interval is the prediction interval of a mean of
independent days, Student's t with the days seen, which simulations hold to its word. A day stands
out by its distance from the median of the days before in units of their median deviation, on a
logarithmic scale, since spending multiplies rather than adds. The scale begins at a tenth of an
ordinary day: below, and where corrections leave less than nothing, a day is a day of rest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist, fmean, median, stdev
from typing import NamedTuple

LEAST_DAYS = 7
LEAST_BEFORE = 14  # days, before one can stand out
MOST_DAYS = 56
WEEKLY_FROM = 21  # days, before a pattern of the week is believed
REFERENCE_DAYS = 28
STANDS_OUT = 5.5  # deviations: of 1,000 ordinary days about three
LEAST_RATIO = 1.5
_NORMAL_MAD = 1.4826  # median deviations of a normal distribution in a standard deviation
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a sum will be at the end of a period, and between what it will be with a confidence."""

    expected: float
    low: float
    high: float
    confidence: float
    days: int


class Anomaly(NamedTuple):
    """A day that stands out: its amount, what is usual, and by how many deviations it differs."""

    day: str
    amount: float
    usual: float
    deviations: float


def forecast(
    history: Mapping[str, float], spent: float, remaining: Mapping[str, float], confidence: float
) -> Forecast | None:
    """Return what ``spent`` will have grown to after the remaining days; None without a week.

    ``history`` has the amounts of whole days by day, ``remaining`` the part of each day that is
    left (1 for whole days).
    """
    days = sorted(history)[-MOST_DAYS:]
    if len(days) < LEAST_DAYS:
        return None
    factors = _find_factors({day: history[day] for day in days})
    level_days = [history[day] / factors[_weekday(day)] for day in days]
    level = fmean(level_days)
    spread = stdev(level_days)
    weights = [part * factors[_weekday(day)] for day, part in remaining.items()]
    expected = spent + level * sum(weights)
    deviation = spread * math.sqrt(
        sum(weight * weight for weight in weights) + sum(weights) ** 2 / len(days)
    )
    estimated = sum(factor != 1 for factor in factors.values()) or 1  # numbers, from the days
    reach = _student(confidence, len(days) - estimated) * deviation
    return Forecast(
        expected=expected,
        low=max(spent, expected - reach),
        high=expected + reach,
        confidence=confidence,
        days=len(days),
    )


def find_anomalies(history: Mapping[str, float], least: float = 0.0) -> list[Anomaly]:
    """Return the days that stand out against the weeks before them, upwards or downwards.

    A day needs two weeks before it, and to differ by ``least`` and by half of the usual at least.
    """
    days = sorted(history)
    found = []
    for place, day in enumerate(days):
        before = days[max(0, place - REFERENCE_DAYS) : place]
        if len(before) < LEAST_BEFORE:
            continue
        anomaly = _judge(day, history[day], {known: history[known] for known in before}, least)
        if anomaly is not None:
            found.append(anomaly)
    return found


def find_limit(history: Mapping[str, float], day: str, least: float = 0.0) -> float | None:
    """Return the amount from which on a day after others stands out upwards.

    None without two weeks before it. It is that of :func:`find_anomalies`, known while the day
    still runs.
    """
    before = sorted(known for known in history if known < day)[-REFERENCE_DAYS:]
    if len(before) < LEAST_BEFORE:
        return None
    usual = _find_usual(day, {known: history[known] for known in before})
    far = math.expm1(usual.middle + STANDS_OUT * usual.spread) * usual.scale
    return max(far, usual.amount * LEAST_RATIO, usual.amount + least)


def _judge(day: str, amount: float, before: Mapping[str, float], least: float) -> Anomaly | None:
    usual = _find_usual(day, before)
    deviations = (_log(amount / usual.scale) - usual.middle) / usual.spread
    differs = abs(amount - usual.amount) >= least and not (
        usual.amount / LEAST_RATIO < amount < usual.amount * LEAST_RATIO
    )
    if abs(deviations) < STANDS_OUT or not differs:
        return None
    return Anomaly(day, amount, usual.amount, deviations)


class _Usual(NamedTuple):
    """What is usual of a day, and on a logarithmic scale of ``scale`` amounts."""

    amount: float
    middle: float
    spread: float
    scale: float


def _find_usual(day: str, before: Mapping[str, float]) -> _Usual:
    factors = _find_factors(before)
    unit = median([value for value in before.values() if value > 0] or [1.0]) / 10
    logs = [_log(value / factors[_weekday(known)] / unit) for known, value in before.items()]
    middle = median(logs)
    spread = max(_NORMAL_MAD * median(abs(value - middle) for value in logs), _LEAST_SPREAD)
    if len(logs) < WEEKLY_FROM:  # the median deviation of two weeks says little
        spread = max(spread, stdev(logs) / 1.5)
    scale = factors[_weekday(day)] * unit
    return _Usual(math.expm1(middle) * scale, middle, spread, scale)


def _log(amount: float) -> float:
    return math.log1p(max(amount, 0.0))


def _find_factors(history: Mapping[str, float]) -> dict[int, float]:
    """Return each weekday's share of an ordinary day; 1 where weeks are too few or were empty."""
    flat = dict.fromkeys(range(7), 1.0)
    middle = median(history.values())
    if len(history) < WEEKLY_FROM or middle <= 0:
        return flat
    of_weekday: dict[int, list[float]] = {}
    for day, amount in history.items():
        of_weekday.setdefault(_weekday(day), []).append(amount)
    means = {weekday: median(amounts) for weekday, amounts in of_weekday.items()}
    whole = fmean(means.values())
    return flat | {weekday: max(mean / whole, 0.05) for weekday, mean in means.items()}


def _weekday(day: str) -> int:
    return date.fromisoformat(day).weekday()


def _student(confidence: float, freedom: int) -> float:
    """Return the two-sided quantile of Student's t (Cornish and Fisher's expansion)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
