"""The tables of finops, and all SQL on them."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pilotage.finops.types import (
    Action,
    CounterTotal,
    EntryKind,
    GroupBy,
    LedgerEntry,
    Limit,
    Measure,
    Per,
    Price,
    SpoolPlace,
    StoreLoss,
    UsageRow,
)
from pilotage.kit.db import METADATA, Row, Tx

PRICE = sa.Table(
    "price",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("valid_from_us", sa.BigInteger, nullable=False),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("output", sa.Text, nullable=False),
    sa.Column("cache_read", sa.Text, nullable=False),
    sa.Column("cache_write", sa.Text, nullable=False),
    sa.Column("reasoning", sa.Text, nullable=False),
    sa.Column("is_free", sa.Boolean, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.UniqueConstraint("project_id", "subject", "valid_from_us"),
)
LEDGER_ENTRY = sa.Table(
    "ledger_entry",
    METADATA,
    sa.Column(
        "seq",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("day", sa.Text, nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),  # no foreign keys: calls outlive everything
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_read_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_nano", sa.BigInteger, nullable=False),
    sa.Column("is_estimated", sa.Boolean, nullable=False),
    sa.Column("duration_us", sa.BigInteger, nullable=False),
    sa.Column("ttft_us", sa.BigInteger, nullable=False),
    sa.Column("price_id", sa.Text, nullable=False),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("feature", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("upstream_id", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("flags", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("prompt", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("billed_day", sa.Text),
    sa.UniqueConstraint("call_id", "kind"),
    sa.Index(None, "project_id", "day"),
    sa.Index(None, "tenant_id", "day"),
    sa.Index(
        None,
        "project_id",
        "billed_day",
        sqlite_where=sa.text("billed_day IS NOT NULL"),
        postgresql_where=sa.text("billed_day IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)
SPOOL_CURSOR = sa.Table(
    "spool_cursor",
    METADATA,
    sa.Column("gateway", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
LIMIT = sa.Table(
    "call_limit",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("measure", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("per", sa.Text, nullable=False),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("downgrade_to", sa.Text, nullable=False),
    sa.Column("on_store_loss", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
COUNTER_TOTAL = sa.Table(
    "counter_total",
    METADATA,
    sa.Column("counter", sa.Text, primary_key=True),
    sa.Column("gateway", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("forget_at_us", sa.BigInteger, nullable=False),
)
_GROUP_COLUMNS = {
    GroupBy.TENANT: LEDGER_ENTRY.c.tenant_id,
    GroupBy.PROJECT: LEDGER_ENTRY.c.project_id,
    GroupBy.KEY: LEDGER_ENTRY.c.key_id,
    GroupBy.ALIAS: LEDGER_ENTRY.c.alias,
    GroupBy.MODEL: LEDGER_ENTRY.c.model,
    GroupBy.VERSION: LEDGER_ENTRY.c.version_id,
    GroupBy.DAY: LEDGER_ENTRY.c.day,
    GroupBy.OUTCOME: LEDGER_ENTRY.c.outcome,
    GroupBy.USER: LEDGER_ENTRY.c.user,
    GroupBy.FEATURE: LEDGER_ENTRY.c.feature,
    GroupBy.UPSTREAM: LEDGER_ENTRY.c.upstream_id,
    GroupBy.PROMPT: LEDGER_ENTRY.c.prompt,
}
_PAGE = 1000  # of counters in one statement
_SUMMED = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano",
)

# prices


async def insert_price(tx: Tx, price: Price) -> bool:
    """Add a price; False (and a transaction that can only roll back) if that moment has one."""
    try:
        await tx.insert(PRICE, **_values(price))
    except sa.exc.IntegrityError:
        return False
    return True


async def get_price(tx: Tx, price_id: str) -> Price | None:
    """Return a price by its id."""
    row = await tx.find(tx.select(PRICE).where(PRICE.c.id == price_id))
    return Price(**row) if row else None


async def list_prices_of(tx: Tx, project_id: str, subject: str) -> Sequence[Price]:
    """Return every price a subject ever had or will have in a project."""
    rows = await tx.all(
        tx.select(PRICE).where(PRICE.c.project_id == project_id, PRICE.c.subject == subject)
    )
    return [Price(**row) for row in rows]


async def list_prices(tx: Tx, subject: str | None, after: str, limit: int) -> Sequence[Price]:
    """Return prices by id (which is by age)."""
    statement = tx.select(PRICE).where(PRICE.c.id > after)
    if subject is not None:
        statement = statement.where(PRICE.c.subject == subject)
    return [Price(**row) for row in await tx.all(statement.order_by(PRICE.c.id).limit(limit))]


async def find_next_valid_from(tx: Tx, after_us: int) -> int | None:
    """Return the first time behind another at which a price becomes valid."""
    row = await tx.find(
        tx.select(PRICE, sa.func.min(PRICE.c.valid_from_us).label("next")).where(
            PRICE.c.valid_from_us > after_us
        )
    )
    return int(row["next"]) if row and row["next"] is not None else None


# limits


async def insert_limit(tx: Tx, limit: Limit) -> None:
    """Add a limit."""
    await tx.insert(LIMIT, **_values(limit))


async def find_limit(tx: Tx, name_or_id: str) -> Limit | None:
    """Return a limit by name or id, deleted ones too."""
    named = (LIMIT.c.name == name_or_id) | (LIMIT.c.id == name_or_id)
    row = await tx.find(tx.select(LIMIT).where(named))
    return _limit(row) if row else None


async def list_limits(tx: Tx, after: str, limit: int) -> Sequence[Limit]:
    """Return living limits by name."""
    living = tx.select(LIMIT).where(LIMIT.c.deleted_at_us.is_(None), LIMIT.c.name > after)
    return [_limit(row) for row in await tx.all(living.order_by(LIMIT.c.name).limit(limit))]


async def change_limit(tx: Tx, limit: Limit, **values: object) -> bool:
    """Change what may change of a limit; False if it has changed meanwhile."""
    guarded = tx.update(LIMIT).where(LIMIT.c.id == limit.id, LIMIT.c.rev == limit.rev)
    return await tx.change(guarded.values(rev=limit.rev + 1, **values)) == 1


# counters


async def add_to_counters(tx: Tx, totals: Sequence[CounterTotal]) -> None:
    """Add what one life of a spool used to what is known to be used of its counters.

    Whole pages of rows are put in place of the old ones: a statement for each row takes a hundred
    times as long.
    """
    columns = COUNTER_TOTAL.c
    for start in range(0, len(totals), _PAGE):
        page = totals[start : start + _PAGE]
        theirs = (
            columns.counter.in_([total.counter for total in page]),
            columns.gateway == page[0].gateway,
            columns.epoch == page[0].epoch,
        )
        old = {
            row["counter"]: row["used"]
            for row in await tx.all(tx.select(COUNTER_TOTAL).where(*theirs))
        }
        await tx.change(tx.delete(COUNTER_TOTAL).where(*theirs))
        rows = [_values(total) for total in page]
        for row, total in zip(rows, page, strict=True):
            row["used"] = total.used + old.get(total.counter, 0)
        await tx.insert_many(COUNTER_TOTAL, rows)


async def list_counter_totals(tx: Tx) -> Sequence[CounterTotal]:
    """Return what is known to be used of every counter, by name."""
    columns = COUNTER_TOTAL.c
    rows = await tx.all(
        tx.select(COUNTER_TOTAL).order_by(columns.counter, columns.gateway, columns.epoch)
    )
    return [CounterTotal(**row) for row in rows]


async def list_counter_owners(tx: Tx) -> set[tuple[str, str]]:
    """Return the spools and epochs that used anything of a counter."""
    columns = COUNTER_TOTAL.c
    statement = tx.select(COUNTER_TOTAL, columns.gateway, columns.epoch).distinct()
    return {(row["gateway"], row["epoch"]) for row in await tx.all(statement)}


async def get_counters_of(tx: Tx, gateway: str, epoch: str) -> dict[str, int]:
    """Return what one life of a spool used, by counter."""
    columns = COUNTER_TOTAL.c
    rows = await tx.all(
        tx.select(COUNTER_TOTAL).where(columns.gateway == gateway, columns.epoch == epoch)
    )
    return {row["counter"]: row["used"] for row in rows}


async def drop_counters(tx: Tx, before_us: int) -> int:
    """Forget the counters whose windows are over; return how many rows that were."""
    columns = COUNTER_TOTAL.c
    over = tx.delete(COUNTER_TOTAL).where(columns.forget_at_us > 0)
    return await tx.change(over.where(columns.forget_at_us <= before_us))


# ledger


async def insert_entries(tx: Tx, entries: Sequence[LedgerEntry]) -> None:
    """Append entries; their places are given by the database."""
    rows = [_values(entry) for entry in entries]
    for row in rows:
        del row["seq"]
    await tx.insert_many(LEDGER_ENTRY, rows)


async def list_known_calls(tx: Tx, call_ids: Collection[str]) -> set[str]:
    """Return which of some calls have been charged."""
    rows = await tx.all(
        tx.select(LEDGER_ENTRY, LEDGER_ENTRY.c.call_id).where(
            LEDGER_ENTRY.c.call_id.in_(call_ids), LEDGER_ENTRY.c.kind == EntryKind.CHARGE
        )
    )
    return {row["call_id"] for row in rows}


async def list_charges(tx: Tx, call_ids: Collection[str]) -> Sequence[LedgerEntry]:
    """Return the charges of some calls, of those that were charged."""
    rows = await tx.all(
        tx.select(LEDGER_ENTRY).where(
            LEDGER_ENTRY.c.call_id.in_(call_ids), LEDGER_ENTRY.c.kind == EntryKind.CHARGE
        )
    )
    return [_entry(row) for row in rows]


async def find_entry(tx: Tx, call_id: str, kind: EntryKind) -> LedgerEntry | None:
    """Return a call's charge or reversal."""
    row = await tx.find(
        tx.select(LEDGER_ENTRY).where(
            LEDGER_ENTRY.c.call_id == call_id, LEDGER_ENTRY.c.kind == kind
        )
    )
    return _entry(row) if row else None


async def list_entries(
    tx: Tx, after_seq: int, limit: int, tenant_id: str | None
) -> Sequence[LedgerEntry]:
    """Return entries behind a place, in order."""
    statement = tx.select(LEDGER_ENTRY).where(LEDGER_ENTRY.c.seq > after_seq)
    if tenant_id is not None:
        statement = statement.where(LEDGER_ENTRY.c.tenant_id == tenant_id)
    rows = await tx.all(statement.order_by(LEDGER_ENTRY.c.seq).limit(limit))
    return [_entry(row) for row in rows]


async def list_newest_entries(tx: Tx, limit: int, tenant_id: str | None) -> Sequence[LedgerEntry]:
    """Return the last entries, in order."""
    statement = tx.select(LEDGER_ENTRY)
    if tenant_id is not None:
        statement = statement.where(LEDGER_ENTRY.c.tenant_id == tenant_id)
    rows = await tx.all(statement.order_by(LEDGER_ENTRY.c.seq.desc()).limit(limit))
    return [_entry(row) for row in reversed(rows)]


async def sum_usage(
    tx: Tx,
    by: Sequence[GroupBy],
    *,
    since: tuple[int, str],
    until: tuple[int, str],
    tenant_id: str | None,
    after: Sequence[str],
    limit: int,
) -> Sequence[UsageRow]:
    """Sum entries from ``since`` to before ``until`` (each a time and its day) by groups."""
    charged = LEDGER_ENTRY.c.kind == EntryKind.CHARGE
    statement = tx.select(
        LEDGER_ENTRY,
        *(_GROUP_COLUMNS[group].label(f"by_{group}") for group in by),
        *(sa.func.sum(LEDGER_ENTRY.c[name]).label(name) for name in _SUMMED),
        sa.func.sum(sa.case((charged, 1), else_=0)).label("calls"),
        sa.func.sum(
            sa.case((LEDGER_ENTRY.c.is_estimated, LEDGER_ENTRY.c.cost_nano), else_=0)
        ).label("estimated_nano"),
    ).where(
        LEDGER_ENTRY.c.at_us >= since[0],
        LEDGER_ENTRY.c.day >= since[1],  # the day is what the indexes know
        LEDGER_ENTRY.c.at_us < until[0],
        LEDGER_ENTRY.c.day <= until[1],
    )
    if tenant_id is not None:
        statement = statement.where(LEDGER_ENTRY.c.tenant_id == tenant_id)
    columns = [_GROUP_COLUMNS[group] for group in by]
    if after:
        statement = statement.where(sa.tuple_(*columns) > sa.tuple_(*after))
    rows = await tx.all(statement.group_by(*columns).order_by(*columns).limit(limit))
    return [_usage(row, by) for row in rows]


# spools


async def find_place(tx: Tx, gateway: str, epoch: str) -> SpoolPlace:
    """Return how far a spool has been read; at its beginning if it never was."""
    row = await tx.find(
        tx.select(SPOOL_CURSOR).where(
            SPOOL_CURSOR.c.gateway == gateway, SPOOL_CURSOR.c.epoch == epoch
        )
    )
    return SpoolPlace(gateway=gateway, epoch=epoch, seq=int(row["seq"]) if row else 0)


async def list_places(tx: Tx) -> Sequence[SpoolPlace]:
    """Return how far every spool has been read, those that are no more included."""
    columns = SPOOL_CURSOR.c
    rows = await tx.all(tx.select(SPOOL_CURSOR).order_by(columns.gateway, columns.epoch))
    return [
        SpoolPlace(gateway=row["gateway"], epoch=row["epoch"], seq=int(row["seq"])) for row in rows
    ]


async def advance_place(tx: Tx, place: SpoolPlace, seq: int) -> bool:
    """Move a spool's cursor; False if it is no longer where it was thought to be."""
    guarded = tx.update(SPOOL_CURSOR).where(
        SPOOL_CURSOR.c.gateway == place.gateway,
        SPOOL_CURSOR.c.epoch == place.epoch,
        SPOOL_CURSOR.c.seq == place.seq,
    )
    if await tx.change(guarded.values(seq=seq)) == 1:
        return True
    if place.seq:
        return False
    try:
        await tx.insert(SPOOL_CURSOR, gateway=place.gateway, epoch=place.epoch, seq=seq)
    except sa.exc.IntegrityError:
        return False
    return True


def _entry(row: Row) -> LedgerEntry:
    return LedgerEntry(**dict(row) | {"kind": EntryKind(row["kind"])})


def _limit(row: Row) -> Limit:
    words = {
        "measure": Measure(row["measure"]),
        "per": Per(row["per"]),
        "action": Action(row["action"]),
        "on_store_loss": StoreLoss(row["on_store_loss"]),
    }
    return Limit(**dict(row) | words)


def _usage(row: Row, by: Sequence[GroupBy]) -> UsageRow:
    sums = {name: int(row[name] or 0) for name in (*_SUMMED, "calls", "estimated_nano")}
    return UsageRow(groups={group.value: str(row[f"by_{group}"]) for group in by}, **sums)


def _values(item: Price | LedgerEntry | Limit | CounterTotal) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}
