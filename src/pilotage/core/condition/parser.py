"""From a text to a condition.

::

    condition  = truth ["for" duration]
    truth      = conjunct {"or" conjunct}
    conjunct   = claim {("and" | "unless") claim}
    claim      = "absent" "(" series ")" | "(" truth ")" | quantity comparator quantity
    comparator = ">" | ">=" | "<" | "<=" | "==" | "!="
    quantity   = product {("+" | "-") product}
    product    = factor {("*" | "/") factor}
    factor     = "-" factor | "(" quantity ")" | number | series
    number     = duration | ["$"] digits [suffix]
    series     = metric ["{" [filter {"," filter} [","]] "}"] ["[" duration "]"]
    filter     = label ("=" | "!=" | "=~" | "!~") string
    duration   = (digits ("ms" | "s" | "m" | "h" | "d"))+
"""

import re
from dataclasses import replace
from decimal import Decimal

from pilotage.core.condition.catalogue import MAX_WINDOW_US, Metric
from pilotage.core.condition.checks import (
    check_window,
    find_metric,
    make_arithmetic,
    make_comparison,
    make_filter,
    make_junction,
    make_negation,
    make_ref,
    refuse_suffix,
    require_truth,
)
from pilotage.core.condition.lexer import Kind, Word, split_words
from pilotage.core.condition.never import check_for
from pilotage.core.condition.types import (
    Absence,
    Condition,
    ConditionError,
    Filter,
    Match,
    MetricRef,
    Node,
    Number,
    Series,
    Span,
    Truth,
)
from pilotage.core.condition.units import SECONDS, SUFFIXES
from pilotage.core.duration import format_duration, parse_duration_us

MAX_DEPTH = 20
MAX_SERIES = 32
LONGEST_NUMBER = 24  # letters: what Decimal multiplies exactly
_COMPARATORS = (">", ">=", "<", "<=", "==", "!=")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def parse(text: str) -> Condition:
    """Read a condition; raise ConditionError, which says where it is wrong and what to write."""
    parser = _Parser(text)
    root = parser.read_truth()
    for_us = parser.read_for(root)
    metrics = tuple(dict.fromkeys(parser.refs))
    return Condition(text=text, root=root, for_us=for_us, metrics=metrics)


class _Parser:
    """Reads words from left to right, one function for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._words = split_words(text)
        self._at = 0
        self._depth = 0
        self.refs: list[MetricRef] = []

    @property
    def _word(self) -> Word:
        return self._words[self._at]

    def read_truth(self) -> Truth:
        """Return all up to ``for`` or the end."""
        return require_truth(self._read_disjunction())

    def read_for(self, root: Truth) -> int:
        """Return how long a truth has to hold, in microseconds, and expect the end."""
        for_us = 0
        if word := self._take(Kind.KEYWORD, "for"):
            for_us = self._read_duration_us("for 5m")
            span = Span(word.span.start, self._words[self._at - 1].span.end)
            if for_us % 1000 or for_us > MAX_WINDOW_US:
                longest = format_duration(MAX_WINDOW_US)
                raise ConditionError(f"write whole milliseconds, at most {longest}.", span)
            check_for(root, for_us, span)
        if self._word.kind is not Kind.END:
            raise self._refuse("and, or, for or the end")
        return for_us

    def _read_disjunction(self) -> Node:
        left = self._read_conjunction()
        while word := self._take(Kind.KEYWORD, "or"):
            left = make_junction(word, left, self._read_conjunction())
        return left

    def _read_conjunction(self) -> Node:
        left = self._read_claim()
        while word := self._take(Kind.KEYWORD, "and", "unless"):
            left = make_junction(word, left, self._read_claim())
        return left

    def _read_claim(self) -> Node:
        left = self._read_sum()
        if (word := self._take(Kind.SIGN, *_COMPARATORS)) is None:
            return left
        claim = make_comparison(word, left, self._read_sum())
        if self._word.kind is Kind.SIGN and self._word.text in _COMPARATORS:
            raise ConditionError(
                "a comparison has two sides.", self._word.span, "Write a > b and b > c."
            )
        return claim

    def _read_sum(self) -> Node:
        left = self._read_product()
        while word := self._take(Kind.SIGN, "+", "-"):
            left = make_arithmetic(word, left, self._read_product())
        return left

    def _read_product(self) -> Node:
        left = self._read_factor()
        while word := self._take(Kind.SIGN, "*", "/"):
            left = make_arithmetic(word, left, self._read_factor())
        return left

    def _read_factor(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConditionError("this is nested too deeply.", self._word.span)
        node = self._read_nested() or self._read_plain()
        self._depth -= 1
        return node

    def _read_nested(self) -> Node | None:
        if word := self._take(Kind.SIGN, "-"):
            return make_negation(word, self._read_factor())
        if word := self._take(Kind.SIGN, "("):
            node = self._read_disjunction()
            end = self._expect(")")
            return replace(node, span=Span(word.span.start, end.span.end))
        if word := self._take(Kind.KEYWORD, "absent"):
            self._expect("(")
            series = self._read_series()
            end = self._expect(")")
            return Absence(span=Span(word.span.start, end.span.end), ref=series.ref)
        return None

    def _read_plain(self) -> Node:
        if self._word.kind is Kind.NAME:
            return self._read_series()
        if self._word.kind in {Kind.NUMBER, Kind.DURATION} or self._word.text == "$":
            return self._read_number()
        raise self._refuse("a metric or a number")

    def _read_number(self) -> Number:
        start = self._word.span.start
        if len(self._word.text) > LONGEST_NUMBER:
            raise ConditionError("this number has too many digits.", self._word.span)
        if word := self._take(Kind.DURATION):
            return Number(span=word.span, value=_sum_seconds(word.text), unit=SECONDS)
        is_money = self._take(Kind.SIGN, "$") is not None
        word = self._take(Kind.NUMBER)
        if word is None:
            raise self._refuse("an amount such as $10")
        suffix = "$" if is_money else self._read_suffix()
        unit, factor = SUFFIXES[suffix] if suffix else (None, Decimal(1))
        span = Span(start, self._words[self._at - 1].span.end)
        return Number(span=span, value=Decimal(word.text) * factor, unit=unit)

    def _read_suffix(self) -> str:
        if word := self._take(Kind.SIGN, "%", "$"):
            return word.text
        word = self._take(Kind.NAME)
        if word is None:
            return ""
        if word.text not in SUFFIXES:
            raise refuse_suffix(word)
        per_second = f"{word.text}/s"
        following = [next_word.text for next_word in self._words[self._at : self._at + 2]]
        if per_second in SUFFIXES and following == ["/", "s"]:
            self._at += 2
            return per_second
        return word.text

    def _read_series(self) -> Series:
        name = self._take(Kind.NAME)
        if name is None:
            raise self._refuse("a metric")
        metric = find_metric(name)
        filters = self._read_filters(metric) if self._take(Kind.SIGN, "{") else []
        window_us = metric.window_us
        if opened := self._take(Kind.SIGN, "["):
            window_us = self._read_duration_us("[5m]")
            closed = self._expect("]")
            check_window(metric, window_us, Span(opened.span.start, closed.span.end))
            if self._word.text == "{":
                raise ConditionError(
                    "filters stand before the window.",
                    self._word.span,
                    'For example p95_latency{alias="chat"}[5m].',
                )
        span = Span(name.span.start, self._words[self._at - 1].span.end)
        ref = make_ref(metric, filters, window_us, span)
        self.refs.append(ref)
        if len(self.refs) > MAX_SERIES:
            raise ConditionError(f"a condition asks for at most {MAX_SERIES} metrics.", span)
        return Series(span=span, ref=ref, unit=metric.unit)

    def _read_filters(self, metric: Metric) -> list[Filter]:
        filters: list[Filter] = []
        while not self._take(Kind.SIGN, "}"):
            label = self._take(Kind.NAME)
            if label is None:
                raise self._refuse("a label or }")
            match = self._take(Kind.SIGN, *Match)
            if match is None:
                raise self._refuse('= and what the label is, such as alias="chat"')
            value = self._take(Kind.STRING)
            if value is None:
                raise self._refuse('a text in quotes, such as "chat"')
            filters.append(make_filter(metric, label, match, value))
            if not self._take(Kind.SIGN, ",") and self._word.text != "}":
                raise self._refuse(", or }")
        return filters

    def _read_duration_us(self, example: str) -> int:
        word = self._take(Kind.DURATION)
        if word is None:
            raise self._refuse(f"a duration, as in {example}")
        try:
            return parse_duration_us(word.text)
        except ValueError as wrong:
            raise ConditionError(f"{wrong}.", word.span) from None

    def _take(self, kind: Kind, *texts: str) -> Word | None:
        """Step over the word and return it if it is one of these."""
        word = self._word
        if word.kind is not kind or (texts and word.text not in texts):
            return None
        self._at += 1
        return word

    def _expect(self, sign: str) -> Word:
        if word := self._take(Kind.SIGN, sign):
            return word
        raise self._refuse(sign)

    def _refuse(self, wanted: str) -> ConditionError:
        word = self._word
        found = f"{word.text[:40]!r}" if word.kind is not Kind.END else "the end"
        return ConditionError(f"here is {found} where {wanted} should be.", word.span)


def _sum_seconds(text: str) -> Decimal:
    """Return a duration in seconds, exactly; raise nothing, for the lexer knew its form."""
    parts = _PART.findall(text)
    return sum((Decimal(number) * SUFFIXES[unit][1] for number, unit in parts), Decimal(0))
