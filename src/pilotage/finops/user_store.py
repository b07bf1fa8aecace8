"""The table of end users' names, sealed, and what of the ledger still has them in plain words."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from pilotage.finops.store import LEDGER_ENTRY
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.kit.outbox import CURSOR

PLAIN_USERS = "finops.plain_users"  # its cursor: the newest entry whose user may be a plain name
USER_LABEL = sa.Table(
    "user_label",
    METADATA,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),  # no foreign keys: as in the ledger
    sa.Column("name", sa.LargeBinary, nullable=False),
    sa.Column("key_number", sa.Integer, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)


class SealedName(NamedTuple):
    """A user's name as it is kept: for whom, under which token, with which of the tenant's keys."""

    tenant_id: str
    token: str
    project_id: str
    name: bytes
    key_number: int


class PlainUser(NamedTuple):
    """A ledger entry that names its user in plain words."""

    seq: int
    tenant_id: str
    project_id: str
    user: str


async def list_known(tx: Tx, tenant_id: str, tokens: Collection[str]) -> set[str]:
    """Return those of some tokens that have a name."""
    columns = USER_LABEL.c
    found = tx.select(USER_LABEL, columns.token).where(
        columns.tenant_id == tenant_id, columns.token.in_(tokens)
    )
    return {row["token"] for row in await tx.all(found)}


async def insert_names(tx: Tx, names: Sequence[SealedName]) -> None:
    """Add names; those that another transaction adds at the same time stay as they are there."""
    in_order = sorted(names, key=lambda name: (name.tenant_id, name.token))  # so none waits for two
    rows = [name._asdict() | {"created_at_us": tx.now_us} for name in in_order]
    await tx.insert_missing(USER_LABEL, rows)


async def list_names(
    tx: Tx, tenant_id: str | None, tokens: Collection[str], after: str, limit: int
) -> Sequence[SealedName]:
    """Return names by token, all or those of some tokens."""
    columns = USER_LABEL.c
    statement = tx.select(USER_LABEL).where(columns.token > after)
    if tenant_id is not None:
        statement = statement.where(columns.tenant_id == tenant_id)
    if tokens:
        statement = statement.where(columns.token.in_(tokens))
    rows = await tx.all(statement.order_by(columns.token).limit(limit))
    return [_sealed(row) for row in rows]


async def list_stale(tx: Tx, tenant_id: str, key_number: int, limit: int) -> Sequence[SealedName]:
    """Return names that another of the tenant's keys than this one has sealed."""
    columns = USER_LABEL.c
    stale = tx.select(USER_LABEL).where(
        columns.tenant_id == tenant_id, columns.key_number != key_number
    )
    return [_sealed(row) for row in await tx.all(stale.order_by(columns.token).limit(limit))]


async def replace_name(tx: Tx, old: SealedName, new: SealedName) -> bool:
    """Put a name in place of itself; False if it was changed meanwhile."""
    columns = USER_LABEL.c
    guarded = tx.update(USER_LABEL).where(
        columns.tenant_id == old.tenant_id,
        columns.token == old.token,
        columns.key_number == old.key_number,
    )
    return await tx.change(guarded.values(name=new.name, key_number=new.key_number)) == 1


async def delete_names(tx: Tx, tenant_id: str) -> int:
    """Remove every name of a tenant; return how many."""
    return await tx.change(tx.delete(USER_LABEL).where(USER_LABEL.c.tenant_id == tenant_id))


async def count_names(tx: Tx, tenant_id: str) -> int:
    """Return how many users of a tenant have a name."""
    counted = tx.select(USER_LABEL, sa.func.count().label("names"))
    row = await tx.find(counted.where(USER_LABEL.c.tenant_id == tenant_id))
    return int(row["names"]) if row else 0


async def find_plain_end(tx: Tx) -> int | None:
    """Return the newest entry whose user may be a plain name; None if there is none any more."""
    row = await tx.find(tx.select(CURSOR).where(CURSOR.c.consumer == PLAIN_USERS))
    return int(row["seq"]) if row else None


async def list_plain(tx: Tx, end: int, limit: int) -> Sequence[PlainUser]:
    """Return the newest entries up to a place that have a user."""
    columns = LEDGER_ENTRY.c
    wanted = tx.select(LEDGER_ENTRY, *(columns[name] for name in PlainUser._fields)).where(
        columns.seq <= end, columns.user != ""
    )
    rows = await tx.all(wanted.order_by(columns.seq.desc()).limit(limit))
    return [PlainUser(**row) for row in rows]


async def replace_users(tx: Tx, tokens: Mapping[int, str]) -> None:
    """Put tokens in place of the users of entries, by their ``seq``."""
    columns = LEDGER_ENTRY.c
    one = tx.update(LEDGER_ENTRY).where(columns.seq == sa.bindparam("of_seq"))
    rows: list[dict[str, object]] = [
        {"of_seq": seq, "token": token} for seq, token in tokens.items()
    ]
    await tx.change_many(one.values(user=sa.bindparam("token")), rows)


async def move_plain_end(tx: Tx, old: int, new: int | None) -> bool:
    """Say that only older entries may have plain names, None for no more; False if moved."""
    place = CURSOR.c.consumer == PLAIN_USERS, CURSOR.c.seq == old
    if new is None:
        return await tx.change(tx.delete(CURSOR).where(*place)) == 1
    return await tx.change(tx.update(CURSOR).where(*place).values(seq=new)) == 1


def _sealed(row: Row) -> SealedName:
    return SealedName(**{name: row[name] for name in SealedName._fields})
