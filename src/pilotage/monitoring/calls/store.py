"""The table of segments, and all SQL on it."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.monitoring.calls.types import Segment

CALL_SEGMENT = sa.Table(
    "call_segment",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),  # no foreign key: calls outlive everything
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("first_at_us", sa.BigInteger, nullable=False),
    sa.Column("last_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("replaced_at_us", sa.BigInteger),
)
_C = CALL_SEGMENT.c


async def insert_segments(tx: Tx, segments: Sequence[Segment]) -> None:
    """Add segments."""
    names = Segment.__dataclass_fields__
    rows = [{name: getattr(segment, name) for name in names} for segment in segments]
    await tx.insert_many(CALL_SEGMENT, rows)


async def list_living(tx: Tx, since_us: int = 0, until_us: int | None = None) -> list[Segment]:
    """Return the segments with calls from one time to before another, oldest calls first."""
    statement = tx.select(CALL_SEGMENT).where(
        _C.replaced_at_us.is_(None), _C.last_at_us >= since_us
    )
    if until_us is not None:
        statement = statement.where(_C.first_at_us < until_us)
    return [Segment(**row) for row in await tx.all(statement.order_by(_C.first_at_us, _C.name))]


async def list_names(tx: Tx) -> set[str]:
    """Return the name of every segment whose file is still needed."""
    return {row["name"] for row in await tx.all(tx.select(CALL_SEGMENT, _C.name))}


async def replace_segments(tx: Tx, names: Collection[str]) -> bool:
    """Put segments out of use; False if one of them already is."""
    living = tx.update(CALL_SEGMENT).where(_C.name.in_(names), _C.replaced_at_us.is_(None))
    return await tx.change(living.values(replaced_at_us=tx.now_us)) == len(names)


async def expire_segments(tx: Tx, before_us: int) -> int:
    """Put the segments out of use whose every call ended before a time; return how many."""
    old = tx.update(CALL_SEGMENT).where(_C.last_at_us < before_us, _C.replaced_at_us.is_(None))
    return await tx.change(old.values(replaced_at_us=tx.now_us))


async def delete_replaced(tx: Tx, before_us: int) -> int:
    """Forget the segments that were put out of use before a time; return how many."""
    return await tx.change(tx.delete(CALL_SEGMENT).where(_C.replaced_at_us < before_us))
