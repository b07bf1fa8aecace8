"""The tables of budgets, and all SQL on them."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from pilotage.finops.budgets.types import Budget, BudgetPer, Mark
from pilotage.kit.db import METADATA, Row, Tx

BUDGET = sa.Table(
    "budget",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.BigInteger, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("amount_nano", sa.BigInteger, nullable=False),
    sa.Column("per", sa.Text, nullable=False),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("feature", sa.Text, nullable=False),
    sa.Column("thresholds", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
BUDGET_MARK = sa.Table(
    "budget_mark",
    METADATA,
    sa.Column("budget_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("percent", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("spent_nano", sa.BigInteger, nullable=False),
)


async def insert_budget(tx: Tx, budget: Budget) -> None:
    """Add a budget."""
    values = {name: getattr(budget, name) for name in Budget.__dataclass_fields__}
    await tx.insert(BUDGET, **values | {"thresholds": _text(budget.thresholds)})


async def find_budget(tx: Tx, name_or_id: str) -> Budget | None:
    """Return a budget by name or id, deleted ones too."""
    named = (BUDGET.c.name == name_or_id) | (BUDGET.c.id == name_or_id)
    row = await tx.find(tx.select(BUDGET).where(named))
    return _budget(row) if row else None


async def list_budgets(
    tx: Tx, after: str = "", limit: int = 1_000_000, project_id: str | None = None
) -> Sequence[Budget]:
    """Return living budgets by name."""
    living = tx.select(BUDGET).where(BUDGET.c.deleted_at_us.is_(None), BUDGET.c.name > after)
    if project_id is not None:
        living = living.where(BUDGET.c.project_id == project_id)
    rows = await tx.all(living.order_by(BUDGET.c.name, BUDGET.c.id).limit(limit))
    return [_budget(row) for row in rows]


async def change_budget(tx: Tx, budget: Budget, **values: object) -> bool:
    """Change what may change of a budget; False if it has changed meanwhile."""
    if "thresholds" in values:
        values["thresholds"] = _text(values["thresholds"])
    guarded = tx.update(BUDGET).where(BUDGET.c.id == budget.id, BUDGET.c.rev == budget.rev)
    return await tx.change(guarded.values(rev=budget.rev + 1, **values)) == 1


async def insert_mark(tx: Tx, mark: Mark) -> None:
    """Note that a threshold was crossed."""
    await tx.insert(
        BUDGET_MARK, **{name: getattr(mark, name) for name in Mark.__dataclass_fields__}
    )


async def list_marks(tx: Tx, budget: Budget, period: str) -> Sequence[Mark]:
    """Return what was crossed in a period, the lowest first."""
    of_period = tx.select(BUDGET_MARK).where(
        BUDGET_MARK.c.budget_id == budget.id, BUDGET_MARK.c.period == period
    )
    return [Mark(**row) for row in await tx.all(of_period.order_by(BUDGET_MARK.c.percent))]


def _budget(row: Row) -> Budget:
    return Budget(
        **dict(row)
        | {
            "per": BudgetPer(row["per"]),
            "thresholds": msgspec.json.decode(row["thresholds"], type=tuple[int, ...]),
        }
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
