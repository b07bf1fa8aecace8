"""Whether the candidate does worse on the same inputs, or not much worse: for shadows and replays.

Both arms answer each input, and each answer has a mark from 0 to ``FULL`` thousandths. What is
tested is the mean of the differences ``d = candidate - baseline``, in parts of 1. As both got the
same input, whatever makes inputs easy or hard is in both marks and falls out of the difference, so
that pairs show far more than two samples do.

    against "the mean is 0 or more"           one bets f on d being low:   1 - f d
    against "the mean is -margin or less"     f on its being higher:       1 + f (d + margin) / m

with ``m = 1 - margin``, the most that ``d + margin`` can fall below 0. No factor can fall below
``1 - f``, each has expectation 1 at most under its null, and the e-value is the mean over a few
``f`` (a betting test in the manner of Waudby-Smith and Ramdas 2023). The inputs need no common
distribution: it is enough that, given the past, each difference has the mean that the null says.

State is the counts of differences, so it merges by adding. Equal marks win and lose nothing
towards "worse".
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pilotage.core.gates.types import ALPHA, mix

FULL = 1_000  # thousandths: the best mark, and the largest difference
POWER = 0.9
_FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_NORMAL = {0.5: 0.0, 0.8: 0.8416, 0.9: 1.2816, 0.95: 1.6449}  # its quantiles
_MIXTURE = math.log(len(_FRACTIONS))  # what betting on several fractions costs at most

Pairs: TypeAlias = Mapping[int, int]
"""How many pairs there are of each difference, in thousandths."""


def show_worse(pairs: Pairs) -> float:
    """Return log E against "the candidate's marks are not lower"."""
    return mix(
        sum(count * math.log1p(-bet * d / FULL) for d, count in sorted(pairs.items()))
        for bet in _FRACTIONS
    )


def show_not_worse(pairs: Pairs, margin: float) -> float:
    """Return log E against "they are lower by ``margin`` or more on average"; 0 < margin < 1."""
    most = 1.0 - margin
    return mix(
        sum(
            count * math.log1p(bet * (d / FULL + margin) / most)
            for d, count in sorted(pairs.items())
        )
        for bet in _FRACTIONS
    )


def find_mean(pairs: Pairs) -> float | None:
    """Return the mean difference, in parts of 1; None without pairs."""
    total = sum(pairs.values())
    return sum(d * count for d, count in pairs.items()) / FULL / total if total else None


def find_interval(pairs: Pairs, alpha: float = ALPHA) -> tuple[float, float]:
    """Return between which means of the difference the truth lies, whenever one looks.

    A mean is left out once the bets against it, from either side, have won ``2 / alpha``; so the
    interval misses the truth with probability ``alpha`` at most, over all looks together.
    """
    bound = math.log(2 / alpha)
    mirrored = {-d: count for d, count in pairs.items()}
    return _find_least(pairs, bound), -_find_least(mirrored, bound)


def count_pairs(drop: float, spread: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return how many pairs show a mean drop with a probability of ``power``.

    ``spread`` is the variance of the difference, in parts of 1: for marks that are all or nothing
    the share of inputs on which the arms disagree. The best bet wins ``drop**2 / (2 spread)`` a
    pair on average, with a variance of ``drop**2 / spread``; so ``n = spread / drop**2 *
    (z + sqrt(z**2 + 2 L))**2`` where ``L`` is what has to be won and ``z`` the normal quantile.
    """
    needed = math.log(1 / alpha) + _MIXTURE
    z = _NORMAL[power]
    return math.ceil(spread / drop**2 * (z + math.sqrt(z * z + 2 * needed)) ** 2)


def find_spread(pairs: Pairs) -> float | None:
    """Return the variance of the difference, in parts of 1; None of fewer than two pairs."""
    total, mean = sum(pairs.values()), find_mean(pairs)
    if total < 2 or mean is None:
        return None
    squares = sum((d / FULL - mean) ** 2 * count for d, count in pairs.items())
    return squares / (total - 1)


def _find_least(pairs: Pairs, bound: float) -> float:
    """Return the least mean that is not ruled out from below, by halving.

    What is won against a mean falls as the mean rises.
    """
    low, high = -1.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _bet_above(pairs, middle) >= bound else (low, middle)
    return low


def _bet_above(pairs: Pairs, mean: float) -> float:
    """Return log E against "the mean is ``mean`` or less", which lies between -1 and 1."""
    return mix(
        sum(
            count * math.log1p(bet * (d / FULL - mean) / (1.0 + mean))
            for d, count in sorted(pairs.items())
        )
        for bet in _FRACTIONS
    )


def add_pairs(all_of_them: Sequence[Pairs]) -> dict[int, int]:
    """Return the pairs of several counts together."""
    sums: dict[int, int] = {}
    for pairs in all_of_them:
        for d, count in pairs.items():
            sums[d] = sums.get(d, 0) + count
    return sums
