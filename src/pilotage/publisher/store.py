"""The publisher's row: where the line of Snapshots stands."""

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.publisher.types import Line

SNAPSHOT_LINE = sa.Table(
    "snapshot_line",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("base_seq", sa.BigInteger, nullable=False),
    sa.Column("base_sha256", sa.Text, nullable=False),
    sa.Column("base_size", sa.BigInteger, nullable=False),
)
_ONLY = 1


async def get_line(tx: Tx) -> Line:
    """Return where the line stands; the beginning of it where nothing was published."""
    row = await tx.find(tx.select(SNAPSHOT_LINE).where(SNAPSHOT_LINE.c.id == _ONLY))
    return Line(**{name: row[name] for name in Line.__dataclass_fields__}) if row else Line()


async def set_line(tx: Tx, old: Line, new: Line) -> bool:
    """Move the line on; False if somebody else has."""
    values = {name: getattr(new, name) for name in Line.__dataclass_fields__}
    if old.n == 0 and await tx.find(tx.select(SNAPSHOT_LINE)) is None:
        await tx.insert(SNAPSHOT_LINE, id=_ONLY, **values)
        return True
    guarded = tx.update(SNAPSHOT_LINE).where(
        SNAPSHOT_LINE.c.id == _ONLY, SNAPSHOT_LINE.c.n == old.n
    )
    return await tx.change(guarded.values(**values)) == 1
