"""For which series a condition holds, from the values that its metrics have now.

The rules are those of PromQL's operators on instant vectors: a comparison keeps the series of which
it is true, with the value of its left side; ``and`` and ``unless`` keep series of the left.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping

from pilotage.core.condition.filters import passes
from pilotage.core.condition.labels import is_constant
from pilotage.core.condition.types import (
    Absence,
    Arithmetic,
    Comparison,
    Condition,
    Junction,
    Labels,
    Many,
    Match,
    MetricRef,
    Negation,
    Number,
    Pairing,
    Quantity,
    Series,
    Truth,
)

Values = Callable[[MetricRef], Mapping[Labels, float]]
_Vector = dict[Labels, float]
_Selected = Callable[[MetricRef], _Vector]
COMPARATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


def evaluate(condition: Condition, values: Values) -> dict[Labels, float]:
    """Return the series for which a condition holds, each with the value of its left side.

    ``values`` answers what a metric is now, in base units, by labels. Series that a reference's
    filters leave out, or that have other labels than its ``by``, are passed over.
    """
    return _hold(condition.root, lambda ref: select(ref, values(ref)))


def evaluate_value(condition: Condition, value: float) -> bool:
    """Return whether a condition on one metric holds for a value of it, whichever series it is of.

    Raise ValueError for a condition on several metrics: one value says too little of them.
    """
    if len(condition.metrics) != 1:
        names = ", ".join(ref.name for ref in condition.metrics)
        raise ValueError(f"it asks for more than one metric: {names}")
    return bool(_hold(condition.root, lambda _: {(): value}))


def select(ref: MetricRef, series: Mapping[Labels, float]) -> dict[Labels, float]:
    """Return the series that a reference means."""
    return {
        labels: value
        for labels, value in series.items()
        if tuple(name for name, _ in labels) == ref.by
        and all(passes(each, dict(labels).get(each.label, "")) for each in ref.filters)
    }


def _hold(truth: Truth, values: _Selected) -> _Vector:
    match truth:
        case Comparison():
            return _compare(truth, values)
        case Absence(ref=ref):
            if values(ref):
                return {}
            fixed = (
                (each.label, each.value)
                for each in ref.filters
                if each.match is Match.EQUAL and each.value
            )
            return {tuple(sorted(fixed)): 1.0}
        case _:
            return _join(truth, _hold(truth.left, values), _hold(truth.right, values))


def _compare(comparison: Comparison, values: _Selected) -> _Vector:
    is_true = COMPARATORS[comparison.op]
    kept = {}
    for labels, left, right in _pair(comparison, values):
        if is_true(left, right):
            kept[labels] = right if is_constant(comparison.left) else left
    return kept


def _join(junction: Junction, left: _Vector, right: _Vector) -> _Vector:
    if junction.op == "or":
        return left | {labels: right[labels] for labels in right if labels not in left}
    on = junction.pairing.on
    there = {_cut(labels, on) for labels in right}
    wanted = junction.op == "and"
    return {
        labels: value for labels, value in left.items() if (_cut(labels, on) in there) == wanted
    }


def _measure(quantity: Quantity, values: _Selected) -> _Vector:
    """Return the values of a quantity; a constant is one series without labels."""
    match quantity:
        case Number(value=value):
            return {(): float(value)}
        case Series(ref=ref):
            return values(ref)
        case Negation(of=of):
            return {labels: -value for labels, value in _measure(of, values).items()}
        case _:
            reckon = _OPERATORS[quantity.op]
            return {labels: reckon(left, right) for labels, left, right in _pair(quantity, values)}


def _pair(
    node: Arithmetic | Comparison, values: _Selected
) -> Iterable[tuple[Labels, float, float]]:
    """Return the series of a node: its labels, and what is left and right of the operator."""
    left, right = _measure(node.left, values), _measure(node.right, values)
    pairing = node.pairing or Pairing((), Many.RIGHT if is_constant(node.left) else Many.LEFT)
    on = pairing.on
    if pairing.many is Many.RIGHT:
        ones = {_cut(labels, on): value for labels, value in left.items()}
        for labels, value in right.items():
            if (key := _cut(labels, on)) in ones:
                yield labels, ones[key], value
        return
    ones = {_cut(labels, on): value for labels, value in right.items()}
    for labels, value in left.items():
        if (key := _cut(labels, on)) in ones:
            yield (labels if pairing.many is Many.LEFT else key), value, ones[key]


def _cut(labels: Labels, on: tuple[str, ...] | None) -> Labels:
    return labels if on is None else tuple(each for each in labels if each[0] in on)


def _divide(left: float, right: float) -> float:
    """Return a quotient as floating-point units do: by zero it is infinite, or no number."""
    if right:
        return left / right
    if not left or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
}
