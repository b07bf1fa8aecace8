"""What a budget is: an amount that may be spent in a day or month, and how much of it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

THRESHOLDS = (50, 90, 100)  # percent


class BudgetPer(StrEnum):
    """The time that a budget's amount is for, in UTC."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """What is said of a budget: decimal USD, whose costs count ("" all), marks in percent.

    A budget holds nothing back: it compares. What blocks calls is a limit.
    """

    amount: str
    per: BudgetPer = BudgetPer.MONTH
    tenant: str = ""
    alias: str = ""
    model: str = ""
    feature: str = ""
    thresholds: tuple[int, ...] = THRESHOLDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent on calls and everything else that costs, in each of its periods."""

    id: str
    rev: int
    project_id: str
    name: str
    amount_nano: int
    per: BudgetPer
    tenant_id: str
    alias: str
    model: str
    feature: str
    thresholds: tuple[int, ...]
    created_at_us: int
    deleted_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """That a budget's threshold was crossed: in which period, when and at which amount."""

    budget_id: str
    project_id: str
    period: str
    percent: int
    at_us: int
    spent_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """A budget against what was spent in its running period.

    ``used`` is a ratio, 1 when all is spent; ``expected_nano`` what the period will have cost with
    its 90 % interval, None while there are too few days to say so; ``marks`` what was crossed.
    """

    budget: Budget
    period: str
    spent_nano: int
    used: float
    expected_nano: int | None
    low_nano: int | None
    high_nano: int | None
    marks: Sequence[Mark]

    @property
    def name(self) -> str:
        """The budget's name, by which lists continue."""
        return self.budget.name
