"""Control-plane routes of what is worked out from costs."""

from datetime import date, timedelta

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.finops.costs.service import END_OF_DAYS, START_OF_DAYS
from pilotage.finops.http import CostedView
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.rules import get_day
from pilotage.kit.api import ApiCall, Route, View
from pilotage.kit.db import Tx

READ = "finops.cost.read"
MOST_DAYS = 366


class OutlookView(View):
    """What the month will have cost; nothing where too few days were seen to say so."""

    month: str
    spent_usd: str
    spent_nano: int
    expected_usd: str | None
    low_usd: str | None
    high_usd: str | None
    confidence: float
    days: int


class AnomalyView(View):
    """A day that stood out: its cost in nano-USD or its calls, against what is usual."""

    measure: str
    day: str
    amount: int
    usual: int
    deviations: float


class AnomaliesView(View):
    """The days that stood out, the newest first."""

    items: list[AnomalyView]


class ReleaseCostView(View):
    """What a deployment cost, in nano-USD, and what taking it back leaves paid for nothing."""

    release: str
    alias: str
    calls: int
    calls_nano: int
    failed_nano: int
    shadow_nano: int
    compute_nano: int
    idle_nano: int
    total_nano: int
    total_usd: str
    baseline_calls: int
    baseline_nano: int | None
    excess_nano: int | None
    rollback_nano: int
    rollback_usd: str


class SavingView(View):
    """What was paid with a way of saving, and what would have been without it."""

    way: str
    subject: str
    reference: str
    with_usd: str
    without_usd: str
    saved_usd: str
    saved_nano: int
    unpriced: int


class SavingsView(View):
    """What was saved, way by way."""

    items: list[SavingView]


class ModelCostView(CostedView):
    """What a call of a model cost on average, in nano-USD."""

    model: str
    calls: int
    failed: int
    nano_per_call: int


class ModelCostsView(View):
    """What calls of each model cost, the cheapest call first."""

    items: list[ModelCostView]


class CheckView(View):
    """Whether the lines of costs add up to the ledger."""

    ledger_nano: int
    lines_nano: int
    entries_nano: int
    is_equal: bool


def insight_routes(insights: CostInsights) -> list[Route]:
    """List the routes of what costs say."""
    return [*_look_routes(insights), *_compare_routes(insights)]


def check_day(text: str, param: str, default: str) -> str:
    """Return a day as it is written, or the default for ""; raise ``invalid_request``."""
    if not text:
        return default
    try:
        return (
            date.fromisoformat(text[:10]).isoformat() if text[10:] == "" else _refuse(text, param)
        )
    except ValueError:
        return _refuse(text, param)


def _refuse(text: str, param: str) -> str:
    raise PilotageError(
        "invalid_request",
        f"{param}: {text[:40]!r} is not a day.",
        hint="Write it as 2026-01-31; days are those of UTC.",
        param=param,
    )


def _look_routes(insights: CostInsights) -> list[Route]:
    async def get_outlook(call: ApiCall) -> OutlookView:
        """Say what this month will have cost at its end, with a 90 % interval."""
        async with call.read() as tx:
            found = await insights.get_outlook(tx)
        amounts = {
            f"{name}_usd": None if nano is None else format_usd(nano)
            for name, nano in (
                ("spent", found.spent_nano),
                ("expected", found.expected_nano),
                ("low", found.low_nano),
                ("high", found.high_nano),
            )
        }
        return OutlookView.of(found, **amounts)

    async def list_anomalies(call: ApiCall, days: int = 30) -> AnomaliesView:
        """List the days, of the last so many, on which cost or calls stood out."""
        async with call.read() as tx:
            found = await insights.list_anomalies(tx, max(1, min(days, MOST_DAYS)))
        return AnomaliesView(items=[AnomalyView.of(item) for item in found])

    return [
        Route(method="GET", path="/costs:outlook", permission=READ, handler=get_outlook),
        Route(method="GET", path="/costs:anomalies", permission=READ, handler=list_anomalies),
    ]


def _compare_routes(insights: CostInsights) -> list[Route]:
    async def get_release_cost(
        call: ApiCall, release: str = "", since: str = "", until: str = ""
    ) -> ReleaseCostView:
        """Say what a deployment (by id) cost, and what taking it back leaves paid for nothing."""
        async with call.read() as tx:
            found = await insights.get_release_cost(
                tx,
                release,
                check_day(since, "since", START_OF_DAYS),
                check_day(until, "until", END_OF_DAYS),
            )
        return ReleaseCostView.of(
            found,
            total_usd=format_usd(found.total_nano),
            rollback_usd=format_usd(found.rollback_nano),
        )

    async def list_savings(
        call: ApiCall, since: str = "", until: str = "", reference: str = "", provider: str = ""
    ) -> SavingsView:
        """Say what routing, providers' caches and stopped replicas saved (default: 30 days).

        ``reference`` is the model that would have answered everything: MODEL, MODEL@VERSION, or a
        ``provider``'s. Without it, it is the dearest that answered each alias.
        """
        async with call.read() as tx:
            first, last = _last_days(tx, since, until)
            found = await insights.list_savings(tx, first, last, reference, provider)
        return SavingsView(
            items=[
                SavingView.of(
                    item,
                    with_usd=format_usd(item.with_nano),
                    without_usd=format_usd(item.without_nano),
                    saved_usd=format_usd(item.saved_nano),
                )
                for item in found
            ]
        )

    async def list_model_costs(
        call: ApiCall, task: str = "", since: str = "", until: str = ""
    ) -> ModelCostsView:
        """List what a call of each model cost (default: in 30 days), the cheapest first.

        ``task`` is a feature or an alias. Failed calls are paid for by those that were answered.
        """
        async with call.read() as tx:
            found = await insights.list_model_costs(tx, *_last_days(tx, since, until), task)
        return ModelCostsView(items=[ModelCostView.of(item) for item in found])

    async def check_costs(call: ApiCall, since: str = "", until: str = "") -> CheckView:
        """Add the ledger up anew, and compare."""
        async with call.read() as tx:
            await tx.see_one_moment()
            found = await insights.check(
                tx, check_day(since, "since", START_OF_DAYS), check_day(until, "until", END_OF_DAYS)
            )
        return CheckView.of(found, is_equal=found.ledger_nano == found.lines_nano)

    return [
        Route(method="GET", path="/costs:release", permission=READ, handler=get_release_cost),
        Route(method="GET", path="/costs:savings", permission=READ, handler=list_savings),
        Route(method="GET", path="/costs:models", permission=READ, handler=list_model_costs),
        Route(method="GET", path="/costs:check", permission=READ, handler=check_costs),
    ]


def _last_days(tx: Tx, since: str, until: str, days: int = 30) -> tuple[str, str]:
    """Return the days asked for; what is left out is so many days back, and today included."""
    tomorrow = date.fromisoformat(get_day(tx.now_us)) + timedelta(days=1)
    first = (tomorrow - timedelta(days=days)).isoformat()
    return check_day(since, "since", first), check_day(until, "until", tomorrow.isoformat())
