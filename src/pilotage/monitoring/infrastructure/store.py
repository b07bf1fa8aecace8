"""The table of gauges, and all SQL on it."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.infrastructure.types import Gauge, GaugeKey, Spread
from pilotage.monitoring.rollups.types import Level

GAUGE = sa.Table(
    "gauge",
    METADATA,
    sa.Column("level", sa.Text, primary_key=True),
    sa.Column("at_us", sa.BigInteger, primary_key=True),
    sa.Column("project_id", sa.Text, primary_key=True),  # "" for the machine
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("readings", sa.BigInteger, nullable=False),
    sa.Column("total", sa.Double, nullable=False),
    sa.Column("lowest", sa.Double, nullable=False),
    sa.Column("highest", sa.Double, nullable=False),
)
_C = GAUGE.c
_GROWING = 7_310_586  # the lock of whoever adds to a span: it is read, grown and written back


async def add_spreads(tx: Tx, level: Level, at_us: int, spreads: Mapping[GaugeKey, Spread]) -> None:
    """Add what gauges were in a span to what is known of it."""
    await tx.lock(_GROWING)
    of_span = (_C.level == level, _C.at_us == at_us)
    known = {_key(row): _spread(row) for row in await tx.all(tx.select(GAUGE).where(*of_span))}
    await tx.change(tx.delete(GAUGE).where(*of_span))
    grown = known | {
        key: known[key].plus(spread) if key in known else spread for key, spread in spreads.items()
    }
    rows = [_values(level, at_us, key, spread) for key, spread in grown.items()]
    await tx.insert_many(GAUGE, rows)


async def drop_old(tx: Tx, level: Level, before_us: int) -> int:
    """Forget the spans of a level that begin before a time; return how many rows."""
    return await tx.change(tx.delete(GAUGE).where(_C.level == level, _C.at_us < before_us))


async def list_spreads(
    tx: Tx, level: Level, since_us: int, until_us: int
) -> Sequence[tuple[int, GaugeKey, Spread]]:
    """Return what gauges were in the spans that begin from one time to before another, in order."""
    statement = tx.select(GAUGE).where(_C.level == level, _C.at_us >= since_us, _C.at_us < until_us)
    rows = await tx.all(statement.order_by(_C.at_us))
    return [(row["at_us"], _key(row), _spread(row)) for row in rows]


def _key(row: Row) -> GaugeKey:
    return GaugeKey(row["project_id"], row["alias"], row["version_id"], Gauge(row["name"]))


def _spread(row: Row) -> Spread:
    return Spread(
        readings=row["readings"], total=row["total"], lowest=row["lowest"], highest=row["highest"]
    )


def _values(level: Level, at_us: int, key: GaugeKey, spread: Spread) -> dict[str, object]:
    return {
        "level": level.value,
        "at_us": at_us,
        "project_id": key.project_id,
        "alias": key.alias,
        "version_id": key.version_id,
        "name": key.gauge.value,
        "readings": spread.readings,
        "total": spread.total,
        "lowest": spread.lowest,
        "highest": spread.highest,
    }
