"""Control-plane routes of silences and notices, and of what Alertmanager would be told."""

from datetime import datetime
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.clock import parse_time
from pilotage.monitoring.notify.alertmanager import make_config
from pilotage.monitoring.notify.backends.secrets import NameProject
from pilotage.monitoring.notify.messages import make_title
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import Notice, NoticeState, RouteKind, Silence


class SilenceBody(Body):
    """A silence to create; times are RFC 3339 or dates in UTC, it begins now if not told."""

    match: dict[str, str]
    ends_at: str
    starts_at: str | None = None
    reason: str


class SilenceView(RevisedView):
    """A silence; nobody is told of the alerts that it fits."""

    project_id: str
    match: dict[str, str]
    starts_at: datetime
    ends_at: datetime
    is_on: bool
    reason: str
    created_by: str
    created_at: datetime


class NoticeView(RevisedView):
    """A notice: what it says, where it goes, and whether it arrived."""

    project_id: str
    channel: str
    state: NoticeState
    title: str
    kind: RouteKind
    route: str
    group_id: str
    alerts: list[str]
    attempts: int
    problem: str
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None


class AlertmanagerView(View):
    """Alertmanager's configuration for the project's alerts, and what it cannot do as is."""

    config: dict[str, Any]
    notes: list[str]


def notice_routes(service: NotifyService, name_project: NameProject) -> list[Route]:
    """List the routes of silences and notices."""
    return [*_silence_routes(service), *_notice_routes(service, name_project)]


def _silence_routes(service: NotifyService) -> list[Route]:
    async def create_silence(call: ApiCall, body: SilenceBody) -> SilenceView:
        """Create a silence of at most 90 days."""
        starts_us = None if body.starts_at is None else _read_time(body.starts_at, "starts_at")
        ends_us = _read_time(body.ends_at, "ends_at")
        async with call.write() as tx:
            made = await service.silences.create(
                tx, body.match, starts_at_us=starts_us, ends_at_us=ends_us, reason=body.reason
            )
            return _show_silence(made, tx.now_us)

    async def list_silences(
        call: ApiCall, *, limit: int = 50, after: str = "", with_ended: bool = False
    ) -> Page[SilenceView]:
        """List silences as they were made, those that are over if asked."""
        async with call.read() as tx:
            found = await service.silences.list(tx, after, limit + 1, with_ended=with_ended)
            now_us = tx.now_us
            return make_page(found, limit, lambda item: _show_silence(item, now_us), "id")

    async def get_silence(call: ApiCall, silence: str) -> SilenceView:
        """Show a silence."""
        async with call.read() as tx:
            return _show_silence(await service.silences.get(tx, silence), tx.now_us)

    async def end_silence(call: ApiCall, silence: str) -> SilenceView:
        """End a silence now."""
        async with call.write() as tx:
            return _show_silence(await service.silences.end(tx, silence), tx.now_us)

    noun = "monitoring.silence"
    one = "/silences/{silence}"
    return [
        Route(
            method="POST",
            path="/silences",
            permission=f"{noun}.create",
            handler=create_silence,
            status=201,
        ),
        Route(method="GET", path="/silences", permission=f"{noun}.read", handler=list_silences),
        Route(method="GET", path=one, permission=f"{noun}.read", handler=get_silence),
        Route(method="POST", path=f"{one}:end", permission=f"{noun}.end", handler=end_silence),
    ]


def _notice_routes(service: NotifyService, name_project: NameProject) -> list[Route]:
    async def list_notices(
        call: ApiCall,
        limit: int = 50,
        after: str = "",
        state: NoticeState | None = None,
        channel: str = "",
    ) -> Page[NoticeView]:
        """List notices as they were made; all, or those in a state or of a channel."""
        async with call.read() as tx:
            found = await service.list_notices(tx, after, limit + 1, state=state, channel=channel)
            return make_page(found, limit, _show_notice, "id")

    async def get_notice(call: ApiCall, notice: str) -> NoticeView:
        """Show a notice."""
        async with call.read() as tx:
            return _show_notice(await service.get_notice(tx, notice))

    async def send_notice_again(call: ApiCall, notice: str) -> NoticeView:
        """Try a notice anew that was given up."""
        async with call.write() as tx:
            return _show_notice(await service.send_again(tx, notice))

    async def get_alertmanager_config(call: ApiCall) -> AlertmanagerView:
        """Show how Alertmanager would be configured to tell of the same alerts."""
        async with call.read() as tx:
            project = await name_project(tx.project_id)
            config, notes = make_config(
                project,
                await service.channels.list(tx),
                await service.routes.list(tx),
                await service.inhibitions.list(tx),
            )
        return AlertmanagerView(config=config, notes=notes)

    noun = "monitoring.notice"
    one = "/notices/{notice}"
    return [
        Route(method="GET", path="/notices", permission=f"{noun}.read", handler=list_notices),
        Route(method="GET", path=one, permission=f"{noun}.read", handler=get_notice),
        Route(
            method="POST", path=f"{one}:send", permission=f"{noun}.send", handler=send_notice_again
        ),
        Route(
            method="GET",
            path="/alertmanager-config",
            permission="monitoring.notice_route.read",
            handler=get_alertmanager_config,
        ),
    ]


def _read_time(text: str, param: str) -> int:
    try:
        return parse_time(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request",
            f"{param}: {wrong}.",
            hint="Write 2026-01-31, or 2026-01-31T18:00:00Z.",
            param=param,
        ) from None


def _show_silence(item: Silence, now_us: int) -> SilenceView:
    return SilenceView.of(item, is_on=item.is_on(now_us))


def _show_notice(item: Notice) -> NoticeView:
    return NoticeView.of(
        item,
        title=make_title(item.message),
        kind=item.message.kind,
        route=item.message.route,
        alerts=[alert.alert_id for alert in item.message.alerts],
    )
