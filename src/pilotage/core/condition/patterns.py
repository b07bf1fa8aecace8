"""Patterns of label values: as little of regular expressions as is the same everywhere.

A pattern is one or several alternatives (``chat|code``), each of plain letters and ``.``, ``.*``,
``.+``. It has to match all of a value. What is not of this form is refused, so that Prometheus,
whose engine is another one, understands the same, and none takes long to match.
"""

import re
from functools import lru_cache

from pilotage.core.condition.types import ConditionError, Span

_MOST_WILDCARDS = 3
_ALTERNATIVE = re.compile(r"(?:[^\\^$*+?()\[\]{}|.]|\.[*+]?)*")


def check_pattern(pattern: str, span: Span) -> None:
    """Raise ConditionError for a pattern of another form."""
    for alternative in pattern.split("|"):
        if not _ALTERNATIVE.fullmatch(alternative):
            raise ConditionError(
                "patterns are made of letters, ., .*, .+ and | only.",
                span,
                'For example alias=~"chat.*|code".',
            )
        if sum(alternative.count(wildcard) for wildcard in (".*", ".+")) > _MOST_WILDCARDS:
            raise ConditionError(f"a pattern has at most {_MOST_WILDCARDS} of .* and .+.", span)


def list_matches(pattern: str) -> frozenset[str] | None:
    """Return all values that a pattern matches, None if there is no end to them."""
    return None if "." in pattern else frozenset(pattern.split("|"))


def is_match(pattern: str, value: str) -> bool:
    """Say whether a checked pattern matches all of a value."""
    return _compile(pattern).fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\.[*+]?|\|)", pattern)
    return re.compile(
        "".join(part if index % 2 else re.escape(part) for index, part in enumerate(parts))
    )
