"""What makes a node of a tree: its parts fit together, or it is refused with what would fit."""

import difflib
from collections.abc import Iterable

from pilotage.core.condition.catalogue import MAX_WINDOW_US, METRICS, Metric
from pilotage.core.condition.filters import check_filters, check_value
from pilotage.core.condition.labels import is_constant, pair_quantities, pair_truths
from pilotage.core.condition.lexer import Word
from pilotage.core.condition.never import check_comparison, check_junction
from pilotage.core.condition.ranges import find_range
from pilotage.core.condition.types import (
    Absence,
    Arithmetic,
    Comparison,
    ConditionError,
    Filter,
    Junction,
    Match,
    MetricRef,
    Negation,
    Node,
    Quantity,
    Series,
    Span,
    Truth,
)
from pilotage.core.condition.units import (
    RATIO,
    SUFFIXES,
    Unit,
    divide,
    format_unit,
    give_example,
    multiply,
    takes_bare,
)
from pilotage.core.duration import UNITS_US, format_duration


def find_metric(word: Word) -> Metric:
    """Return the metric of a name; raise ConditionError that suggests the one meant."""
    metric = METRICS.get(word.text)
    if metric is None:
        hint = suggest(word.text, METRICS) or "The metrics are listed in the reference."
        raise ConditionError(f"{word.text[:60]!r} is no metric.", word.span, hint)
    return metric


def make_filter(metric: Metric, label: Word, match: Word, value: Word) -> Filter:
    """Return a filter of a metric's label; raise ConditionError."""
    if label.text not in metric.labels:
        hint = suggest(label.text, metric.labels) or f"It has {', '.join(metric.labels)}."
        raise ConditionError(f"{metric.name} has no label {label.text[:60]!r}.", label.span, hint)
    made = Filter(label.text, Match(match.text), value.text)
    check_value(made.match, made.value, value.span)
    return made


def check_window(metric: Metric, window_us: int, span: Span) -> None:
    """Raise ConditionError for a window that a metric cannot have."""
    if not metric.window_us:
        raise ConditionError(f"{metric.name} has no window.", span, "Leave it out.")
    if window_us % UNITS_US["m"] or not 0 < window_us <= MAX_WINDOW_US:
        longest = format_duration(MAX_WINDOW_US)
        raise ConditionError(
            "that is no window.", span, f"Write whole minutes, from 1m to {longest}."
        )


def make_ref(metric: Metric, filters: list[Filter], window_us: int, span: Span) -> MetricRef:
    """Return what is asked for of a metric; raise ConditionError if no series can pass."""
    check_filters(filters, span)
    whole = {each.label for each in filters if each.match is Match.EQUAL and not each.value}
    by = ({*metric.split_by} | {each.label for each in filters}) - whole
    return MetricRef(
        name=metric.name, filters=tuple(filters), window_us=window_us, by=tuple(sorted(by))
    )


def make_negation(word: Word, of: Node) -> Negation:
    """Return minus a quantity."""
    quantity = _require_quantity(of)
    span = Span(word.span.start, quantity.span.end)
    return Negation(span=span, of=quantity, unit=quantity.unit)


def make_arithmetic(word: Word, left: Node, right: Node) -> Arithmetic:
    """Return a sum, difference, product or quotient; raise ConditionError if units forbid it."""
    ours, theirs = _require_quantity(left), _require_quantity(right)
    span = Span(ours.span.start, theirs.span.end)
    if word.text in "+-":
        unit = _share_unit(word, ours, theirs)
    else:
        unit = _find_product(word, ours, theirs)
    pairing = pair_quantities(ours, theirs, span)
    return Arithmetic(span=span, op=word.text, left=ours, right=theirs, unit=unit, pairing=pairing)


def make_comparison(word: Word, left: Node, right: Node) -> Comparison:
    """Return a comparison; raise ConditionError if it has no sense or can never be true."""
    ours, theirs = _require_quantity(left), _require_quantity(right)
    span = Span(ours.span.start, theirs.span.end)
    if is_constant(ours) and is_constant(theirs):
        raise ConditionError("this compares two constants.", span, "Name a metric on one side.")
    _share_unit(word, ours, theirs)
    pairing = pair_quantities(ours, theirs, span)
    made = Comparison(span=span, op=word.text, left=ours, right=theirs, pairing=pairing)
    check_comparison(made)
    return made


def make_junction(word: Word, left: Node, right: Node) -> Junction:
    """Return two truths joined; raise ConditionError if together they can never hold."""
    ours, theirs = require_truth(left), require_truth(right)
    span = Span(ours.span.start, theirs.span.end)
    pairing = pair_truths(ours, theirs, word.text, span)
    made = Junction(span=span, op=word.text, left=ours, right=theirs, pairing=pairing)
    check_junction(made)
    return made


def require_truth(node: Node) -> Truth:
    """Return a node that holds or not; raise ConditionError for a quantity."""
    if isinstance(node, Comparison | Absence | Junction):
        return node
    example = give_example(node.unit or RATIO).split(" or ")[0]
    name = node.ref.name if isinstance(node, Series) else "it"
    raise ConditionError(
        "this is a number, and not yet a condition.",
        node.span,
        f"Compare it, for example {name} > {example}.",
    )


def refuse_suffix(word: Word) -> ConditionError:
    """Return the error for a word behind a number that is no unit."""
    meant = _SYNONYMS.get(word.text.lower())
    hint = f"Write {meant}." if meant else f"Units are {', '.join(SUFFIXES)}."
    return ConditionError(f"{word.text[:40]!r} is no unit.", word.span, hint)


def suggest(word: str, among: Iterable[str]) -> str:
    """Return a question for what may have been meant, "" if nothing is like it.

    Of names that are alike but for the order of their parts, the first is suggested.
    """
    names: dict[str, str] = {}
    for name in among:
        names.setdefault(_sort_parts(name), name)
    likely = [names[found] for found in difflib.get_close_matches(_sort_parts(word), names)]
    likely = likely or [name for name in names.values() if word.lower() in name.split("_")][:3]
    return f"Did you mean {' or '.join(likely)}?" if likely else ""


_SYNONYMS = {
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "min": "m",
    "mins": "m",
    "minutes": "m",
    "hours": "h",
    "days": "d",
    "percent": "%",
    "dollars": "USD",
    "usd": "USD",
    "rps": "req/s",
    "qps": "req/s",
    "requests": "req",
    "bytes": "B",
    "kb": "kB",
    "mb": "MB",
    "gb": "GB",
}


def _sort_parts(name: str) -> str:
    """Return a name such that ``latency_p95`` and ``p95_latency`` are alike."""
    return "_".join(sorted(name.lower().split("_")))


def _require_quantity(node: Node) -> Quantity:
    if isinstance(node, Comparison | Absence | Junction):
        raise ConditionError(
            "this holds or not, and is no number.", node.span, "Join conditions with and, or."
        )
    return node


def _share_unit(word: Word, left: Quantity, right: Quantity) -> Unit | None:
    """Return the unit that both sides have; raise ConditionError if it is not the same."""
    if left.unit == right.unit:
        return left.unit
    if left.unit is not None and right.unit is not None:
        raise ConditionError(
            f"{format_unit(left.unit)} {word.text} {format_unit(right.unit)} has no sense.",
            Span(left.span.start, right.span.end),
            f"On the right there should be {format_unit(left.unit)}, such as "
            f"{give_example(left.unit)}.",
        )
    unit, bare = (left.unit, right) if left.unit is not None else (right.unit, left)
    if unit is None or takes_bare(unit) or find_range(bare) == (0.0, 0.0):
        return unit
    raise ConditionError(
        f"this number needs a unit: the other side is in {format_unit(unit)}.",
        bare.span,
        f"Write for example {give_example(unit)}.",
    )


def _find_product(word: Word, left: Quantity, right: Quantity) -> Unit | None:
    if word.text == "/" and find_range(right) == (0.0, 0.0):
        raise ConditionError("this divides by zero.", right.span)
    if left.unit is None and right.unit is None:
        return None
    reckon = multiply if word.text == "*" else divide
    return reckon(left.unit or RATIO, right.unit or RATIO)
