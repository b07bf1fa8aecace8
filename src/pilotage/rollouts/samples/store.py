"""The tables of samples, and all SQL on them."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.rollouts.samples.types import Sample, SampleCount

SAMPLE = sa.Table(
    "call_sample",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),  # no foreign keys: calls outlive everything
    sa.Column("tenant_id", sa.Text, nullable=False, index=True),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("letter", sa.LargeBinary, nullable=False),
    sa.Column("due_us", sa.BigInteger, nullable=False, index=True),
    sa.Index(None, "project_id", "alias", "id"),
)
PLACE = sa.Table(
    "call_sample_place",
    METADATA,
    sa.Column("spool", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
_S = SAMPLE.c
_PAGE = 200  # samples in one statement


async def get_place(tx: Tx, spool: str, epoch: str) -> int:
    """Return the last record of a spool's life that was taken, 0 for none."""
    row = await tx.find(tx.select(PLACE).where(PLACE.c.spool == spool, PLACE.c.epoch == epoch))
    return int(row["seq"]) if row else 0


async def move_place(tx: Tx, spool: str, epoch: str, after_seq: int, seq: int) -> bool:
    """Move the place from one record to another; False if it is not there any more."""
    here = PLACE.c.spool == spool, PLACE.c.epoch == epoch
    if await tx.find(tx.select(PLACE).where(*here)) is None:
        await tx.insert(PLACE, spool=spool, epoch=epoch, seq=seq)
        return True
    guarded = tx.update(PLACE).where(*here, PLACE.c.seq == after_seq)
    return await tx.change(guarded.values(seq=seq)) == 1


async def insert_samples(tx: Tx, samples: Sequence[Sample]) -> None:
    """Write samples."""
    for start in range(0, len(samples), _PAGE):
        page = samples[start : start + _PAGE]
        await tx.insert_many(SAMPLE, [_values(sample) for sample in page])


async def list_samples(tx: Tx, alias: str, since_us: int, limit: int) -> Sequence[Sample]:
    """Return the newest samples of an endpoint since a time, in the order of their ids."""
    found = tx.select(SAMPLE).where(_S.alias == alias, _S.at_us >= since_us)
    rows = await tx.all(found.order_by(_S.id.desc()).limit(limit))
    return [_sample(row) for row in reversed(rows)]


async def count_samples(tx: Tx, alias: str | None) -> Sequence[SampleCount]:
    """Return how many samples there are by endpoint and tenant."""
    statement = tx.select(
        SAMPLE,
        _S.alias,
        _S.tenant_id,
        sa.func.count().label("samples"),
        sa.func.min(_S.at_us).label("first_us"),
        sa.func.max(_S.at_us).label("last_us"),
    ).group_by(_S.alias, _S.tenant_id)
    if alias is not None:
        statement = statement.where(_S.alias == alias)
    rows = await tx.all(statement.order_by(_S.alias, _S.tenant_id))
    return [SampleCount(**dict(row)) for row in rows]


async def drop_due(tx: Tx) -> int:
    """Drop the samples that were kept long enough; return how many."""
    return await tx.change(tx.delete(SAMPLE).where(_S.due_us <= tx.now_us))


async def drop_of_tenant(tx: Tx, tenant_id: str) -> int:
    """Drop the samples of a tenant; return how many."""
    return await tx.change(tx.delete(SAMPLE).where(_S.tenant_id == tenant_id))


def _values(sample: Sample) -> dict[str, object]:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


def _sample(row: Row) -> Sample:
    return Sample(**{name: row[name] for name in Sample.__dataclass_fields__})
