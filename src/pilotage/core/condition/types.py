"""What a condition is: a tree of typed nodes, each of which knows where it stands in the text.

A *quantity* is a number for each series; a *truth* holds or not for each series. The names of the
labels that the series of a node have are known before any value is, because every metric declares
them: that is what makes it certain which series of two sides belong together.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pilotage.core.condition.units import Unit
from pilotage.core.errors import PilotageError

Labels = tuple[tuple[str, str], ...]  # (name, value) in order of the names


class Span(NamedTuple):
    """Where something stands in the text: from letter ``start`` up to before ``end``, from 0."""

    start: int
    end: int


class ConditionError(PilotageError):
    """A text that is no condition: what is wrong, where, and what to write instead."""

    def __init__(self, detail: str, span: Span, hint: str = "") -> None:
        place = f"At character {span.start + 1}: "
        super().__init__("invalid_request", place + detail, hint=hint, param="condition")
        self.start, self.end = span

    def point_at(self, text: str) -> str:
        """Return two lines: the text, and marks below what is wrong in it."""
        marks = " " * self.start + "^" * max(1, self.end - self.start)
        return f"{text}\n{marks}"


class Match(StrEnum):
    """How a label is compared."""

    EQUAL = "="
    UNEQUAL = "!="
    LIKE = "=~"
    UNLIKE = "!~"


@dataclass(frozen=True, slots=True)
class Filter:
    """What a label of a series must be; a label that a series does not have is ``""``."""

    label: str
    match: Match
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRef:
    """What a condition asks for: the series of a metric that pass all ``filters``.

    ``window_us`` is how far back it looks, 0 for a metric that has no window. ``by`` are the labels
    that each series has, in order: those that the metric has by itself and those that a
    filter names. So ``p95_latency{tenant="acme"}`` has one series for each alias.
    """

    name: str
    filters: tuple[Filter, ...] = ()
    window_us: int = 0
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number in its base unit; ``unit`` is None for one that was written without."""

    span: Span
    value: Decimal
    unit: Unit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The values of a metric."""

    span: Span
    ref: MetricRef
    unit: Unit | None


class Many(StrEnum):
    """Which side of an operator may have several series for one of the other side."""

    NEITHER = ""
    LEFT = "left"
    RIGHT = "right"


class Pairing(NamedTuple):
    """Which series of two sides belong together: those whose labels ``on`` are the same.

    ``on`` is None where all labels have to be.
    """

    on: tuple[str, ...] | None
    many: Many = Many.NEITHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A sum, difference, product or quotient; ``pairing`` is None where a side is a constant."""

    span: Span
    op: str
    left: "Quantity"
    right: "Quantity"
    unit: Unit | None
    pairing: Pairing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation:
    """Minus a quantity."""

    span: Span
    of: "Quantity"
    unit: Unit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Holds for the series of which it is true."""

    span: Span
    op: str
    left: "Quantity"
    right: "Quantity"
    pairing: Pairing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Holds while a metric has no series at all."""

    span: Span
    ref: MetricRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Junction:
    """``and``, ``or``, ``unless`` of two truths."""

    span: Span
    op: str
    left: "Truth"
    right: "Truth"
    pairing: Pairing


Quantity = Number | Series | Arithmetic | Negation
Truth = Comparison | Absence | Junction
Node = Quantity | Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition that was read and checked.

    ``for_us`` is how long it has to hold before somebody is told; ``metrics`` are all that it asks
    for, each once.
    """

    text: str
    root: Truth
    for_us: int
    metrics: tuple[MetricRef, ...]
