"""Which conditions can never hold: they would look like watchmen, and never say anything.

Found are comparisons beyond what a metric can be, bounds that exclude each other, filters that no
label passes, and a ``for`` that outlasts the period after which a sum begins anew. What is
accepted may of course still never happen.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.labels import is_constant
from pilotage.core.condition.ranges import Range, can_be, find_range
from pilotage.core.condition.types import (
    Absence,
    Arithmetic,
    Comparison,
    ConditionError,
    Junction,
    MetricRef,
    Negation,
    Node,
    Quantity,
    Series,
    Span,
    Truth,
)
from pilotage.core.condition.units import RATIO
from pilotage.core.condition.writer import write_node, write_ref
from pilotage.core.duration import format_duration

_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}


class Bounds(NamedTuple):
    """Where a value is: between two others, each of which is itself in or out."""

    low: float = -math.inf
    has_low: bool = False
    high: float = math.inf
    has_high: bool = False

    def holds(self, value: float) -> bool:
        """Say whether a value is within."""
        return self.cut(Bounds(low=value, has_low=True, high=value, has_high=True)) is not None

    def cut(self, other: "Bounds") -> "Bounds | None":
        """Return what is within both, None if nothing is."""
        low, lacks_low = max((self.low, not self.has_low), (other.low, not other.has_low))
        high, has_high = min((self.high, self.has_high), (other.high, other.has_high))
        if low > high or (low == high and (lacks_low or not has_high)):
            return None
        return Bounds(low, not lacks_low, high, has_high)


def check_comparison(comparison: Comparison) -> None:
    """Raise ConditionError for a comparison that is true of no values."""
    left, right = find_range(comparison.left), find_range(comparison.right)
    is_same = write_node(comparison.left) == write_node(comparison.right)
    if is_same and comparison.op in {">", "<", "!="}:
        raise ConditionError("both sides are the same, so this can never hold.", comparison.span)
    if not can_be(comparison.op, left, right):
        raise ConditionError(
            f"this can never hold: the left side is {_tell(left)}, the right side {_tell(right)}.",
            comparison.span,
            _advise(comparison),
        )


def check_junction(junction: Junction) -> None:
    """Raise ConditionError for two sides of which one shuts out the other."""
    if junction.op == "and":
        _check_together(junction)
    elif junction.op == "unless":
        _check_apart(junction)


def check_for(root: Truth, for_us: int, span: Span) -> None:
    """Raise ConditionError if a condition can hold, but never for so long."""
    for ref, bounds in _list_bounds(root).items():
        period_us = METRICS[ref.name].period_us
        if period_us and for_us >= period_us and not bounds.holds(0.0):
            raise ConditionError(
                f"{ref.name} begins at 0 again after {format_duration(period_us)}, so this can "
                "never hold for so long.",
                span,
                "Write a shorter time, or none.",
            )


def _check_together(junction: Junction) -> None:
    ours, theirs = _list_bounds(junction.left), _list_bounds(junction.right)
    for ref in ours.keys() & theirs.keys():
        if _is_seen_by(ref, junction) and ours[ref].cut(theirs[ref]) is None:
            raise ConditionError(
                f"{write_ref(ref)} cannot be both at once, so this can never hold.",
                junction.span,
                "Did you mean or?",
            )
    absent = {*_list_absent(junction.left), *_list_absent(junction.right)}
    for ref in (*_list_needed(junction.left), *_list_needed(junction.right)):
        if ref in absent:
            raise ConditionError(
                f"{write_ref(ref)} cannot be absent and have a value, so this can never hold.",
                junction.span,
                "Did you mean or?",
            )


def _check_apart(junction: Junction) -> None:
    ours, right = _list_bounds(junction.left), junction.right
    theirs = _list_bounds(right) if isinstance(right, Comparison) else {}
    is_within = any(
        ref in ours and ours[ref].cut(bounds) == ours[ref] for ref, bounds in theirs.items()
    )
    if is_within or write_node(junction.left) == write_node(right):
        raise ConditionError(
            "whenever the left side holds the right side does, so this can never hold.",
            junction.span,
        )


def _list_bounds(node: Node) -> dict[MetricRef, Bounds]:
    """Return where the metrics of each series are for which a truth holds, as far as it says so."""
    match node:
        case Comparison():
            return _read_bounds(node)
        case Junction(op="and"):
            found = _list_bounds(node.left)
            for ref, bounds in _list_bounds(node.right).items():
                if _is_seen_by(ref, node):
                    found[ref] = bounds.cut(found.get(ref, bounds)) or bounds
            return found
        case Junction(op="unless"):
            return _list_bounds(node.left)
        case _:
            return {}


def _is_seen_by(ref: MetricRef, junction: Junction) -> bool:
    """Say whether a series of the right is the very one that belongs to a series of the left."""
    on = junction.pairing.on
    return on is None or set(ref.by) <= set(on)


def _read_bounds(comparison: Comparison) -> dict[MetricRef, Bounds]:
    op, series, limit = comparison.op, comparison.left, comparison.right
    if isinstance(limit, Series):
        op, series, limit = _TURNED[op], limit, series
    if not isinstance(series, Series) or not is_constant(limit) or op == "!=":
        return {}
    value = find_range(limit).low
    bounds = {
        ">": Bounds(low=value),
        ">=": Bounds(low=value, has_low=True),
        "<": Bounds(high=value),
        "<=": Bounds(high=value, has_high=True),
        "==": Bounds(low=value, has_low=True, high=value, has_high=True),
    }
    return {series.ref: bounds[op]}


def _list_absent(node: Truth) -> Iterable[MetricRef]:
    """Yield the metrics that must be absent for a truth to hold."""
    match node:
        case Absence():
            yield node.ref
        case Junction(op="and"):
            yield from _list_absent(node.left)
            yield from _list_absent(node.right)
        case Junction(op="unless"):
            yield from _list_absent(node.left)
        case _:
            return


def _list_needed(node: Truth) -> Iterable[MetricRef]:
    """Yield the metrics that must have a value for a truth to hold."""
    match node:
        case Comparison():
            yield from _list_refs(node.left)
            yield from _list_refs(node.right)
        case Junction(op="and"):
            yield from _list_needed(node.left)
            yield from _list_needed(node.right)
        case Junction(op="unless"):
            yield from _list_needed(node.left)
        case _:
            return


def _list_refs(quantity: Quantity) -> Iterable[MetricRef]:
    match quantity:
        case Series():
            yield quantity.ref
        case Negation():
            yield from _list_refs(quantity.of)
        case Arithmetic():
            yield from _list_refs(quantity.left)
            yield from _list_refs(quantity.right)
        case _:
            return


def _tell(of: Range) -> str:
    low, high = f"{of.low + 0.0:g}", f"{of.high + 0.0:g}"  # which makes 0 of -0
    if of.low == of.high:
        return low
    if math.isinf(of.high):
        return f"at least {low}"
    return f"at most {high}" if math.isinf(of.low) else f"from {low} to {high}"


def _advise(comparison: Comparison) -> str:
    """Return what was probably meant, "" if that is anybody's guess."""
    limit = comparison.right if is_constant(comparison.right) else comparison.left
    value = find_range(limit).low
    is_share = RATIO in {comparison.left.unit, comparison.right.unit}
    if is_share and is_constant(limit) and limit.unit is None and 1 <= value <= 100:
        return f"A ratio of {value:g} is {value * 100:g} %. Did you mean {value:g}%?"
    return ""
