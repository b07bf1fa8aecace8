"""What values a quantity can have, whatever the traffic: an interval."""

import math
from typing import NamedTuple

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.types import Negation, Number, Quantity, Series


class Range(NamedTuple):
    """The least and the most that something can be."""

    low: float
    high: float


def find_range(quantity: Quantity) -> Range:
    """Return an interval that holds all values a quantity can have; those of a metric are known."""
    match quantity:
        case Number():
            return Range(float(quantity.value), float(quantity.value))
        case Series():
            metric = METRICS[quantity.ref.name]
            return Range(metric.low, metric.high)
        case Negation():
            inner = find_range(quantity.of)
            return Range(-inner.high, -inner.low)
        case _:
            return _reckon(quantity.op, find_range(quantity.left), find_range(quantity.right))


def can_be(op: str, left: Range, right: Range) -> bool:
    """Say whether some value of the left compares so with some value of the right."""
    return {
        ">": left.high > right.low,
        ">=": left.high >= right.low,
        "<": left.low < right.high,
        "<=": left.low <= right.high,
        "==": left.low <= right.high and right.low <= left.high,
        "!=": not left.low == left.high == right.low == right.high,
    }[op]


def _reckon(op: str, left: Range, right: Range) -> Range:
    if op == "+":
        return Range(left.low + right.low, left.high + right.high)
    if op == "-":
        return Range(left.low - right.high, left.high - right.low)
    return _multiply(left, right if op == "*" else _invert(right))


def _multiply(left: Range, right: Range) -> Range:
    corners = [_times(one, other) for one in left for other in right]
    return Range(min(corners), max(corners))


def _times(one: float, other: float) -> float:
    """Return a product in which nothing times anything, even without end, is nothing."""
    return one * other if one and other else 0.0


def _invert(of: Range) -> Range:
    """Return one divided by an interval; where that has zero in it, anything can come of it."""
    if of.low < 0 <= of.high:
        return Range(-math.inf, math.inf)
    return Range(1 / of.high, 1 / of.low if of.low else math.inf)
