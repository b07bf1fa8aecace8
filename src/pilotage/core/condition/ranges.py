"""What values a quantity can have, and so which conditions can never hold."""

import math
from typing import NamedTuple

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.types import (
    Arithmetic,
    Comparison,
    ConditionError,
    Junction,
    Negation,
    Number,
    Quantity,
    Series,
)


class Range(NamedTuple):
    """The least and the most that something can be."""

    low: float
    high: float


def find_range(quantity: Quantity) -> Range:
    """Return what values a quantity can have, at most."""
    match quantity:
        case Number():
            return Range(float(quantity.value), float(quantity.value))
        case Series():
            metric = METRICS[quantity.ref.name]
            return Range(metric.low, metric.high)
        case Negation():
            inner = find_range(quantity.of)
            return Range(-inner.high, -inner.low)
        case Arithmetic():
            return _reckon(quantity.op, find_range(quantity.left), find_range(quantity.right))


def check_comparison(comparison: Comparison) -> None:
    """Raise ConditionError if a comparison can never be true."""
    left, right = find_range(comparison.left), find_range(comparison.right)
    if not _is_possible(comparison.op, left, right):
        raise ConditionError("this can never be true.", comparison.span)


def check_junction(junction: Junction) -> None:
    """Raise ConditionError if two truths can never hold together."""


def _is_possible(op: str, left: Range, right: Range) -> bool:
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
    """Return a product in which nothing times anything is nothing."""
    return one * other if one and other else 0.0


def _invert(of: Range) -> Range:
    if of.low > 0:
        return Range(1 / of.high, 1 / of.low)
    if of.high < 0:
        return Range(1 / of.high, 1 / of.low)
    if of.low == 0:
        return Range(1 / of.high, math.inf)
    return Range(-math.inf, 1 / of.low if of.high == 0 else math.inf)
