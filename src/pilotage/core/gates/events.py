"""Whether bad units are more frequent, or not much more frequent, with the candidate.

A unit is bad once it had an event that nobody wants: an error, a missed objective, a guard that
hit, a lost outcome. A bad unit belongs to the candidate with probability ``w r / (1 - w + w r)``
where ``w`` is the weight in force and ``r`` how many times as frequent bad units are there,
whatever the frequency itself is at the moment. So the bad units alone decide, however many good
ones there were. The likelihood ratio of ``r`` against ``r0`` is

    log L(r) = sum_w S_w ln(r / r0) - (S_w + F_w) ln((1 - w + w r) / (1 - w + w r0))

with ``S_w`` bad units of the candidate and ``F_w`` of the baseline, and the e-value is the mean
over a few ``r``, which all weights share. It is a supermartingale for every true ratio on the
null's side, because ``r`` lies on the other side throughout.
"""

import math
from collections.abc import Sequence

from pilotage.core.gates.types import Counts, Units, mix

WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
NOT_WORSE = (0.1, 0.33, 0.5, 0.75, 1.0)
RARER = (0.02, 0.1, 0.25, 0.5, 0.75)
LEAST_UNITS = 3  # of the candidate that were bad, before any rollback


def show_worse(bad: Counts) -> float:
    """Return log E against "bad units are not more frequent with the candidate"."""
    return _bet(bad, WORSE, 1.0)


def show_not_worse(bad: Counts, margin: float) -> float:
    """Return log E against "they are at least ``1 + margin`` times as frequent"; margin above 0."""
    return _bet(bad, NOT_WORSE, 1.0 + margin)


def show_below(bad: int, units: int, limit: float) -> float:
    """Return log E against "a share of ``limit`` or more of the candidate's units is bad".

    Unlike the comparison it wins without any bad unit: 90 good ones are enough for a limit of 5 %
    and alpha 0.025, 459 for 1 %. The limit lies between 0 and 1.
    """
    good = units - bad
    return mix(
        bad * math.log(part) + good * (math.log1p(-part * limit) - math.log1p(-limit))
        for part in RARER
    )


def _bet(bad: Counts, ratios: Sequence[float], null: float) -> float:
    return mix(
        sum(_bet_on(units, weight.share, ratio, null) for weight, units in bad.items())
        for ratio in ratios
    )


def _bet_on(units: Units, share: float, ratio: float, null: float) -> float:
    odds = (1 - share + share * ratio) / (1 - share + share * null)
    return units.candidate * math.log(ratio / null) - units.total * math.log(odds)
