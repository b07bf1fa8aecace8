"""Mergeable histograms of durations, with quantiles that are wrong by less than one percent.

Values are counted in buckets whose bounds grow by ``GAMMA = 2 ** (1 / 2 ** SCALE)``: bucket ``i``
holds what is above ``GAMMA ** (i - 1)`` and at most ``GAMMA ** i``, which is the exponential
histogram of OpenTelemetry and the native one of Prometheus at that scale. To merge is to add, so
any order and grouping of merges gives the same sketch.
"""

import math
from collections.abc import Iterable
from typing import Self

import msgspec

SCALE = 6
GAMMA: float = 2 ** (1 / 2**SCALE)
_PER_LOG = 1 / math.log(GAMMA)
# The point of a bucket from which both its ends are equally far, in proportion.
_MIDDLE = 2 / (1 + GAMMA)


class Sketch(msgspec.Struct, array_like=True):
    """Counts of values by bucket; ``zeros`` counts those that are 0.

    ``total`` is the sum of all values, as they were added. Negative values are no values here: they
    are how frames say "unknown", and are passed over.
    """

    zeros: int = 0
    total: int = 0
    buckets: dict[int, int] = {}

    @classmethod
    def of(cls, values: Iterable[int]) -> Self:
        """Make a sketch of values."""
        made = cls()
        for value in values:
            made.add(value)
        return made

    @property
    def count(self) -> int:
        """How many values were added."""
        return self.zeros + sum(self.buckets.values())

    @property
    def mean(self) -> float | None:
        """The exact mean, None without values."""
        count = self.count
        return self.total / count if count else None

    def add(self, value: int) -> None:
        """Count a value; one below 0 is passed over."""
        if value > 0:
            bucket = math.ceil(math.log(value) * _PER_LOG)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
            self.total += value
        elif value == 0:
            self.zeros += 1

    def merge(self, other: Self) -> None:
        """Add what another has counted."""
        self.zeros += other.zeros
        self.total += other.total
        mine = self.buckets
        for bucket, count in other.buckets.items():
            mine[bucket] = mine.get(bucket, 0) + count

    def quantile(self, share: float) -> float | None:
        """Return the value of rank ``ceil(share * count)`` (nearest rank); None without values.

        Raises ValueError for a share that is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"{share} is no share from 0 to 1")
        count = self.count
        if not count:
            return None
        rank = max(1, math.ceil(share * count))
        seen = self.zeros
        if rank <= seen:
            return 0.0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if rank <= seen:
                break
        return GAMMA**bucket * _MIDDLE

    def count_above(self, value: float) -> int:
        """Return how many values lie above another, exact but for those in its own bucket."""
        if value <= 0:
            return sum(self.buckets.values()) + (self.zeros if value < 0 else 0)
        own = math.ceil(math.log(value) * _PER_LOG)
        return sum(count for bucket, count in self.buckets.items() if bucket > own)
