"""Alerts, routes and groups to tell of, and a project's notices driven by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pilotage.monitoring.alerts.types import AlertChange, AlertState, Severity
from pilotage.monitoring.notify.rules import Plan, World, plan_notices
from pilotage.monitoring.notify.types import (
    SECOND_US,
    Configured,
    Group,
    Inhibition,
    InhibitionSpec,
    Message,
    NoticeRoute,
    RouteSpec,
    Silence,
)

T0 = 1_700_000_000 * SECOND_US


def make_alert(
    alert_id: str = "alt_1",
    rule: str = "slow",
    *,
    severity: Severity = Severity.WARNING,
    team: str = "serving",
    at_us: int = T0,
    project_id: str = "prj_1",
    **labels: str,
) -> AlertChange:
    """Return an alert that fires."""
    return AlertChange(
        alert_id=alert_id,
        project_id=project_id,
        rule=rule,
        condition="p95_latency > 2s for 5m",
        severity=severity,
        state=AlertState.FIRING,
        labels=labels or {"alias": "chat"},
        value=2.5,
        summary=f"{rule} is true",
        team=team,
        runbook="https://runbooks.example.org/slow",
        starts_at_us=at_us,
        at_us=at_us,
    )


def resolve(alert: AlertChange, at_us: int) -> AlertChange:
    """Return an alert that is over."""
    return replace(alert, state=AlertState.RESOLVED, at_us=at_us)


def make_route(name: str = "all", **spec: Any) -> NoticeRoute:  # noqa: ANN401 - any field
    """Return a route; it settles for 10 s, tells news after 60 s and repeats after 600 s."""
    fields: dict[str, Any] = {
        "channels": ("on-call",),
        "settle_us": 10 * SECOND_US,
        "interval_us": 60 * SECOND_US,
        "repeat_us": 600 * SECOND_US,
    }
    return Configured(
        id=f"nrt_{name}",
        rev=1,
        project_id="prj_1",
        name=name,
        created_at_us=T0,
        spec=RouteSpec(**fields | spec),
    )


def make_silence(starts_us: int, ends_us: int, **match: str) -> Silence:
    """Return a silence."""
    return Silence(
        id="sil_1",
        rev=1,
        project_id="prj_1",
        match=match,
        starts_at_us=starts_us,
        ends_at_us=ends_us,
        reason="a test",
        created_by="usr_1",
        created_at_us=T0,
    )


def make_inhibition(source: dict[str, str], target: dict[str, str], *equal: str) -> Inhibition:
    """Return an inhibition."""
    return Configured(
        id="inh_1",
        rev=1,
        project_id="prj_1",
        name="one",
        created_at_us=T0,
        spec=InhibitionSpec(source=source, target=target, equal=equal),
    )


class Telling:
    """The notices of a project over time, with nothing but the rules: no table, no clock."""

    def __init__(self, *routes: NoticeRoute, **more: Any) -> None:  # noqa: ANN401 - of a World
        self.routes = routes
        self.more = more
        self.alerts: dict[str, AlertChange] = {}
        self.groups: dict[str, Group] = {}
        self.told: list[tuple[int, Message]] = []
        self._made = 0

    @property
    def world(self) -> World:
        """What telling depends on now."""
        return World(
            alerts=tuple(self.alerts.values()),
            routes=self.routes,
            inhibitions=self.more.get("inhibitions", ()),
            silences=self.more.get("silences", ()),
            groups=tuple(self.groups.values()),
        )

    def take(self, *alerts: AlertChange) -> None:
        """Take what became of alerts."""
        for alert in alerts:
            self.alerts[alert.alert_id] = alert

    def tell(self, now_us: int) -> list[Message]:
        """Do what is due; return what is told."""
        plan = plan_notices(self.world, now_us)
        messages = self._apply(plan)
        self.told += [(now_us, message) for message in messages]
        return messages

    def run(self, since_us: int, until_us: int, step_us: int = SECOND_US) -> Sequence[Message]:
        """Do what is due at every step of a time; return what is told in it."""
        return [
            message
            for now_us in range(since_us, until_us, step_us)
            for message in self.tell(now_us)
        ]

    def _apply(self, plan: Plan) -> list[Message]:
        messages = []
        for step in plan.steps:
            if step.before is None:
                self._made += 1
            group_id = step.before.id if step.before else f"ngr_{self._made}"
            self.groups.pop(group_id, None)
            if step.after is not None:
                self.groups[group_id] = replace(step.after, id=group_id)
            if step.message is not None:
                messages.append(replace(step.message, group_id=group_id))
        for alert_id in plan.over:
            del self.alerts[alert_id]
        return messages
