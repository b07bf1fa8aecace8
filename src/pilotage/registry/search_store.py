"""All SQL of searching versions.

A condition that few versions meet is asked first, and the rest of these few; where all conditions
are met by many, versions are walked in their order until a page is full. Either way no statement
reads more than it must, with a hundred thousand versions as with ten.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from pilotage.kit.db import Tx
from pilotage.registry.evidence_store import EVIDENCE
from pilotage.registry.metrics import KIND_COST, KIND_PERFORMANCE
from pilotage.registry.search import FoundVersion, MetricBound, VersionQuery, write_cursor
from pilotage.registry.store import (
    MODEL,
    MODEL_VERSION,
    VERSION_TAG,
    VERSION_WORD,
    named_version,
)

FEW = 300
_LAST = "\U0010ffff"  # behind every letter: what begins with a prefix lies below prefix + this
_MEASURED = cast("sa.Table", EVIDENCE.alias("measured"))  # beside what a query is sorted by
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


class _Condition(NamedTuple):
    """One of a query's conditions: the ids of all that meet it, or a test of the row at hand.

    The ids are in the order of their index, for a database would else count the first few of them
    by reading the table.
    """

    ids: sa.Select[Any]
    test: sa.ColumnElement[bool]


async def search_versions(tx: Tx, query: VersionQuery) -> Sequence[FoundVersion]:
    """Return the living versions that a query wants, in its order."""
    key = EVIDENCE.c.version_id if query.metric else MODEL_VERSION.c.id
    conditions = _list_conditions(tx, query, key)
    counts = [await _count(tx, condition.ids) for condition in conditions]
    statement = _order_by_metric(tx, query) if query.metric else _order_by_age(tx, query)
    if min(counts, default=FEW + 1) <= FEW:
        rarest = conditions.pop(counts.index(min(counts)))
        ids = sorted({row["id"] for row in await tx.all(rarest.ids)})
        statement = statement.where(key.in_(ids))
    for condition in conditions:
        statement = statement.where(condition.test)
    rows = await tx.all(statement.limit(query.limit))
    return [_found(row) for row in rows]


async def _count(tx: Tx, ids: sa.Select[Any]) -> int:
    """Return how many meet a condition, as far as few."""
    some = ids.limit(FEW + 1).subquery()
    counted = some.select().with_only_columns(
        sa.func.count().label("n"), maintain_column_froms=True
    )
    row = await tx.find(counted)
    return int(row["n"]) if row else 0


def _list_conditions(tx: Tx, query: VersionQuery, key: sa.ColumnElement[str]) -> list[_Condition]:
    joined = [
        *(_begins(tx, word) for word in query.words),
        *(_tagged(tx, tag) for tag in query.tags),
        *(_measured(tx, bound) for bound in query.metrics),
    ]
    return [
        *(
            _Condition(ids, ids.order_by(None).where(ids.selected_columns[0] == key).exists())
            for ids in joined
        ),
        *([_is(tx, MODEL_VERSION.c.stage, query.stage)] if query.stage else []),
        *([_is(tx, MODEL_VERSION.c.source, query.source)] if query.source else []),
    ]


def _begins(tx: Tx, word: str) -> sa.Select[Any]:
    c = VERSION_WORD.c
    return (
        tx.select(VERSION_WORD, c.version_id.label("id"))
        .where(c.project_id == tx.project_id, c.word >= word, c.word < word + _LAST)
        .order_by(c.word)
    )


def _tagged(tx: Tx, tag: str) -> sa.Select[Any]:
    c = VERSION_TAG.c
    return (
        tx.select(VERSION_TAG, c.version_id.label("id"))
        .where(c.project_id == tx.project_id, c.tag == tag)
        .order_by(c.version_id)
    )


def _measured(tx: Tx, bound: MetricBound) -> sa.Select[Any]:
    compared = _OPERATORS[bound.operator](_MEASURED.c.value_real, float(bound.value))
    return (
        tx.select(_MEASURED, _MEASURED.c.version_id.label("id"))
        .where(*_is_metric(tx, _MEASURED, bound.name), compared)
        .order_by(_MEASURED.c.value_real)
    )


def _is(tx: Tx, column: sa.ColumnElement[str], wanted: str) -> _Condition:
    ids = tx.select(MODEL_VERSION, MODEL_VERSION.c.id).where(
        MODEL_VERSION.c.project_id == tx.project_id,
        MODEL_VERSION.c.deleted_at_us.is_(None),
        column == wanted,
    )
    return _Condition(ids.order_by(MODEL_VERSION.c.id), column == wanted)


def _is_metric(tx: Tx, evidence: sa.Table, name: str) -> list[sa.ColumnElement[bool]]:
    return [
        evidence.c.project_id == tx.project_id,
        evidence.c.subject == name,
        evidence.c.superseded_by.is_(None),
        evidence.c.kind.in_((KIND_PERFORMANCE, KIND_COST)),
    ]


def _order_by_age(tx: Tx, query: VersionQuery) -> sa.Select[Any]:
    key = MODEL_VERSION.c.id  # ids sort by the time they were made at
    columns = (*MODEL_VERSION.c, MODEL.c.name.label("model_name"), sa.null().label("value"))
    statement = (
        tx.select(MODEL_VERSION, *columns)
        .join(MODEL, MODEL.c.id == MODEL_VERSION.c.model_id)
        .where(MODEL_VERSION.c.project_id == tx.project_id, MODEL_VERSION.c.deleted_at_us.is_(None))
    )
    if query.after is not None:
        behind = operator.lt if query.is_descending else operator.gt
        statement = statement.where(behind(key, query.after.version_id))
    return statement.order_by(key.desc() if query.is_descending else key)


def _order_by_metric(tx: Tx, query: VersionQuery) -> sa.Select[Any]:
    value, key = EVIDENCE.c.value_real, EVIDENCE.c.version_id
    columns = (*MODEL_VERSION.c, MODEL.c.name.label("model_name"), value.label("value"))
    statement = (
        tx.select(EVIDENCE, *columns)
        .join(MODEL_VERSION, MODEL_VERSION.c.id == key)
        .join(MODEL, MODEL.c.id == MODEL_VERSION.c.model_id)
        .where(
            *_is_metric(tx, EVIDENCE, query.metric),
            MODEL_VERSION.c.project_id == tx.project_id,
            MODEL_VERSION.c.deleted_at_us.is_(None),
        )
    )
    if query.after is not None and query.after.value is not None:
        behind = operator.lt if query.is_descending else operator.gt
        place = sa.tuple_(sa.literal(query.after.value), sa.literal(query.after.version_id))
        statement = statement.where(behind(sa.tuple_(value, key), place))
    if query.is_descending:
        return statement.order_by(value.desc(), key.desc())
    return statement.order_by(value, key)


def _found(row: Any) -> FoundVersion:  # noqa: ANN401 - a row of a query
    values = dict(row)
    value = values.pop("value")
    version = named_version(values)
    return FoundVersion(version, value, write_cursor(version.id, value))
