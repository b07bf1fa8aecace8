"""What a dashboard is made of: queries in panels, panels in rows."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a panel shows its numbers; the values are Grafana's names of its plugins."""

    LINES = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"
    TABLE = "table"


class Unit(StrEnum):
    """What numbers are of; the values are Grafana's names of units."""

    PLAIN = "short"
    SECONDS = "s"
    SHARE = "percentunit"
    PER_SECOND = "reqps"
    TOKENS_PER_SECOND = "suffix: tokens/s"
    USD = "currencyUSD"
    BYTES = "bytes"
    YES_OR_NO = "bool_yes_no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A PromQL expression and the text that names its series, with labels as ``{{label}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture; ``warn`` and ``bad`` are the values from which it is yellow and red.

    ``is_low_bad`` turns that round: below ``bad`` it is red. ``columns`` of a table maps labels to
    headings, in their order; all other labels are left out.
    """

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit = Unit.PLAIN
    help: str = ""
    width: int = 8
    height: int = 8
    warn: float | None = None
    bad: float | None = None
    is_low_bad: bool = False
    is_stacked: bool = False
    most: float | None = None
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: values of a label, or those that ``values`` lists.

    ``source`` is a metric that has the label. Several may be chosen, and all are at first, unless
    ``is_single``: then it is the first of ``values``.
    """

    name: str
    label: str
    source: str = ""
    values: tuple[str, ...] = ()
    is_single: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard; ``name`` is that of its file."""

    name: str
    uid: str
    title: str
    help: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    since: str = "now-6h"
