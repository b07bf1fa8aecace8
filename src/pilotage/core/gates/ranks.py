"""Whether a number tends to be higher, or not much higher, with the candidate.

Each value is turned into ``u``, the share of a frozen reference of the baseline that lies below it,
and ``g(u)`` is bet on the arm that it came from. With ``A = 1`` for the candidate the factor

    g(u) ** A / (1 - w + w g(u))

has expectation 1 where the value does not depend on the arm, and less where the candidate's values
are stochastically lower, as ``g`` rises with ``u``. That holds for any reference, also for one that
is out of date: it only costs power. Six ``g`` are bet on at once: four that rise evenly, for a
shift of the whole distribution, and two that rise at its upper end, for a heavier tail.

It sees a shift early and a heavier tail behind a faster median late; the share of units above a
limit (:mod:`pilotage.core.gates.events`) is the other way round. A gate needs both.

Values come as sketches: all those of a bucket have the same ``u``. A margin is a whole number of
buckets, at most what was asked for.
"""

import math
from bisect import bisect_left
from operator import mul

from pilotage.core.gates.types import Samples, mix
from pilotage.core.sketch import GAMMA, Sketch

LEAST_REFERENCE = 200  # values; below, the ranks are too coarse to find anything
_SHIFTS = (0.25, 0.5, 1.0, 2.0)
_TAILS = (0.2, 0.5)
_END = 0.002  # keeps the logarithm of the upper end finite


class Ranks:
    """What the ranks in a frozen reference are worth; made once for a rollout, for any look."""

    def __init__(self, reference: Sketch) -> None:
        self._count = reference.count
        self._buckets = sorted(reference.buckets)
        self._below = []
        seen = reference.zeros
        for bucket in self._buckets:
            self._below.append(seen / (self._count + 1))
            seen += reference.buckets[bucket]
        self._below.append(seen / (self._count + 1))
        self._won: dict[tuple[float, float, bool], dict[int | None, tuple[float, ...]]] = {}

    def show_higher(self, values: Samples) -> float:
        """Return log E against "the candidate's values are not higher"."""
        return self._bet(values, 0, 1.0)

    def show_not_higher(self, values: Samples, margin: float) -> float:
        """Return log E against "they are higher than ``1 + margin`` times the baseline's"."""
        return self._bet(values, find_shift(margin), -1.0)

    def _bet(self, values: Samples, shift: int, sign: float) -> float:
        logs = [0.0] * (len(_SHIFTS) + len(_TAILS))
        for weight, (candidate, baseline) in values.items():
            share = weight.share
            self._add(logs, candidate, -shift, share, sign, is_candidate=True)
            self._add(logs, baseline, 0, share, sign, is_candidate=False)
        return mix(logs)

    def _add(
        self,
        logs: list[float],
        sketch: Sketch,
        shift: int,
        share: float,
        sign: float,
        *,
        is_candidate: bool,
    ) -> None:
        """Add what the values of one arm at one weight have won in each of the six bets."""
        known = self._won.setdefault((share, sign, is_candidate), {})
        buckets: list[int | None] = [bucket + shift for bucket in sketch.buckets]
        counts = list(sketch.buckets.values())
        if sketch.zeros:
            buckets.append(None)
            counts.append(sketch.zeros)
        for bucket in buckets:
            if bucket not in known:
                known[bucket] = _win(self._rank(bucket), share, sign, is_candidate=is_candidate)
        for index, won in enumerate(zip(*(known[bucket] for bucket in buckets), strict=True)):
            logs[index] += math.fsum(map(mul, counts, won))

    def _rank(self, bucket: int | None) -> float:
        """Return the share of the reference below a bucket, 0 for the value 0."""
        if bucket is None:
            return 0.0
        return self._below[bisect_left(self._buckets, bucket)]


def find_shift(margin: float) -> int:
    """Return how many buckets a margin is, rounded down."""
    return math.floor(math.log1p(margin) / math.log(GAMMA) + 1e-9)


def _win(u: float, share: float, sign: float, *, is_candidate: bool) -> tuple[float, ...]:
    """Return the logarithm of what one value of rank ``u`` wins in each of the bets."""
    tail = -math.log(1 - u + _END) - 1
    bets = [slope * (2 * u - 1) for slope in _SHIFTS] + [slope * tail for slope in _TAILS]
    return tuple(
        (sign * bet if is_candidate else 0.0) - math.log(1 - share + share * math.exp(sign * bet))
        for bet in bets
    )
