"""How long a test will take: in bad units, in units, and in time.

A likelihood ratio grows by the Kullback-Leibler divergence of the coins per bad unit, so that

    D = (ln(1 / alpha) + 1.5) / KL(theta(r) | theta(r0)),  theta(r) = w r / (1 - w + w r)

bad units decide on average when ``r`` is true and ``r0`` the null; the median is about 0.8 D, and
one case in ten takes twice as many or more. The 1.5 is what the mixture costs. It is a forecast for
people and never changes a test.
"""

import math
from collections.abc import Callable

from pilotage.core.gates.events import show_below
from pilotage.core.gates.types import ALPHA

_MIXTURE = 1.5


def count_bad_units(share: float, ratio: float, null: float = 1.0, alpha: float = ALPHA) -> float:
    """Return how many bad units decide on average; infinity where ratio and null are the same."""
    if ratio == null:
        return math.inf
    truth, other = _share(share, ratio), _share(share, null)
    growth = truth * math.log(truth / other) + (1 - truth) * math.log((1 - truth) / (1 - other))
    return (math.log(1 / alpha) + _MIXTURE) / growth


def count_units_to_show_not_worse(
    share: float, base: float, margin: float, alpha: float = ALPHA
) -> float:
    """Return the units of both arms that show an equal candidate; ``base`` is the bad share."""
    return count_bad_units(share, 1.0, 1.0 + margin, alpha) / base if base > 0 else math.inf


def count_units_to_show_worse(
    share: float, base: float, ratio: float, alpha: float = ALPHA
) -> float:
    """Return the units of both arms that show a candidate that is ``ratio`` times as bad."""
    bad = base * (1 - share) + min(1.0, base * ratio) * share
    return count_bad_units(share, ratio, alpha=alpha) / bad if bad > 0 else math.inf


def count_clean_units(limit: float, alpha: float = ALPHA) -> int:
    """Return how many of the candidate's units show a share below ``limit`` if none is bad."""
    needed = math.log(1 / alpha)
    return _find_first(lambda units: show_below(0, units, limit) >= needed)


def _share(weight: float, ratio: float) -> float:
    return weight * ratio / (1 - weight + weight * ratio)


def _find_first(holds: Callable[[int], bool]) -> int:
    """Return the least number from which on something holds."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
