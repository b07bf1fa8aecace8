"""The index of the audit log, and all SQL on it. The log itself is files: this can be made anew."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.audit.types import Block, Indexed
from pilotage.kit.db import METADATA, Tx
from pilotage.kit.outbox import REVISION

AUDIT_INDEX = sa.Table(
    "audit_index",
    METADATA,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("project_id", sa.Text),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("object_id", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("revision_seq", sa.BigInteger, unique=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Index("ix_audit_index_object_id_position", "object_id", "position"),
    sa.Index("ix_audit_index_actor_position", "actor", "position"),
    sa.Index("ix_audit_index_event_position", "event", "position"),
)
AUDIT_BLOCK = sa.Table(
    "audit_block",
    METADATA,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("first_seq", sa.BigInteger, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("first_us", sa.BigInteger, nullable=False),
    sa.Column("last_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("root", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.UniqueConstraint("gateway", "epoch", "first_seq"),
)
AUDIT_FORMER = sa.Table(
    "audit_former",
    METADATA,
    sa.Column("entries", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("head_hash", sa.Text, nullable=False),
)


async def insert_index(tx: Tx, entries: Sequence[Indexed], blocks: Sequence[Block]) -> None:
    """Add what was appended to the log."""
    await tx.insert_many(AUDIT_INDEX, [_values(entry) for entry in entries])
    await tx.insert_many(AUDIT_BLOCK, [_values(block) for block in blocks])


async def count_indexed(tx: Tx) -> int:
    """Return the position of the first entry that is not indexed."""
    row = await tx.find(tx.select(AUDIT_INDEX, sa.func.max(AUDIT_INDEX.c.position).label("last")))
    return 0 if row is None or row["last"] is None else int(row["last"]) + 1


async def find_last_revision(tx: Tx) -> int:
    """Return the newest revision that is in the log, 0 if none is."""
    last = sa.func.max(AUDIT_INDEX.c.revision_seq).label("last")
    row = await tx.find(tx.select(AUDIT_INDEX, last))
    return int(row["last"] or 0) if row else 0


async def find_revision(tx: Tx, revision_seq: int) -> Indexed | None:
    """Return the entry of a revision."""
    statement = tx.select(AUDIT_INDEX).where(AUDIT_INDEX.c.revision_seq == revision_seq)
    row = await tx.find(statement)
    return Indexed(**row) if row else None


async def find_entry(tx: Tx, position: int) -> Indexed | None:
    """Return an entry by its place in the log."""
    row = await tx.find(tx.select(AUDIT_INDEX).where(AUDIT_INDEX.c.position == position))
    return Indexed(**row) if row else None


async def search(  # noqa: PLR0913 - a search has that many parts
    tx: Tx,
    *,
    after: int,
    limit: int,
    event_prefix: str = "",
    object_id: str | None = None,
    actor: str | None = None,
    project_id: str | None = None,
    text: str = "",
    since_us: int | None = None,
    until_us: int | None = None,
    is_newest: bool = False,
) -> Sequence[Indexed]:
    """Return the first entries from a position on, or the newest of them, in order."""
    columns = AUDIT_INDEX.c
    statement = tx.select(AUDIT_INDEX).where(columns.position >= after)
    if event_prefix:
        statement = statement.where(columns.event.startswith(event_prefix, autoescape=True))
    if object_id is not None:
        statement = statement.where(columns.object_id == object_id)
    if actor is not None:
        statement = statement.where(columns.actor == actor)
    if project_id is not None:
        statement = statement.where(columns.project_id == project_id)
    if text:
        statement = statement.where(columns.reason.icontains(text, autoescape=True))
    if since_us is not None:
        statement = statement.where(columns.at_us >= since_us)
    if until_us is not None:
        statement = statement.where(columns.at_us < until_us)
    order = columns.position.desc() if is_newest else columns.position
    rows = await tx.all(statement.order_by(order).limit(limit))
    return [Indexed(**row) for row in (reversed(rows) if is_newest else rows)]


async def find_block_place(tx: Tx, gateway: str, epoch: str) -> int:
    """Return the last record of a spool that is in a sealed block, 0 if none is."""
    last = sa.func.max(AUDIT_BLOCK.c.last_seq).label("last")
    statement = tx.select(AUDIT_BLOCK, last).where(
        AUDIT_BLOCK.c.gateway == gateway, AUDIT_BLOCK.c.epoch == epoch
    )
    row = await tx.find(statement)
    return int(row["last"] or 0) if row else 0


async def list_blocks(
    tx: Tx, ended_from_us: int, after: int = -1, limit: int = 100
) -> Sequence[Block]:
    """Return blocks with calls that ended at or after a time, oldest first; none pruned."""
    first = tx.select(AUDIT_INDEX, sa.func.min(AUDIT_INDEX.c.position)).scalar_subquery()
    statement = tx.select(AUDIT_BLOCK).where(
        AUDIT_BLOCK.c.last_us >= ended_from_us,
        AUDIT_BLOCK.c.position > after,
        AUDIT_BLOCK.c.position >= first,
    )
    rows = await tx.all(statement.order_by(AUDIT_BLOCK.c.position).limit(limit))
    return [Block(**row) for row in rows]


async def find_first_since(tx: Tx, at_us: int) -> int:
    """Return the position of the first entry at or after a time; behind the last if none is."""
    first = sa.func.min(AUDIT_INDEX.c.position).label("first")
    row = await tx.find(tx.select(AUDIT_INDEX, first).where(AUDIT_INDEX.c.at_us >= at_us))
    return await count_indexed(tx) if row is None or row["first"] is None else int(row["first"])


async def drop_index(tx: Tx, upto: int) -> None:
    """Forget the entries below a position.

    The newest block of a spool stays: it says which of its calls have been sealed.
    """
    columns = AUDIT_BLOCK.c
    newest = tx.select(AUDIT_BLOCK, sa.func.max(columns.position)).group_by(
        columns.gateway, columns.epoch
    )
    old = tx.delete(AUDIT_BLOCK).where(columns.position < upto)
    await tx.change(old.where(columns.position.not_in(newest.scalar_subquery())))
    await tx.change(tx.delete(AUDIT_INDEX).where(AUDIT_INDEX.c.position < upto))


async def find_pruning(tx: Tx, log_name: str) -> str | None:
    """Return what the newest pruning of a log says, as JSON."""
    statement = tx.select(REVISION).where(REVISION.c.object_id == log_name)
    row = await tx.find(statement.order_by(REVISION.c.rev.desc()).limit(1))
    return str(row["after"]) if row else None


async def count_prunings(tx: Tx, log_name: str) -> int:
    """Return how often a log was pruned."""
    last = sa.func.max(REVISION.c.rev).label("last")
    row = await tx.find(tx.select(REVISION, last).where(REVISION.c.object_id == log_name))
    return int(row["last"] or 0) if row else 0


async def find_former(tx: Tx) -> tuple[int, str] | None:
    """Return the length and the last hash of the chain that the log has replaced."""
    row = await tx.find(tx.select(AUDIT_FORMER))
    return (int(row["entries"]), str(row["head_hash"])) if row else None


def _values(item: Indexed | Block) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}
