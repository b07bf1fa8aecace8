"""Control-plane routes of budgets."""

from datetime import datetime

from pilotage.core.money import format_usd
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import (
    THRESHOLDS,
    BudgetPer,
    BudgetSpec,
    BudgetStatus,
    Mark,
)
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page

ONE = "/budgets/{budget_name}"


class BudgetChange(Body):
    """What is said of a budget; its amount and thresholds may change, the rest may not.

    ``amount`` is USD as decimal text, ``per`` day or month (UTC); ``tenant``, ``alias``, ``model``
    and ``feature`` say whose costs count: nothing for all of them together.
    """

    amount: str
    per: BudgetPer = BudgetPer.MONTH
    tenant: str = ""
    alias: str = ""
    model: str = ""
    feature: str = ""
    thresholds: tuple[int, ...] = THRESHOLDS

    def to_spec(self) -> BudgetSpec:
        """Return it as the service takes it."""
        return BudgetSpec(**{name: getattr(self, name) for name in BudgetSpec.__dataclass_fields__})


class BudgetBody(BudgetChange):
    """A budget to create."""

    name: str


class MarkView(View):
    """A threshold that was crossed in the running period."""

    percent: int
    at: datetime
    spent_usd: str


class BudgetView(RevisedView):
    """A budget against what was spent in the period that runs now.

    ``used`` is a ratio; ``expected_usd`` with its 90 % interval what the period will have cost,
    nothing while too few days were seen.
    """

    project_id: str
    name: str
    amount: str
    per: BudgetPer
    tenant_id: str
    alias: str
    model: str
    feature: str
    thresholds: list[int]
    created_at: datetime
    period: str
    spent_usd: str
    spent_nano: int
    used: float
    expected_usd: str | None
    low_usd: str | None
    high_usd: str | None
    marks: list[MarkView]


def budget_routes(service: BudgetService) -> list[Route]:
    """List the routes of budgets."""

    async def create_budget(call: ApiCall, body: BudgetBody) -> BudgetView:
        """Create a budget: it compares, and holds nothing back."""
        async with call.write() as tx:
            made = await service.create_budget(tx, body.name, body.to_spec())
            return _show(await service.get_status(tx, made))

    async def list_budgets(call: ApiCall, limit: int = 50, after: str = "") -> Page[BudgetView]:
        """List budgets by name, each against what was spent."""
        async with call.read() as tx:
            found = await service.list_statuses(tx, None, after, limit + 1)
            return make_page(found, limit, _show, "name")

    async def get_budget(call: ApiCall, budget_name: str) -> BudgetView:
        """Show a budget against what was spent."""
        async with call.read() as tx:
            return _show(await service.get_status(tx, await service.get_budget(tx, budget_name)))

    async def change_budget(call: ApiCall, budget_name: str, body: BudgetChange) -> BudgetView:
        """Change a budget's amount or its thresholds."""
        async with call.write() as tx:
            made = await service.change_budget(tx, budget_name, body.to_spec(), call.expected_rev)
            return _show(await service.get_status(tx, made))

    async def delete_budget(call: ApiCall, budget_name: str) -> None:
        """Delete a budget; what was spent stays in the ledger."""
        async with call.write() as tx:
            await service.delete_budget(tx, budget_name)

    def route(method: str, path: str, verb: str, handler: object, status: int = 200) -> Route:
        permission = f"finops.budget.{verb}"
        return Route(
            method=method,  # type: ignore[arg-type]
            path=path,
            permission=permission,
            handler=handler,  # type: ignore[arg-type]
            status=status,
        )

    return [
        route("POST", "/budgets", "create", create_budget, 201),
        route("GET", "/budgets", "read", list_budgets),
        route("GET", ONE, "read", get_budget),
        route("PUT", ONE, "change", change_budget),
        route("DELETE", ONE, "delete", delete_budget, 204),
    ]


def _show(status: BudgetStatus) -> BudgetView:
    return BudgetView.of(
        status.budget,
        amount=format_usd(status.budget.amount_nano),
        thresholds=list(status.budget.thresholds),
        period=status.period,
        spent_usd=format_usd(status.spent_nano),
        spent_nano=status.spent_nano,
        used=status.used,
        expected_usd=_usd(status.expected_nano),
        low_usd=_usd(status.low_nano),
        high_usd=_usd(status.high_nano),
        marks=[_show_mark(mark) for mark in status.marks],
    )


def _show_mark(mark: Mark) -> MarkView:
    return MarkView.of(mark, spent_usd=format_usd(mark.spent_nano))


def _usd(nano: int | None) -> str | None:
    return None if nano is None else format_usd(nano)
