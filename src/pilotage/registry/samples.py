"""From raw samples to a number with its 95 % interval, in plain Python and exactly repeatable.

What the number is follows from the name of the metric and the samples:

- a name with a percentile in it (``latency_p95``): that order statistic (nearest rank), with the
  interval between two others whose ranks the binomial distribution gives: a share of at least 95 %
  for any continuous distribution (W. J. Conover, Practical Nonparametric Statistics, 3.2);
- samples that are all 0 or 1: their share, with the score interval of E. B. Wilson (1927);
- anything else: the mean, with the t interval of Student (1908).

Where the samples do not suffice for an interval there is none: of one sample, or of the 95th
percentile of fewer than 72.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

CONFIDENCE = 0.95
MOST_SAMPLES = 20_000
_TAIL = (1 - CONFIDENCE) / 2
_Z = 1.959963984540054  # of the normal distribution, for 95 %
_PERCENTILE = re.compile(r"(?:^|_)p(\d{2,4})(?:_|$)")
_NO_PERCENTILES = ("00", "000", "0000", "100", "1000")
_DIGITS = 12  # what is left of a double after sums


class Summary(NamedTuple):
    """What samples come to: n, the value, its interval if there is one, and which value it is."""

    n: int
    value: Decimal
    low: Decimal | None
    high: Decimal | None
    statistic: str
    hash: str


def summarise(name: str, samples: Sequence[Decimal]) -> Summary:
    """Return what the samples of a metric come to; raise ValueError for none at all.

    ``hash`` is the SHA-256 of the samples as they are, one a line.
    """
    if not samples:
        raise ValueError("there are no samples")
    content = "".join(f"{sample}\n" for sample in samples)
    numbers = sorted(map(float, samples))
    share = _read_percentile(name)
    if share is not None:
        statistic, (value, low, high) = f"p{share * 100:g}", _quantile(numbers, share)
    elif set(numbers) <= {0.0, 1.0}:
        statistic, (value, low, high) = "share", _proportion(int(sum(numbers)), len(numbers))
    else:
        statistic, (value, low, high) = "mean", _mean(numbers)
    return Summary(
        n=len(numbers),
        value=_decimal(value),
        low=None if low is None else _decimal(low),
        high=None if high is None else _decimal(high),
        statistic=statistic,
        hash=hashlib.sha256(content.encode()).hexdigest(),
    )


_Estimate = tuple[float, float | None, float | None]


def _mean(numbers: Sequence[float]) -> _Estimate:
    """Return the mean, and mean -+ t(n - 1) s / sqrt(n)."""
    n = len(numbers)
    mean = math.fsum(numbers) / n
    if n == 1:
        return mean, None, None
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)
    half = t_quantile(n - 1) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def _proportion(hits: int, n: int) -> _Estimate:
    """Return the share, and (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    share, square = hits / n, _Z * _Z
    scale = 1 + square / n
    middle = (share + square / (2 * n)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _quantile(ordered: Sequence[float], share: float) -> _Estimate:
    """Find the order statistics of ranks l and u: P(B < l), P(B >= u) <= 2.5 %, B ~ Bin(n, q)."""
    n = len(ordered)
    value = ordered[max(0, math.ceil(share * n - 1e-9) - 1)]
    below = list(accumulate(_binomial(n, share)))  # below[k] = P(B <= k)
    low = next((rank for rank in range(n, 0, -1) if below[rank - 1] <= _TAIL), None)
    high = next((rank for rank in range(1, n + 1) if below[rank - 1] >= 1 - _TAIL), None)
    if low is None or high is None:
        return value, None, None
    return value, ordered[low - 1], ordered[high - 1]


def _binomial(n: int, share: float) -> list[float]:
    """Return P(B = k) for k = 0..n, by way of logarithms: n may be large."""
    whole, hit, miss = math.lgamma(n + 1), math.log(share), math.log1p(-share)
    return [
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * hit + (n - k) * miss)
        for k in range(n + 1)
    ]


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % point of Student's t distribution.

    Exact for 1 and 2 degrees of freedom; from 3 on by the expansion of Abramowitz and Stegun
    26.7.5, which is right to 0.2 %.
    """
    if freedom == 1:
        return math.tan(math.pi * CONFIDENCE / 2)
    if freedom == 2:
        return CONFIDENCE * math.sqrt(2 / (1 - CONFIDENCE * CONFIDENCE))
    terms: tuple[float, ...] = (
        (_Z**3 + _Z) / 4,
        (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96,
        (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384,
        (79 * _Z**9 + 776 * _Z**7 + 1482 * _Z**5 - 1920 * _Z**3 - 945 * _Z) / 92160,
    )
    return _Z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def _read_percentile(name: str) -> float | None:
    """Return the share that p95 (0.95) or p999 (0.999) in a name means; None without one."""
    found = _PERCENTILE.search(name)
    if found is None:
        return None
    if found[1] in _NO_PERCENTILES:
        raise ValueError(f"p{found[1]} is no percentile: write p50, p95, p99 or p999")
    return float(f"0.{found[1]}")


def _decimal(number: float) -> Decimal:
    return Decimal(f"{number:.{_DIGITS}g}")
