"""All SQL of searching versions.

A condition that few versions meet is asked first, and the rest of these few; where all conditions
are met by many, versions are walked in their order until a page is full. Either way no statement
reads more than it must, with a hundred thousand versions as with ten.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

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

FEW = 1_000
_LAST = "\U0010ffff"  # behind every letter: what begins with a prefix lies below prefix + this
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


async def search_versions(tx: Tx, query: VersionQuery) -> Sequence[FoundVersion]:
    """Return the living versions that a query wants, in its order."""
    conditions = _list_conditions(tx, query)
    few: set[str] | None = None
    walked = []
    for condition in conditions:
        ids = await _probe(tx, condition)
        if ids is None:
            walked.append(condition)
        else:
            few = ids if few is None else few & ids
    if few is not None and not few:
        return []
    statement = _order_by_metric(tx, query) if query.metric else _order_by_age(tx, query)
    for column, wanted in (
        (MODEL_VERSION.c.stage, query.stage),
        (MODEL_VERSION.c.source, query.source),
    ):
        if wanted:
            statement = statement.where(column == wanted)
    if few is not None:
        statement = statement.where(MODEL_VERSION.c.id.in_(sorted(few)))
    for condition in walked:
        key = condition.selected_columns[0]
        this_one = condition.where(key == MODEL_VERSION.c.id).correlate(MODEL_VERSION)
        statement = statement.where(this_one.exists())
    rows = await tx.all(statement.limit(query.limit))
    return [_found(row) for row in rows]


def _list_conditions(tx: Tx, query: VersionQuery) -> list[sa.Select[Any]]:
    """Return a SELECT of version ids for each condition that has a table of its own."""
    return [
        *(_begins(tx, word) for word in query.words),
        *(_tagged(tx, tag) for tag in query.tags),
        *(_measured(tx, bound) for bound in query.metrics),
    ]


async def _probe(tx: Tx, condition: sa.Select[Any]) -> set[str] | None:
    """Return the versions that meet a condition if they are few, None if they are many."""
    rows = await tx.all(condition.limit(FEW + 1))
    return None if len(rows) > FEW else {row["version_id"] for row in rows}


def _begins(tx: Tx, word: str) -> sa.Select[Any]:
    c = VERSION_WORD.c
    return tx.select(VERSION_WORD, c.version_id).where(
        c.project_id == tx.project_id, c.word >= word, c.word < word + _LAST
    )


def _tagged(tx: Tx, tag: str) -> sa.Select[Any]:
    c = VERSION_TAG.c
    return tx.select(VERSION_TAG, c.version_id).where(c.project_id == tx.project_id, c.tag == tag)


def _measured(tx: Tx, bound: MetricBound) -> sa.Select[Any]:
    compared = _OPERATORS[bound.operator](EVIDENCE.c.value_real, float(bound.value))
    return tx.select(EVIDENCE, EVIDENCE.c.version_id).where(*_is_metric(tx, bound.name), compared)


def _is_metric(tx: Tx, name: str) -> list[sa.ColumnElement[bool]]:
    return [
        EVIDENCE.c.project_id == tx.project_id,
        EVIDENCE.c.subject == name,
        EVIDENCE.c.superseded_by.is_(None),
        EVIDENCE.c.kind.in_((KIND_PERFORMANCE, KIND_COST)),
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
        .where(*_is_metric(tx, query.metric), MODEL_VERSION.c.deleted_at_us.is_(None))
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
