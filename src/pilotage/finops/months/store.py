"""The tables of closed months, and all SQL on them.

A month is closed with all months before it, so the last one says it of all. Whoever writes costs
asks for it in the same transaction; on Postgres a lock keeps the two apart until that ends.
"""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from pilotage.core.usage import Rates
from pilotage.finops.months.types import ClosedMonth
from pilotage.kit.db import METADATA, Tx

CLOSED_MONTH = sa.Table(
    "closed_month",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("month", sa.Text, primary_key=True),
    sa.Column("closed_at_us", sa.BigInteger, nullable=False),
    sa.Column("calls_nano", sa.BigInteger, nullable=False),
    sa.Column("entries_nano", sa.BigInteger, nullable=False),
)
CLOSED_RATES = sa.Table(
    "closed_rates",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("month", sa.Text, primary_key=True),
    sa.Column("price_id", sa.Text, primary_key=True),
    sa.Column("rates", sa.Text, nullable=False),
)
_ONE_SIDE = 7_310_584  # the Postgres advisory lock: many write costs, or one closes a month


async def list_last(tx: Tx) -> dict[str, str]:
    """Return the last closed month of each project that has one; none is closed meanwhile."""
    await tx.lock(_ONE_SIDE, is_shared=True)
    return await _list_last(tx)


async def hold_costs(tx: Tx) -> dict[str, str]:
    """Return the same to whoever closes a month; nobody writes costs before that is done."""
    await tx.lock(_ONE_SIDE)
    return await _list_last(tx)


async def insert_month(tx: Tx, month: ClosedMonth, rates: Mapping[str, Rates]) -> None:
    """Add a closed month, and the rates that its calls were priced at."""
    values = {name: getattr(month, name) for name in ClosedMonth.__dataclass_fields__}
    await tx.insert(CLOSED_MONTH, **values)
    known: dict[str, object] = {"project_id": month.project_id, "month": month.month}
    rows = [
        known | {"price_id": price_id, "rates": msgspec.json.encode(each).decode()}
        for price_id, each in rates.items()
    ]
    await tx.insert_many(CLOSED_RATES, rows)


async def find_closing(tx: Tx, month: str) -> ClosedMonth | None:
    """Return the closing that closed a month: its own, or the first of a later one."""
    later = tx.select(CLOSED_MONTH).where(CLOSED_MONTH.c.month >= month)
    row = await tx.find(later.order_by(CLOSED_MONTH.c.month))
    return ClosedMonth(**row) if row else None


async def list_months(tx: Tx, after: str, limit: int) -> Sequence[ClosedMonth]:
    """Return closed months in their order."""
    behind = tx.select(CLOSED_MONTH).where(CLOSED_MONTH.c.month > after)
    rows = await tx.all(behind.order_by(CLOSED_MONTH.c.month).limit(limit))
    return [ClosedMonth(**row) for row in rows]


async def list_rates(tx: Tx, month: str) -> dict[str, Rates]:
    """Return the rates that a closed month's calls were priced at, by price id."""
    rows = await tx.all(tx.select(CLOSED_RATES).where(CLOSED_RATES.c.month == month))
    return {row["price_id"]: msgspec.json.decode(row["rates"], type=Rates) for row in rows}


async def _list_last(tx: Tx) -> dict[str, str]:
    columns = CLOSED_MONTH.c
    last = tx.select(CLOSED_MONTH, columns.project_id, sa.func.max(columns.month).label("last"))
    return {row["project_id"]: row["last"] for row in await tx.all(last.group_by("project_id"))}
