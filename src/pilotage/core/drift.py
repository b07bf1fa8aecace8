"""Whether the values of a window come from where those of a frozen reference came from.

Values are counted in bins that are chosen from the reference alone: tenths of it for numbers, its
frequent ones for words. Three measures compare the counts:

* PSI, the population stability index ``sum((p - q) * ln(p / q))``: the one that decides. For counts
  of the same source it is distributed as ``(1/n + 1/m) * chi2(B - 1)`` (both counts are multinomial
  and PSI is, to second order, their chi-square distance), so a fixed limit of 0.1 is passed by
  chance alone in 40 % of windows of 100 calls. A shift is what exceeds
  ``max(0.1, chi2_0.999(B - 1) * (1/n + 1/m))`` with ``n >= 200`` values and a reference of
  ``m >= 1000``; in a smaller one the bins themselves are chance.
* JS, the Jensen-Shannon divergence in bits: between 0 and 1, defined also where a bin is empty.
* KS, the largest distance of the two distributions of numbers, which no choice of bins can hide;
  its limit is ``sqrt(-ln(alpha / 2) / 2 * (1/n + 1/m))`` (Smirnov 1948).

Who compares several measures at once divides ``alpha`` among them (Bonferroni).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from pilotage.core.sketch import Sketch

ALPHA = 0.001  # how often a comparison of two windows of one source says that they differ
LEAST_WINDOW = 200  # values; below, nothing is said
LEAST_REFERENCE = 1000
NOTABLE = 0.1  # the PSI that is worth an alarm, however certain a smaller one is
BINS = 10
RARE = 0.05  # of a reference: what is left over for the last bin makes none of its own
EXPECTED = 20  # values of a word on the smaller side; below, it is counted among the others
_ZERO = -(1 << 30)  # the bucket of the value 0, below any other
_HALF = 0.5  # added to every bin, so that an empty one has a logarithm


class Shift(NamedTuple):
    """How far a window is from its reference: ``n`` and ``m`` values, in ``bins`` bins.

    ``psi_limit`` is what PSI has to exceed to be a shift; ``ks`` is None for words.
    """

    n: int
    m: int
    bins: int
    psi: float
    psi_limit: float
    js: float
    ks: float | None = None
    ks_limit: float | None = None

    @property
    def is_shifted(self) -> bool:
        """Whether chance is ruled out, and the shift large enough to matter."""
        return self.psi > self.psi_limit

    @property
    def calibrated(self) -> float:
        """PSI on a scale on which 0.1 is the limit, whatever the number of values."""
        return self.psi * NOTABLE / self.psi_limit


def compare_numbers(reference: Sketch, window: Sketch, tests: int = 1) -> Shift | None:
    """Compare a window of numbers with its reference; None if either has too few.

    ``tests`` is how many measures are compared at once.
    """
    n, m = window.count, reference.count
    if n < LEAST_WINDOW or m < LEAST_REFERENCE:
        return None
    bounds = choose_bounds(reference)
    shift = compare_counts(count_bins(reference, bounds), count_bins(window, bounds), tests)
    limit = math.sqrt(-math.log(ALPHA / tests / 2) / 2 * (1 / n + 1 / m))
    return shift._replace(ks=find_ks(reference, window), ks_limit=limit)


def compare_words(
    reference: Mapping[str, int], window: Mapping[str, int], tests: int = 1
) -> Shift | None:
    """Compare how often each word was counted; None if either side has too few."""
    n, m = sum(window.values()), sum(reference.values())
    if n < LEAST_WINDOW or m < LEAST_REFERENCE:
        return None
    words = choose_words(reference, min(n, m))
    return compare_counts(count_words(reference, words), count_words(window, words), tests)


def compare_counts(reference: Sequence[int], window: Sequence[int], tests: int = 1) -> Shift:
    """Compare counts in the same bins; there are values on both sides."""
    n, m = sum(window), sum(reference)
    quantile = find_chi2(1 - ALPHA / tests, max(1, len(reference) - 1))
    return Shift(
        n=n,
        m=m,
        bins=len(reference),
        psi=find_psi(reference, window),
        psi_limit=max(NOTABLE, quantile * (1 / n + 1 / m)),
        js=find_js(reference, window),
    )


def choose_bounds(reference: Sketch, bins: int = BINS) -> list[int]:
    """Return the highest bucket of every bin but the last, which is open.

    Bins hold at least a tenth of the reference each. A value that alone makes up so much has a bin
    of its own, and so has what lies beyond it: a constant can be seen to move either way.
    """
    share, rare = reference.count / bins, reference.count * RARE
    ends: list[int] = []
    alone: set[int] = set()
    held, last = 0, _ZERO
    for bucket, count in _list_buckets(reference):
        if count >= share:
            _close(ends, alone, last, held, rare)
            ends.append(bucket)
            alone.add(bucket)
            held = 0
        else:
            held += count
            if held >= share:
                ends.append(bucket)
                held = 0
        last = bucket
    _close(ends, alone, last, held, rare)
    if ends[-1] not in alone:
        ends.pop()
    if ends and ends[0] in alone and ends[0] != _ZERO:
        ends.insert(0, ends[0] - 1)
    return ends


def _close(ends: list[int], alone: set[int], last: int, held: int, rare: float) -> None:
    """End a bin that is not full; one that is nearly empty becomes part of the one before."""
    if held and held < rare and ends and ends[-1] not in alone:
        ends[-1] = last
    elif held:
        ends.append(last)


def count_bins(sketch: Sketch, bounds: Sequence[int]) -> list[int]:
    """Return how many values of a sketch are in each of the bins, the open last one included."""
    counts = [0] * (len(bounds) + 1)
    for bucket, count in _list_buckets(sketch):
        counts[bisect_left(bounds, bucket)] += count
    return counts


def choose_words(reference: Mapping[str, int], least: int) -> list[str]:
    """Return the words that get a bin: those expected 20 times among the ``least`` of both sides.

    PSI has the distribution of a chi-square only where bins are not nearly empty.
    """
    share = sum(reference.values()) * EXPECTED / least
    return sorted(word for word, count in reference.items() if count >= share)


def count_words(counts: Mapping[str, int], words: Sequence[str]) -> list[int]:
    """Return the counts of the words, and of all others together."""
    found = [counts.get(word, 0) for word in words]
    return [*found, sum(counts.values()) - sum(found)]


def find_psi(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index of two counts, half a value added to every bin."""
    n, m = sum(window) + _HALF * len(window), sum(reference) + _HALF * len(reference)
    found = 0.0
    for expected, observed in zip(reference, window, strict=True):
        q, p = (expected + _HALF) / m, (observed + _HALF) / n
        found += (p - q) * math.log(p / q)
    return found


def find_js(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the Jensen-Shannon divergence of two counts in bits (Lin 1991)."""
    n, m = sum(window), sum(reference)
    found = 0.0
    for expected, observed in zip(reference, window, strict=True):
        q, p = expected / m, observed / n
        middle = (p + q) / 2
        found += sum(share * math.log2(share / middle) / 2 for share in (p, q) if share)
    return min(1.0, max(0.0, found))  # rounding can leave it a little outside


def find_ks(reference: Sketch, window: Sketch) -> float:
    """Return the largest distance of two cumulative distributions, to a sketch's buckets."""
    steps: dict[int, float] = {}
    for sketch, sign in ((reference, -1), (window, 1)):
        count = sketch.count
        for bucket, held in _list_buckets(sketch):
            steps[bucket] = steps.get(bucket, 0.0) + sign * held / count
    distance = furthest = 0.0
    for bucket in sorted(steps):
        distance += steps[bucket]
        furthest = max(furthest, abs(distance))
    return furthest


@lru_cache(1024)
def find_chi2(share: float, freedom: int) -> float:
    """Return the quantile of a chi-square distribution, to 9 digits, by bisection."""
    low, high = 0.0, freedom + 200.0
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if _survive_chi2(middle, freedom) > 1 - share:
            low = middle
        else:
            high = middle
    return high


def _survive_chi2(value: float, freedom: int) -> float:
    """Return how much of a chi-square distribution lies above (Abramowitz and Stegun 26.4.4-5)."""
    half = value / 2
    if freedom % 2:
        found, term, first = math.erfc(math.sqrt(half)), math.sqrt(half / math.pi) * 2, 3
    else:
        found, term, first = 0.0, 1.0, 2
    for step in range(first, freedom + 1, 2):
        found += term * math.exp(-half)
        term *= value / step
    return found


def _list_buckets(sketch: Sketch) -> list[tuple[int, int]]:
    zeros = [(_ZERO, sketch.zeros)] if sketch.zeros else []
    return zeros + sorted(sketch.buckets.items())
