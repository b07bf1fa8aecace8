"""The table of the times at which replicas ran, and all SQL on it."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.finops.costs.types import ReplicaTime
from pilotage.kit.db import METADATA, Tx

REPLICA_TIME = sa.Table(
    "replica_time",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in ("project_id", "replica_id", "release", "alias", "version_id", "model")
    ),
    sa.Column("is_spot", sa.Boolean, nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("pid", "start_us", "seen_us")),
    sa.Column("booked_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("end_us", sa.BigInteger),
)


async def list_running(tx: Tx) -> Sequence[ReplicaTime]:
    """Return the times of replicas that have not ended."""
    rows = await tx.all(tx.select(REPLICA_TIME).where(REPLICA_TIME.c.end_us.is_(None)))
    return [ReplicaTime(**row) for row in rows]


async def list_unbooked(tx: Tx) -> Sequence[ReplicaTime]:
    """Return the times of replicas whose cost is not booked up to where they were seen."""
    unbooked = tx.select(REPLICA_TIME).where(REPLICA_TIME.c.booked_us < REPLICA_TIME.c.seen_us)
    return [ReplicaTime(**row) for row in await tx.all(unbooked.order_by(REPLICA_TIME.c.id))]


async def insert_replica(tx: Tx, replica: ReplicaTime) -> None:
    """Add the time of a replica that began."""
    await tx.insert(
        REPLICA_TIME,
        **{name: getattr(replica, name) for name in ReplicaTime.__dataclass_fields__},
    )


async def move_seen(tx: Tx, replica: ReplicaTime, **values: object) -> bool:
    """Say how far a replica was seen; False if somebody else has said it meanwhile."""
    guarded = tx.update(REPLICA_TIME).where(
        REPLICA_TIME.c.id == replica.id, REPLICA_TIME.c.seen_us == replica.seen_us
    )
    return await tx.change(guarded.values(**values)) == 1


async def move_booked(tx: Tx, replica: ReplicaTime, booked_us: int) -> bool:
    """Say how far a replica's cost is booked; False if somebody else has said it meanwhile."""
    guarded = tx.update(REPLICA_TIME).where(
        REPLICA_TIME.c.id == replica.id, REPLICA_TIME.c.booked_us == replica.booked_us
    )
    return await tx.change(guarded.values(booked_us=booked_us)) == 1


async def list_times(
    tx: Tx, start_us: int, end_us: int, release: str = ""
) -> Sequence[ReplicaTime]:
    """Return the times of replicas that reach into a span."""
    statement = tx.select(REPLICA_TIME).where(
        REPLICA_TIME.c.start_us < end_us, REPLICA_TIME.c.seen_us > start_us
    )
    if release:
        statement = statement.where(REPLICA_TIME.c.release == release)
    return [ReplicaTime(**row) for row in await tx.all(statement.order_by(REPLICA_TIME.c.id))]
