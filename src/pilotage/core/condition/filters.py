r"""Filters of series by a label, and their patterns.

A pattern is as little of regular expressions as is the same everywhere: one or several alternatives
(``chat|code``), each of plain letters and ``.``, ``.*``, ``.+``, which have to match all of a
value. The rest is refused, so that Prometheus, whose engine is another one, understands the
same, and none takes long to match.
"""

import re
from functools import lru_cache

from pilotage.core.condition.types import ConditionError, Filter, Match, Span

_LONGEST_VALUE = 256
_MOST_WILDCARDS = 3
_ALTERNATIVE = re.compile(r"(?:[^\\^$*+?()\[\]{}|.]|\.[*+]?)*")
_NO_LETTERS = frozenset('"\\{}')  # that no name has, and that end or open something elsewhere


def passes(each: Filter, value: str) -> bool:
    """Say whether a label's value, "" for a label that is not there, passes a filter."""
    match each.match:
        case Match.EQUAL:
            return value == each.value
        case Match.UNEQUAL:
            return value != each.value
        case Match.LIKE:
            return _compile(each.value).fullmatch(value) is not None
        case _:
            return _compile(each.value).fullmatch(value) is None


def check_value(match: Match, value: str, span: Span) -> None:
    """Raise ConditionError for a value or a pattern that a filter cannot have."""
    is_possible = value.isprintable() and not _NO_LETTERS & set(value)
    if len(value) > _LONGEST_VALUE or not is_possible:
        raise ConditionError("no label has such a value.", span)
    if match in {Match.EQUAL, Match.UNEQUAL}:
        return
    for alternative in value.split("|"):
        if not _ALTERNATIVE.fullmatch(alternative):
            raise ConditionError(
                "a pattern is made of letters, ., .*, .+ and | only.",
                span,
                'For example alias=~"chat.*|code".',
            )
        if alternative.count(".*") + alternative.count(".+") > _MOST_WILDCARDS:
            raise ConditionError(f"a pattern has at most {_MOST_WILDCARDS} of .* and .+.", span)


def check_filters(filters: list[Filter], span: Span) -> None:
    """Raise ConditionError for filters that together no series can pass."""
    for label in dict.fromkeys(each.label for each in filters):
        same = [each for each in filters if each.label == label]
        if len(same) > 1 and any(each.match is Match.EQUAL for each in same):
            raise ConditionError(f"{label} is one value, and needs no second filter.", span)
        if not _can_pass(same):
            raise ConditionError(f"no series can pass the filters on {label}.", span)


def _can_pass(same: list[Filter]) -> bool:
    """Say whether a label can pass filters, as far as these name all that it can be."""
    named = [
        frozenset(each.value.split("|"))
        for each in same
        if each.match is Match.LIKE and "." not in each.value
    ]
    if not named:
        return True
    return any(
        value and all(passes(each, value) for each in same)
        for value in frozenset.intersection(*named)
    )


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\.[*+]?|\|)", pattern)
    escaped = (part if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile("".join(escaped))
