"""Whether the mean of a number is higher, or not much higher, with the candidate.

For what has a usual size that is known, its ``cap``: the cost of a call, a score. With ``A = 1``
for the candidate,

    phi = y (A / (w (1 + d)) - (1 - A) / (1 - w))

has expectation ``mean_c / (1 + d) - mean_b``. Against "the candidate's mean is at least 1 + d times
the baseline's" one bets a fraction ``f`` on ``phi`` being low (a betting test in the manner of
Waudby-Smith and Ramdas 2023), which wins ``1 - f w / cap * phi``; against "it is not higher", with
``d = 0``, ``1 + f (1 - w) / cap * phi``. The e-value is the mean over a few ``f``.

Few values are above the cap. Where the candidate is to be shown worse they count as the cap, in
both arms, so that one of them does not decide: what is tested then is the mean of values cut off
at the cap. So the means themselves have to say it, too, which they do not where the baseline alone
has the dear ones (:func:`weigh_means`); going back gets rarer by that, never more frequent.

Where it is to be shown fine its own count in full, since that is where a higher mean may hide: a
bet that one of them takes all from stays lost, and those of smaller fractions go on. Of the
baseline no more counts than what a bet could lose at once. But a bet loses no more than all there
is, so it is fair up to ``cap / f`` only. For values that have no bound nothing can be shown by bets
alone, as what is rare enough has not been met; that takes ``LEAST_VALUES`` first.

Values come as sketches, whose buckets are 1.1 % wide: each is taken at the end of its bucket that
speaks against what is to be shown. So what is found is true of the values themselves.
"""

import math
from functools import lru_cache
from operator import mul

from pilotage.core.gates.types import Samples, mix
from pilotage.core.sketch import GAMMA, Sketch

_FRACTIONS = (0.01, 0.03, 0.1, 0.3, 0.8)
LEAST_VALUES = 1_000  # of the candidate: what is one in 333 of them is unseen with 5 %
_LOST = -1e9  # the logarithm of what is left of a bet that lost all: finite, and never regained


def show_higher(values: Samples, cap: float) -> float:
    """Return log E against "the candidate's mean is not higher", values above ``cap`` as it."""
    logs = [0.0] * len(_FRACTIONS)
    for weight, (candidate, baseline) in values.items():
        odds = (1 - weight.share) / weight.share
        _add(logs, candidate, cap, odds, low=True, most=1.0)
        _add(logs, baseline, cap, -1.0, low=False, most=1.0)
    return mix(logs)


def show_not_higher(values: Samples, cap: float, margin: float) -> float:
    """Return log E against "the candidate's mean is at least ``1 + margin`` times the other's"."""
    logs = [0.0] * len(_FRACTIONS)
    for weight, (candidate, baseline) in values.items():
        odds = weight.share / (1 - weight.share)
        _add(logs, candidate, cap, -1.0 / (1 + margin), low=False)
        _add(logs, baseline, cap, odds, low=True)
    return mix(logs)


def weigh_means(values: Samples) -> tuple[float, float]:
    """Return what is in proportion to the means of candidate and baseline, uncut.

    Of each weight they count by how many values there are, so that both are about the same times.
    """
    mine = theirs = 0.0
    for candidate, baseline in values.values():
        if candidate.count and baseline.count:
            both = candidate.count + baseline.count
            mine += both * candidate.total / candidate.count
            theirs += both * baseline.total / baseline.count
    return mine, theirs


def _add(
    logs: list[float],
    sketch: Sketch,
    cap: float,
    stake: float,
    *,
    low: bool,
    most: float = math.inf,
) -> None:
    """Add to each bet what it won by all values, each as ``most`` times the cap at most."""
    counts = list(sketch.buckets.values())
    won = [_win(bucket - 1 if low else bucket, cap, stake, most) for bucket in sketch.buckets]
    for index, parts in enumerate(zip(*won, strict=True)):
        logs[index] += math.fsum(map(mul, counts, parts))


@lru_cache(maxsize=1 << 14)  # looks at a rollout meet the same values again and again
def _win(bucket: int, cap: float, stake: float, most: float) -> tuple[float, ...]:
    """Return the logarithm of ``1 + stake * risked`` of one value for each of the bets.

    Nobody risks more than all there is.
    """
    part = min(most, GAMMA**bucket / cap)
    return tuple(
        math.log1p(stake * min(1.0, fraction * part)) if stake > 0 or fraction * part < 1 else _LOST
        for fraction in _FRACTIONS
    )
