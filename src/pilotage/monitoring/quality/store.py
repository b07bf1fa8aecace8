"""The table of feedback, and all SQL on it."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.quality.types import Aspect, FeedbackState, Grouping, Opinion, Tally

FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),  # no foreign keys: calls outlive everything
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("aspect", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("score", sa.BigInteger),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.UniqueConstraint("project_id", "tenant_id", "call_id", "aspect"),
    sa.Index(None, "project_id", "at_us"),
    sa.Index(None, "state", "at_us"),
)
_F = FEEDBACK.c
_GROUPS = {
    Grouping.ALIAS: _F.alias,
    Grouping.VERSION: _F.version_id,
    Grouping.TENANT: _F.tenant_id,
}


async def replace_opinion(tx: Tx, opinion: Opinion) -> None:
    """Write an opinion in place of an earlier one of the same tenant, call and aspect."""
    same = (
        _F.project_id == opinion.project_id,
        _F.tenant_id == opinion.tenant_id,
        _F.call_id == opinion.call_id,
    )
    await tx.change(tx.delete(FEEDBACK).where(*same, _F.aspect == opinion.aspect))
    if opinion.score is not None:
        await tx.change(tx.update(FEEDBACK).where(*same).values(score=None))
    await tx.insert(FEEDBACK, **_values(opinion))


async def list_waiting(tx: Tx, limit: int) -> Sequence[Opinion]:
    """Return opinions whose calls are not known yet, the newest first."""
    rows = await tx.all(
        tx.select(FEEDBACK)
        .where(_F.state == FeedbackState.WAITING)
        .order_by(_F.at_us.desc(), _F.id.desc())
        .limit(limit)
    )
    return [_opinion(row) for row in rows]


async def give_up(tx: Tx, before_us: int) -> int:
    """Let opinions wait no longer that were given before a time; return how many."""
    late = tx.update(FEEDBACK).where(_F.state == FeedbackState.WAITING, _F.at_us < before_us)
    return await tx.change(late.values(state=FeedbackState.UNKNOWN.value))


async def settle(tx: Tx, opinions: Sequence[Opinion]) -> None:
    """Write what became of waiting opinions."""
    statement = (
        tx.update(FEEDBACK)
        .where(_F.id == sa.bindparam("b_id"), _F.state == FeedbackState.WAITING)
        .values({name: sa.bindparam(f"b_{name}") for name in _SETTLED})
    )
    await tx.change_many(
        statement,
        [
            {"b_id": opinion.id} | {f"b_{name}": getattr(opinion, name) for name in _SETTLED}
            for opinion in opinions
        ],
    )


async def list_opinions(
    tx: Tx, alias: str | None, tenant_id: str | None, after: str, limit: int
) -> Sequence[Opinion]:
    """Return opinions behind an id, in order, of an endpoint and a tenant or of all."""
    statement = tx.select(FEEDBACK).where(_F.id > after).order_by(_F.id).limit(limit)
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
        .where(_F.state == FeedbackState.MATCHED, _F.at_us >= since_us, _F.at_us < until_us)
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


async def drop(tx: Tx, before_us: int, unknown_before_us: int) -> int:
    """Drop old opinions, sooner those on calls that there never were; return how many."""
    is_unknown = sa.and_(_F.state == FeedbackState.UNKNOWN, _F.at_us < unknown_before_us)
    return await tx.change(tx.delete(FEEDBACK).where(sa.or_(_F.at_us < before_us, is_unknown)))


_SETTLED = ("state", "alias", "version_id", "model")


def _values(opinion: Opinion) -> dict[str, object]:
    return {name: getattr(opinion, name) for name in Opinion.__dataclass_fields__}


def _opinion(row: Row) -> Opinion:
    values = {name: row[name] for name in Opinion.__dataclass_fields__}
    return Opinion(
        **values | {"state": FeedbackState(row["state"]), "aspect": Aspect(row["aspect"])}
    )
