"""The table of feedback, and all SQL on it."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.quality.rules import is_later
from pilotage.monitoring.quality.types import Aspect, FeedbackState, Grouping, Opinion, Tally

FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("aspect", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, primary_key=True),  # no foreign keys: calls outlive everything
    sa.Column("id", sa.Text, nullable=False, index=True),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("score", sa.BigInteger),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("comment", sa.LargeBinary),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("taken_at_us", sa.BigInteger, nullable=False),
    sa.Column("due_us", sa.BigInteger, nullable=False),
    sa.Column("is_counted", sa.Boolean, nullable=False),
    sa.Index(None, "state", "due_us"),
    sa.Index(None, "state", "at_us"),
)
_F = FEEDBACK.c
_PAGE = 500  # opinions in one statement
_PLACE = ("call_id", "aspect", "tenant_id", "project_id")
_SETTLED = ("state", "alias", "version_id", "model", "due_us", "is_counted")
_REPLACED = tuple(
    name for name in Opinion.__dataclass_fields__ if name not in {*_PLACE, "is_counted"}
)
_GROUPS = {
    Grouping.ALIAS: _F.alias,
    Grouping.VERSION: _F.version_id,
    Grouping.TENANT: _F.tenant_id,
}


async def put_opinions(tx: Tx, opinions: Sequence[Opinion]) -> None:
    """Write opinions that wait for their calls, in place of earlier ones; later ones stay."""
    for start in range(0, len(opinions), _PAGE):
        page = opinions[start : start + _PAGE]
        known = await _list_known(tx, {opinion.call_id for opinion in page})
        fresh = [replace(one, taken_at_us=tx.now_us, due_us=tx.now_us) for one in page]
        made = [one for one in fresh if one.place not in known]
        later = [one for one in fresh if one.place in known and is_later(one, known[one.place])]
        await tx.change_many(_make_change(tx, _REPLACED), [_bind(one, _REPLACED) for one in later])
        await tx.insert_many(FEEDBACK, [_values(one) for one in made])


async def list_due(tx: Tx, limit: int) -> Sequence[Opinion]:
    """Return the opinions whose calls are to be looked up, those that are longest due first."""
    rows = await tx.all(
        tx.select(FEEDBACK)
        .where(_F.state == FeedbackState.WAITING, _F.due_us <= tx.now_us)
        .order_by(_F.due_us)
        .limit(limit)
    )
    return [_opinion(row) for row in rows]


async def settle(tx: Tx, opinions: Sequence[Opinion]) -> None:
    """Write what became of waiting opinions, unless they were replaced meanwhile."""
    same = _make_change(tx, _SETTLED).where(
        _F.id == sa.bindparam("b_id"), _F.state == FeedbackState.WAITING
    )
    await tx.change_many(same, [_bind(one, _SETTLED) | {"b_id": one.id} for one in opinions])


async def list_opinions(
    tx: Tx, alias: str | None, tenant_id: str | None, after: str, limit: int
) -> Sequence[Opinion]:
    """Return opinions behind an id, in order, of an endpoint and a tenant or of all."""
    statement = tx.select(FEEDBACK).where(_F.id > after).order_by(_F.id, _F.aspect).limit(limit)
    for column, wanted in ((_F.alias, alias), (_F.tenant_id, tenant_id)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    return [_opinion(row) for row in await tx.all(statement)]


async def tally(
    tx: Tx, by: Sequence[Grouping], since_us: int, until_us: int, alias: str | None
) -> Sequence[Tally]:
    """Count the opinions on known calls by group and label, from one time to before another."""
    groups = [_GROUPS[grouping] for grouping in by]
    statement = (
        tx.select(
            FEEDBACK,
            _F.project_id,
            *groups,
            _F.label,
            sa.func.count().label("opinions"),
            sa.func.count(_F.score).label("scored"),
            sa.func.sum(_F.score).label("score_sum"),
        )
        .where(
            _F.state == FeedbackState.MATCHED,
            _F.at_us >= since_us,
            _F.at_us < until_us,
            _F.aspect != Aspect.COMMENT,
        )
        .group_by(_F.project_id, *groups, _F.label)
    )
    if alias is not None:
        statement = statement.where(_F.alias == alias)
    return [
        Tally(
            row["project_id"],
            tuple(row[column.name] for column in groups),
            row["label"],
            row["opinions"],
            row["scored"],
            int(row["score_sum"] or 0),
        )
        for row in await tx.all(statement)
    ]


async def drop_due(tx: Tx) -> int:
    """Drop opinions that are settled and were kept long enough; return how many."""
    settled = _F.state.in_([FeedbackState.MATCHED, FeedbackState.UNKNOWN])
    return await tx.change(tx.delete(FEEDBACK).where(settled, _F.due_us <= tx.now_us))


async def drop_comments(tx: Tx, tenant_id: str) -> int:
    """Drop the comments of a tenant; return how many."""
    own = _F.tenant_id == tenant_id, _F.aspect == Aspect.COMMENT
    return await tx.change(tx.delete(FEEDBACK).where(*own))


async def _list_known(tx: Tx, call_ids: set[str]) -> dict[tuple[str, Aspect, str, str], Opinion]:
    rows = await tx.all(tx.select(FEEDBACK).where(_F.call_id.in_(call_ids)))
    return {opinion.place: opinion for opinion in map(_opinion, rows)}


def _make_change(tx: Tx, names: Sequence[str]) -> sa.Update:
    """Begin an UPDATE of some columns of the opinion at a place, by parameters."""
    same = [_F[name] == sa.bindparam(f"b_{name}") for name in _PLACE]
    values: dict[str, object] = {name: sa.bindparam(f"b_{name}") for name in names}
    return tx.update(FEEDBACK).where(*same).values(values)


def _bind(opinion: Opinion, names: Sequence[str]) -> dict[str, object]:
    return {f"b_{name}": getattr(opinion, name) for name in (*_PLACE, *names)}


def _values(opinion: Opinion) -> dict[str, object]:
    return {name: getattr(opinion, name) for name in Opinion.__dataclass_fields__}


def _opinion(row: Row) -> Opinion:
    values = {name: row[name] for name in Opinion.__dataclass_fields__}
    return Opinion(
        **values | {"state": FeedbackState(row["state"]), "aspect": Aspect(row["aspect"])}
    )
