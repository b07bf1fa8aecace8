"""What the tests are given: counts of both arms, apart for each weight that was in force."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from pilotage.core.sketch import Sketch

ALPHA = 0.05  # how often a test may be wrong, one-sided


class Weight(NamedTuple):
    """How traffic was dealt between the two arms that are compared, in parts of any common whole.

    Other arms of the alias do not matter: given that a unit went to one of the two, it went to the
    candidate with probability ``share``.
    """

    candidate: int
    baseline: int

    @property
    def share(self) -> float:
        """The candidate's part, above 0 and below 1."""
        return self.candidate / (self.candidate + self.baseline)


class Units(NamedTuple):
    """How many units of each arm."""

    candidate: int = 0
    baseline: int = 0

    @property
    def total(self) -> int:
        """Units of both arms."""
        return self.candidate + self.baseline


class Values(NamedTuple):
    """The numbers of each arm's units: microseconds, nano-USD or any other one from 0 up."""

    candidate: Sketch
    baseline: Sketch


Counts: TypeAlias = Mapping[Weight, Units]
Samples: TypeAlias = Mapping[Weight, Values]


def add_units(counts: Counts) -> Units:
    """Return the units of all weights together."""
    return Units(
        sum(units.candidate for units in counts.values()),
        sum(units.baseline for units in counts.values()),
    )


def mix(logs: Iterable[float]) -> float:
    """Return the logarithm of the mean of e-values that are given by their logarithms.

    A mean of e-values is one, so that several alternatives can be bet on at once.
    """
    held = list(logs)
    most = max(held)
    return most + math.log(sum(math.exp(log - most) for log in held) / len(held))
