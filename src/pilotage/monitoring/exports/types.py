"""Metrics as other programs take them: families of samples."""

from dataclasses import dataclass
from enum import StrEnum

Pairs = tuple[tuple[str, str], ...]


class FamilyKind(StrEnum):
    """What a metric's numbers mean; the values are Prometheus' words."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """A number of a series; ``suffix`` is what a histogram's series have behind their name."""

    labels: Pairs
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric and its series."""

    name: str
    kind: FamilyKind
    help: str
    samples: tuple[Sample, ...]
