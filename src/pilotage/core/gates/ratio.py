"""Whether units were dealt as they should have been: the test for a sample-ratio mismatch.

A mismatch means that what is compared was not dealt by the coin: units of one arm were lost, a
cache answered for the other, a weight was not what it was said to be. Then no comparison can be
believed. Units are those seen for the first time, counted when they are dealt: requests of sticky
users are no coins.
"""

import math

from pilotage.core.gates.types import Counts

ALPHA = 0.001
_PRIOR = 100.0  # units that the alternative's belief around the weight is worth


def show_mismatch(first_seen: Counts) -> float:
    """Return log E against "each unit was dealt at the weight in force".

    The alternative at each weight ``w`` is a share that is distributed as Beta(100 w, 100 (1 - w)).
    """
    found = 0.0
    for weight, units in first_seen.items():
        share = weight.share
        a, b = _PRIOR * share, _PRIOR * (1 - share)
        found += _log_beta(a + units.candidate, b + units.baseline) - _log_beta(a, b)
        found -= units.candidate * math.log(share) + units.baseline * math.log1p(-share)
    return found


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
