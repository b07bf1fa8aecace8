"""What there is of single calls: the segments that hold them, and questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed Parquet file of one project's calls that ended on one day (UTC).

    ``name`` is its path below the folder of calls.

    ``level`` says how often its rows were merged. One that was replaced by a merge, or whose time
    is over, is kept a while for the queries that still read it.
    """

    name: str
    project_id: str
    level: int
    rows: int
    size_bytes: int
    first_at_us: int
    last_at_us: int
    created_at_us: int
    replaced_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a question is about: segments, and from when to before when its calls ended."""

    segments: Sequence[Segment]
    since_us: int = 0
    until_us: int | None = None


class Column(msgspec.Struct, frozen=True):
    """A column of an answer and its type, as DuckDB writes it."""

    name: str
    type: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a query process is told: a statement, the files it is about and what it may take.

    Rows of other tenants than ``tenant_id`` (empty: none is special) and of calls that ended
    before ``since_us`` or not before ``until_us`` are not there for it.
    """

    sql: str
    files: list[str]
    tenant_id: str
    since_us: int
    until_us: int | None
    most_rows: int
    most_bytes: int
    memory_mb: int
    threads: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a query, each a JSON list; ``is_cut``: there were more than was allowed.

    ``missing`` counts the files that are not there or damaged.
    """

    columns: list[Column]
    rows: list[msgspec.Raw]
    is_cut: bool
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What one query may take of the machine."""

    timeout_s: float = 30.0
    memory_mb: int = 512
    threads: int = 2
    most_rows: int = 10_000
    most_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What a query found, and how many segments it was about."""

    answer: Answer
    segments: int
    elapsed_us: int
