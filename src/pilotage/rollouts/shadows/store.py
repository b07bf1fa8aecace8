"""The table of comparisons, and all SQL on it."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.rollouts.shadows.rules import Place, merge
from pilotage.rollouts.shadows.types import Held, PairKey

COMPARISON = sa.Table(
    "comparison",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),  # no foreign keys: calls outlive everything
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("baseline", sa.Text, primary_key=True),
    sa.Column("candidate", sa.Text, primary_key=True),
    sa.Column("at_us", sa.BigInteger, primary_key=True, index=True),
    sa.Column("held", sa.LargeBinary, nullable=False),
)
_C = COMPARISON.c
_GROWING = 7_310_591  # the lock of whoever adds: counts are read, grown and written back
_PACK = msgspec.msgpack.Encoder().encode
_HELD = msgspec.msgpack.Decoder(Held)


async def add(tx: Tx, found: Mapping[Place, Held]) -> None:
    """Add counts to those that are there."""
    await tx.lock(_GROWING)
    for (key, at_us), held in sorted(found.items(), key=lambda item: item[0]):
        here = [*_is_of(key), _C.at_us == at_us]
        row = await tx.find(tx.select(COMPARISON).where(*here))
        if row is None:
            values = key._asdict() | {"at_us": at_us, "held": _PACK(held)}
            await tx.insert(COMPARISON, **values)
        else:
            grown = merge(_HELD.decode(row["held"]), held)
            await tx.change(tx.update(COMPARISON).where(*here).values(held=_PACK(grown)))


async def list_held(
    tx: Tx, alias: str | None, rollout: str | None, since_us: int
) -> Sequence[tuple[PairKey, Held]]:
    """Return counts since a day, of an endpoint and the steps of a rollout, or of all."""
    statement = tx.select(COMPARISON).where(_C.at_us >= since_us)
    if alias is not None:
        statement = statement.where(_C.alias == alias)
    if rollout is not None:
        statement = statement.where(_C.rollout.startswith(f"{rollout}/", autoescape=True))
    order = [_C[name] for name in PairKey._fields]
    return [
        (PairKey(*(row[name] for name in PairKey._fields)), _HELD.decode(row["held"]))
        for row in await tx.all(statement.order_by(*order, _C.at_us))
    ]


async def drop_before(tx: Tx, at_us: int) -> int:
    """Drop the counts of days before a time; return how many."""
    return await tx.change(tx.delete(COMPARISON).where(_C.at_us < at_us))


def _is_of(key: PairKey) -> list[sa.ColumnElement[bool]]:
    return [_C[name] == value for name, value in key._asdict().items()]
