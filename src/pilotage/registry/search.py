"""What versions are searched by: words, stage, source, tags and metrics, in which order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.registry.rules import check_source, split_words
from pilotage.registry.types import NamedVersion, Stage

NEWEST = "newest"
OLDEST = "oldest"
MOST_CONDITIONS = 8
_METRIC = re.compile(r"([^<>=,]+?)\s*(>=|<=|>|<|=)\s*([^<>=,]+)")


class MetricBound(NamedTuple):
    """A condition on a metric: ``accuracy >= 0.9``. Versions that lack it do not meet it."""

    name: str
    operator: str
    value: Decimal


class After(NamedTuple):
    """Where the page before ended: a version, and its metric where that is the order."""

    version_id: str
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionQuery:
    """Which versions are wanted; every condition must hold.

    ``words`` are beginnings of words of the name, the tags, the description and the base model.
    ``metric`` is what they are sorted by; without one they are sorted by age.
    """

    words: Sequence[str] = ()
    stage: str = ""
    source: str = ""
    tags: Sequence[str] = ()
    metrics: Sequence[MetricBound] = ()
    metric: str = ""
    is_descending: bool = True
    after: After | None = None
    limit: int = 50


class FoundVersion(NamedTuple):
    """A version that was found; ``cursor`` continues behind it."""

    version: NamedVersion
    value: float | None
    cursor: str


def parse_query(
    *,
    text: str = "",
    stage: str = "",
    source: str = "",
    tags: str = "",
    metrics: str = "",
    sort: str = "",
    after: str = "",
    limit: int = 50,
) -> VersionQuery:
    """Read a search as the API writes it; raise ``invalid_request`` that says what can be written.

    ``tags`` and ``metrics`` are lists with commas; ``sort`` is newest, oldest, or a metric: its
    name for lowest first, ``-NAME`` for highest first.
    """
    words, labels = split_words(text), _split(tags)
    bounds = [_parse_bound(item) for item in _split(metrics)]
    if len(words) + len(labels) + len(bounds) > MOST_CONDITIONS:
        raise PilotageError(
            "invalid_request", f"A search may have {MOST_CONDITIONS} conditions at most."
        )
    metric = "" if sort in ("", NEWEST, OLDEST) else sort.removeprefix("-")
    return VersionQuery(
        words=words,
        stage=_check_stage(stage) if stage else "",
        source=check_source(source) if source else "",
        tags=labels,
        metrics=bounds,
        metric=metric,
        is_descending=sort.startswith("-") if metric else sort != OLDEST,
        after=_parse_after(after, has_value=bool(metric)) if after else None,
        limit=limit,
    )


def write_cursor(version_id: str, value: float | None) -> str:
    """Return the text that continues behind a version."""
    return version_id if value is None else f"{value!r}:{version_id}"


def _parse_after(text: str, *, has_value: bool) -> After:
    value, _, version_id = text.rpartition(":")
    try:
        return After(version_id, float(value) if has_value else None)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"after: {text[:80]!r} continues no search in this order.",
            hint="Give the 'next' of the page before, with the same sort.",
            param="after",
        ) from None


def _parse_bound(text: str) -> MetricBound:
    found = _METRIC.fullmatch(text)
    try:
        value = Decimal(found[3]) if found else Decimal("nan")
    except InvalidOperation:
        value = Decimal("nan")
    if found is None or not value.is_finite():
        raise PilotageError(
            "invalid_request",
            f"metric: {text[:80]!r} is no condition.",
            hint="Write NAME>=NUMBER, for example accuracy>=0.9; also <=, >, < and =.",
            param="metric",
        )
    return MetricBound(found[1].strip(), found[2], value)


def _check_stage(text: str) -> Stage:
    try:
        return Stage(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{text[:80]!r} is no stage.",
            hint=f"Use one of: {', '.join(Stage)}.",
            param="stage",
        ) from None


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
