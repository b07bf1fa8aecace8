"""Bounds on a median that assume no shape of the noise: order statistics."""

import math
from collections.abc import Sequence


def bound_median(values: Sequence[float], alpha: float = 0.1) -> tuple[float, float]:
    """Return what the true median is below, and what it is above, with ``alpha`` at most each.

    The k-th lowest and the k-th highest value: for the first to be above the median, fewer than k
    of n may be below it, which happens as often as fewer than k of n coins show heads. Minus and
    plus infinity for too few values.
    """
    n, tail, k = len(values), 0.0, 0
    while tail + math.comb(n, k) / 2**n <= alpha:
        tail += math.comb(n, k) / 2**n
        k += 1
    ordered = sorted(values)
    return (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)
