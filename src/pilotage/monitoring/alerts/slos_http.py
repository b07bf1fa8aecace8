"""Control-plane routes of objectives."""

from datetime import datetime

from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.monitoring.alerts.burn import SPAN_US, WINDOWS, burn_rate
from pilotage.monitoring.alerts.http import read_duration
from pilotage.monitoring.alerts.objectives import count_events
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.types import Indicator, Slo, SloSpec
from pilotage.monitoring.rollups.service import RollupService

ONE = "/slos/{slo}"
READ = "monitoring.slo.read"
SPAN = format_duration(SPAN_US)


class SloChange(Body):
    """What is said of an objective: the percentage of calls that shall be good, such as 99.9.

    ``endpoint`` is nothing for all of the project. A good call did not fail (errors), or took
    (latency) or began (ttft) within ``threshold``, such as 2s. Nothing alerts before ``min_bad``
    calls of at least ``min_total`` were bad.
    """

    objective: str
    indicator: Indicator = Indicator.ERRORS
    endpoint: str = ""
    threshold: str = ""
    team: str = ""
    runbook: str = ""
    min_bad: int = 10
    min_total: int = 100
    enabled: bool = True

    def to_spec(self) -> SloSpec:
        """Return it as the service takes it; raise ``invalid_request``."""
        return SloSpec(
            objective=self.objective,
            indicator=self.indicator,
            alias=self.endpoint,
            threshold_us=read_duration(self.threshold, "threshold"),
            team=self.team,
            runbook=self.runbook,
            min_bad=self.min_bad,
            min_total=self.min_total,
            is_enabled=self.enabled,
        )


class SloBody(SloChange):
    """An objective to create."""

    name: str


class SloView(RevisedView):
    """An objective; it comes with burn-rate rules called ``NAME-burn-1h`` and so on."""

    project_id: str
    name: str
    objective: str
    indicator: Indicator
    endpoint: str
    threshold: str
    team: str
    runbook: str
    min_bad: int
    min_total: int
    enabled: bool
    created_at: datetime


class BurnView(View):
    """How an objective was kept in a window; ``burn_rate`` is None without calls."""

    window: str
    bad: int
    total: int
    burn_rate: float | None


class SloStatusView(View):
    """How an objective is kept: by window, and how much of the budget of 30 days is left.

    ``budget_left`` is a share, negative if overdrawn, and None without calls.
    """

    name: str
    objective: str
    budget_left: float | None
    windows: list[BurnView]


def slo_routes(service: AlertService, rollups: RollupService) -> list[Route]:
    """List the routes of objectives."""

    async def create_slo(call: ApiCall, body: SloBody) -> SloView:
        """Create an objective; its burn-rate rules are looked at from the next second on."""
        async with call.write() as tx:
            return _show(await service.create_slo(tx, body.name, body.to_spec()))

    async def list_slos(call: ApiCall, limit: int = 50, after: str = "") -> Page[SloView]:
        """List objectives by name."""
        async with call.read() as tx:
            return make_page(await service.list_slos(tx, after, limit + 1), limit, _show, "name")

    async def get_slo(call: ApiCall, slo: str) -> SloView:
        """Show an objective."""
        async with call.read() as tx:
            return _show(await service.get_slo(tx, slo))

    async def get_slo_status(call: ApiCall, slo: str) -> SloStatusView:
        """Show how an objective is kept."""
        async with call.read() as tx:
            found = await service.get_slo(tx, slo)
            counted = {
                window: await count_events(rollups, tx, found, parse_duration_us(window), tx.now_us)
                for window in (*sorted(WINDOWS, key=parse_duration_us), SPAN)
            }
        return _show_status(found, counted)

    async def change_slo(call: ApiCall, slo: str, body: SloChange) -> SloView:
        """Change an objective; its past is judged by the new one at once."""
        async with call.write() as tx:
            return _show(await service.change_slo(tx, slo, body.to_spec(), call.expected_rev))

    async def delete_slo(call: ApiCall, slo: str) -> None:
        """Delete an objective with its rules: what fires of them is over."""
        async with call.write() as tx:
            await service.delete_slo(tx, slo)

    return [
        Route(
            method="POST",
            path="/slos",
            permission="monitoring.slo.create",
            handler=create_slo,
            status=201,
        ),
        Route(method="GET", path="/slos", permission=READ, handler=list_slos),
        Route(method="GET", path=ONE, permission=READ, handler=get_slo),
        Route(method="GET", path=f"{ONE}/status", permission=READ, handler=get_slo_status),
        Route(method="PUT", path=ONE, permission="monitoring.slo.change", handler=change_slo),
        Route(
            method="DELETE",
            path=ONE,
            permission="monitoring.slo.delete",
            handler=delete_slo,
            status=204,
        ),
    ]


def _show(slo: Slo) -> SloView:
    return SloView.of(
        slo,
        endpoint=slo.alias,
        threshold=format_duration(slo.threshold_us) if slo.threshold_us else "",
        enabled=slo.is_enabled,
    )


def _show_status(slo: Slo, counted: dict[str, tuple[int, int]]) -> SloStatusView:
    rates = {window: burn_rate(*counts, slo.budget) for window, counts in counted.items()}
    spent = rates[SPAN]
    return SloStatusView(
        name=slo.name,
        objective=slo.objective,
        budget_left=None if spent is None else 1 - spent,
        windows=[
            BurnView(window=window, bad=bad, total=total, burn_rate=rates[window])
            for window, (bad, total) in counted.items()
        ],
    )
