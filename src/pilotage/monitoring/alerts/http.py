"""Control-plane routes of alert rules and of alerts."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from pilotage.core.condition.fields import write_fields
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Labels
from pilotage.core.condition.writer import write_condition
from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.clock import to_datetime
from pilotage.monitoring.alerts.exported import write_rules
from pilotage.monitoring.alerts.rules import find_type, to_finite
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.types import (
    Alert,
    AlertRule,
    AlertState,
    MetricType,
    RuleSpec,
    Severity,
)
from pilotage.monitoring.alerts.worker import AlertKeeper, RuleLook

ONE = "/alert-rules/{alert_rule}"
READ = "monitoring.alert_rule.read"
LIVING = (AlertState.PENDING, AlertState.FIRING)


class ConditionBody(Body):
    """When a rule holds: a condition such as ``p95_latency > 2s for 5m``, or the same as fields.

    ``comparison`` is gt, gte, lt, lte or eq; thresholds of latencies are milliseconds.
    """

    condition: str = ""
    metric_name: str = ""
    comparison: str = "gt"
    threshold: float | None = None

    def read(self) -> str:
        """Return the condition in its written form; raise ``invalid_request`` if it is none."""
        if bool(self.condition) == bool(self.metric_name):
            raise PilotageError(
                "invalid_request",
                "A rule has a condition, or a metric_name with a threshold.",
                hint='Write "condition": "p95_latency > 2s for 5m".',
                param="condition",
            )
        if self.condition:
            return write_condition(parse(self.condition))
        if self.threshold is None:
            raise PilotageError(
                "invalid_request", "The metric has no threshold.", param="threshold"
            )
        return write_condition(
            parse(write_fields(self.metric_name, self.comparison, self.threshold))
        )


class RuleChange(ConditionBody):
    """What a rule says. ``metric_type`` is told by the metrics of its condition unless given.

    ``labels`` are added to those of its alerts, ``keep_firing_for`` is a duration such as 5m.
    """

    severity: Severity = Severity.WARNING
    metric_type: MetricType | None = None
    team: str = ""
    runbook: str = ""
    summary: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    keep_firing_for: str = ""
    enabled: bool = True

    def to_spec(self) -> RuleSpec:
        """Return it as the service takes it; raise ``invalid_request``."""
        condition = self.read()
        return RuleSpec(
            condition=condition,
            severity=self.severity,
            metric_type=self.metric_type or find_type(parse(condition)),
            team=self.team,
            runbook=self.runbook,
            summary=self.summary,
            labels=self.labels,
            keep_firing_us=read_duration(self.keep_firing_for, "keep_firing_for"),
            is_enabled=self.enabled,
        )


class RuleBody(RuleChange):
    """A rule to create."""

    name: str


class SeriesView(View):
    """A series and its value, None where that is no finite number."""

    labels: dict[str, str]
    value: float | None


class LookView(View):
    """What the last look came to: when, for which series it holds, why nobody can say."""

    at: datetime
    holds: list[SeriesView]
    left_out: int
    problem: str


class RuleView(RevisedView):
    """A rule: a condition, and whom it concerns how much. ``look`` is None before the first."""

    project_id: str
    name: str
    condition: str
    severity: Severity
    metric_type: MetricType
    team: str
    runbook: str
    summary: str
    labels: dict[str, str]
    keep_firing_for: str
    enabled: bool
    created_at: datetime
    look: LookView | None


class CheckView(View):
    """A condition in its written form, what it asks for, and the series it holds for now."""

    condition: str
    metric_type: MetricType
    for_seconds: float
    metrics: list[str]
    holds: list[SeriesView]
    problem: str


class AlertView(RevisedView):
    """A series of a rule: pending, firing, or resolved. Its value is that of the last look."""

    project_id: str
    rule: str
    condition: str
    severity: Severity
    team: str
    runbook: str
    summary: str
    labels: dict[str, str]
    value: float | None
    state: AlertState
    began_at: datetime
    fired_at: datetime | None
    resolved_at: datetime | None


class ExportView(View):
    """The content of a rule file of Prometheus."""

    groups: list[dict[str, object]]


def alert_routes(
    service: AlertService, keeper: AlertKeeper, identity: IdentityService
) -> list[Route]:
    """List the routes of alert rules and alerts."""
    return [
        *_rule_routes(service, keeper),
        *_use_routes(service, keeper, identity),
        *_alert_routes(service),
    ]


def read_duration(text: str, param: str) -> int:
    """Return a duration in microseconds, 0 of nothing; raise ``invalid_request``."""
    try:
        return parse_duration_us(text) if text else 0
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{param}: {wrong}.", param=param) from None


def _rule_routes(service: AlertService, keeper: AlertKeeper) -> list[Route]:
    def show(rule: AlertRule) -> RuleView:
        return _show_rule(rule, keeper.looks.get(rule.id))

    async def create_alert_rule(call: ApiCall, body: RuleBody) -> RuleView:
        """Create an alert rule; it is looked at from the next second on."""
        async with call.write() as tx:
            return show(await service.create_rule(tx, body.name, body.to_spec()))

    async def list_alert_rules(call: ApiCall, limit: int = 50, after: str = "") -> Page[RuleView]:
        """List alert rules by name, without those that objectives come with."""
        async with call.read() as tx:
            return make_page(await service.list_rules(tx, after, limit + 1), limit, show, "name")

    async def get_alert_rule(call: ApiCall, alert_rule: str) -> RuleView:
        """Show an alert rule and what the last look at it came to."""
        async with call.read() as tx:
            return show(await service.get_rule(tx, alert_rule))

    async def change_alert_rule(call: ApiCall, alert_rule: str, body: RuleChange) -> RuleView:
        """Change an alert rule; what fires goes on as long as the new condition holds for it."""
        async with call.write() as tx:
            return show(
                await service.change_rule(tx, alert_rule, body.to_spec(), call.expected_rev)
            )

    async def delete_alert_rule(call: ApiCall, alert_rule: str) -> None:
        """Delete an alert rule: what fires of it is over."""
        async with call.write() as tx:
            await service.delete_rule(tx, alert_rule)

    return [
        Route(
            method="POST",
            path="/alert-rules",
            permission="monitoring.alert_rule.create",
            handler=create_alert_rule,
            status=201,
        ),
        Route(method="GET", path="/alert-rules", permission=READ, handler=list_alert_rules),
        Route(method="GET", path=ONE, permission=READ, handler=get_alert_rule),
        Route(
            method="PUT",
            path=ONE,
            permission="monitoring.alert_rule.change",
            handler=change_alert_rule,
        ),
        Route(
            method="DELETE",
            path=ONE,
            permission="monitoring.alert_rule.delete",
            handler=delete_alert_rule,
            status=204,
        ),
    ]


def _use_routes(
    service: AlertService, keeper: AlertKeeper, identity: IdentityService
) -> list[Route]:
    async def check_alert_rule(call: ApiCall, body: ConditionBody) -> CheckView:
        """Read a condition and look at it once; nothing is kept and nobody is told."""
        condition = parse(body.read())
        async with call.read() as tx:
            look = await keeper.try_condition(tx, condition)
        return CheckView(
            condition=write_condition(condition),
            metric_type=find_type(condition),
            for_seconds=condition.for_us / 1e6,
            metrics=sorted({ref.name for ref in condition.metrics}),
            holds=_show_series(look.found),
            problem=look.problem,
        )

    async def export_alert_rules(call: ApiCall) -> ExportView:
        """Write the project's rules, with those of objectives, as a rule file of Prometheus."""
        async with call.read() as tx:
            project = await identity.get_project(tx, tx.project_id)
            rules = await service.list_all_rules(tx)
        return ExportView.model_validate(write_rules(rules, project.name))

    return [
        Route(
            method="POST",
            path="/alert-rules:check",
            permission="monitoring.alert_rule.check",
            handler=check_alert_rule,
        ),
        Route(
            method="GET", path="/alert-rules:export", permission=READ, handler=export_alert_rules
        ),
    ]


def _alert_routes(service: AlertService) -> list[Route]:
    async def list_alerts(
        call: ApiCall,
        limit: int = 50,
        after: str = "",
        state: AlertState | None = None,
        rule: str = "",
    ) -> Page[AlertView]:
        """List alerts, the newest first: those that live unless a state is asked for."""
        states = LIVING if state is None else (state,)
        async with call.read() as tx:
            found = await service.list_alerts(tx, states, rule, after, limit + 1)
            return make_page(found, limit, _show_alert, "id")

    async def get_alert(call: ApiCall, alert: str) -> AlertView:
        """Show an alert, a past one too."""
        async with call.read() as tx:
            return _show_alert(await service.get_alert(tx, alert))

    permission = "monitoring.alert.read"
    return [
        Route(method="GET", path="/alerts", permission=permission, handler=list_alerts),
        Route(method="GET", path="/alerts/{alert}", permission=permission, handler=get_alert),
    ]


def _show_rule(rule: AlertRule, look: RuleLook | None) -> RuleView:
    return RuleView.of(
        rule,
        keep_firing_for=format_duration(rule.keep_firing_us) if rule.keep_firing_us else "",
        enabled=rule.is_enabled,
        look=None if look is None else _show_look(look),
    )


def _show_look(look: RuleLook) -> LookView:
    return LookView.of(
        look, at=to_datetime(look.at_us), holds=_show_series(look.found), left_out=look.left_out
    )


def _show_series(found: Mapping[Labels, float]) -> list[SeriesView]:
    return [
        SeriesView(labels=dict(labels), value=to_finite(found[labels])) for labels in sorted(found)
    ]


def _show_alert(alert: Alert) -> AlertView:
    return AlertView.of(alert)
