"""Control-plane routes of the change calendar: freezes, ways through them, planned releases."""

from datetime import datetime
from typing import Any

from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.governance.calendar import Calendar
from pilotage.governance.icalendar import write_calendar
from pilotage.governance.types import Freeze, FreezeSpec, ReleaseState, Repeat, Window
from pilotage.identity.service import IdentityService
from pilotage.kit.api import (
    ApiCall,
    Body,
    Page,
    RawCall,
    RawReply,
    RawRoute,
    RevisedView,
    Route,
    View,
    make_page,
)
from pilotage.kit.clock import parse_time

FREEZE = "/calendar/freezes/{freeze}"
RELEASE = "/calendar/releases/{release}"
DAY_US = 86_400_000_000
END_US = 84_000 * DAY_US  # in the year 2199: no sum of it leaves the calendar
BACK_US, AHEAD_US = 31 * DAY_US, 366 * DAY_US  # what an exported calendar shows


class FreezeBody(Body):
    """A time in which nothing may change; times are RFC 3339 or dates in UTC.

    ``names`` are endpoints and models, none for the whole project. A weekly freeze comes again at
    the same times of ``time_zone`` until ``until``. ``override_role`` may go through with a reason.
    """

    name: str
    reason: str
    starts_at: str
    ends_at: str
    names: tuple[str, ...] = ()
    repeat: Repeat = Repeat.NEVER
    until: str | None = None
    time_zone: str = "UTC"
    override_role: str = ""

    def to_spec(self) -> FreezeSpec:
        """Return it as the service takes it."""
        return FreezeSpec(
            reason=self.reason,
            starts_at_us=read_time(self.starts_at, "starts_at"),
            ends_at_us=read_time(self.ends_at, "ends_at"),
            names=tuple(dict.fromkeys(self.names)),
            repeat=self.repeat,
            until_us=None if self.until is None else read_time(self.until, "until"),
            time_zone=self.time_zone,
            override_role=self.override_role,
        )


class FreezeView(RevisedView):
    """A freeze, as it was set."""

    project_id: str
    name: str
    reason: str
    starts_at: datetime
    ends_at: datetime
    names: list[str]
    repeat: Repeat
    until: datetime | None
    time_zone: str
    override_role: str
    created_by: str
    created_at: datetime


class WindowView(View):
    """One occurrence of a freeze."""

    freeze: str
    reason: str
    names: list[str]
    override_role: str
    starts_at: datetime
    ends_at: datetime


class WindowsView(View):
    """The occurrences of freezes within a span."""

    items: list[WindowView]


class OverrideBody(Body):
    """Leave to change one subject during a freeze."""

    subject: str
    reason: str


class OverrideView(View):
    """Leave that was taken: for whom, for what, until when."""

    id: str
    freeze_id: str
    subject: str
    by: str
    role: str
    reason: str
    at: datetime
    expires_at: datetime


class ReleaseBody(Body):
    """A change to make at a time, in the name of whoever asks."""

    action: str
    subject: str
    at: str
    reason: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class ReleaseView(RevisedView):
    """A planned change, and what came of it."""

    project_id: str
    action: str
    subject_id: str
    subject: str
    arguments: dict[str, Any]
    at: datetime
    requested_by: str
    requested_at: datetime
    reason: str
    state: ReleaseState
    ended_at: datetime | None
    outcome: str
    decision_id: str


def calendar_routes(service: Calendar) -> list[Route]:
    """List the routes of the change calendar."""
    return [*_freeze_routes(service), *_release_routes(service)]


def calendar_raw_routes(service: Calendar, identity: IdentityService) -> list[RawRoute]:
    """List the routes of the calendar for calendar programs."""

    async def export(call: RawCall) -> RawReply:
        """Return freezes and releases as iCalendar (RFC 5545), a month back and a year ahead."""
        async with call.read() as tx:
            project = await identity.get_project(tx, tx.project_id)
            windows = await service.list_windows(tx, tx.now_us - BACK_US, tx.now_us + AHEAD_US)
            releases = await service.list_releases(tx)
            text = write_calendar(project.name, windows, releases, tx.now_us)
        return RawReply(body=text.encode(), media_type="text/calendar; charset=utf-8")

    return [
        RawRoute(
            method="GET",
            path="/calendar.ics",
            permission="governance.calendar.read",
            handler=export,
        )
    ]


def _freeze_routes(service: Calendar) -> list[Route]:
    async def create_freeze(call: ApiCall, body: FreezeBody) -> FreezeView:
        """Set a freeze: no change of traffic or of a stage passes while it lasts."""
        async with call.write() as tx:
            return _show_freeze(await service.freeze(tx, body.name, body.to_spec()))

    async def list_freezes(call: ApiCall, limit: int = 50, after: str = "") -> Page[FreezeView]:
        """List freezes by name."""
        async with call.read() as tx:
            found = await service.list_freezes(tx, after, limit + 1)
            return make_page(found, limit, _show_freeze, "name")

    async def get_freeze(call: ApiCall, freeze: str) -> FreezeView:
        """Show a freeze."""
        async with call.read() as tx:
            return _show_freeze(await service.get_freeze(tx, freeze))

    async def lift_freeze(call: ApiCall, freeze: str) -> None:
        """Lift a freeze for good, its repetitions too, for a reason."""
        async with call.write() as tx:
            await service.lift(tx, freeze)

    async def override_freeze(call: ApiCall, freeze: str, body: OverrideBody) -> OverrideView:
        """Take leave to change one subject during a freeze, once and within the hour."""
        async with call.write() as tx:
            return OverrideView.of(await service.override(tx, freeze, body.subject, body.reason))

    async def list_windows(
        call: ApiCall, since: str | None = None, until: str | None = None
    ) -> WindowsView:
        """List when freezes hold, from ``since`` (now) to before ``until`` (31 days later)."""
        async with call.read() as tx:
            from_us = tx.now_us if since is None else read_time(since, "since")
            to_us = from_us + BACK_US if until is None else read_time(until, "until")
            found = await service.list_windows(tx, from_us, min(to_us, from_us + AHEAD_US))
            return WindowsView(items=[_show_window(item) for item in found])

    read = "governance.calendar.read"
    return [
        Route(
            method="POST",
            path="/calendar/freezes",
            permission="governance.freeze.create",
            handler=create_freeze,
            status=201,
        ),
        Route(method="GET", path="/calendar/freezes", permission=read, handler=list_freezes),
        Route(method="GET", path=FREEZE, permission=read, handler=get_freeze),
        Route(
            method="DELETE",
            path=FREEZE,
            permission="governance.freeze.lift",
            handler=lift_freeze,
            status=204,
        ),
        Route(
            method="POST",
            path=f"{FREEZE}/overrides",
            permission="governance.freeze.override",
            handler=override_freeze,
            status=201,
        ),
        Route(method="GET", path="/calendar/windows", permission=read, handler=list_windows),
    ]


def _release_routes(service: Calendar) -> list[Route]:
    async def schedule_release(call: ApiCall, body: ReleaseBody) -> ReleaseView:
        """Plan a change; gates, approvals and freezes are checked when it is made."""
        at_us = read_time(body.at, "at")
        async with call.write() as tx:
            made = await service.schedule(
                tx, body.action, body.subject, at_us, body.arguments, body.reason
            )
            return ReleaseView.of(made)

    async def list_releases(
        call: ApiCall, state: ReleaseState | None = None, limit: int = 50, after: str = ""
    ) -> Page[ReleaseView]:
        """List planned changes and what came of them, in the order in which they were asked."""
        async with call.read() as tx:
            found = await service.list_releases(tx, after, limit + 1, state)
            return make_page(found, limit, ReleaseView.of, "id")

    async def get_release(call: ApiCall, release: str) -> ReleaseView:
        """Show a planned change."""
        async with call.read() as tx:
            return ReleaseView.of(await service.get_release(tx, release))

    async def cancel_release(call: ApiCall, release: str) -> ReleaseView:
        """Cancel a planned change."""
        async with call.write() as tx:
            return ReleaseView.of(await service.cancel(tx, release))

    read = "governance.calendar.read"
    return [
        Route(
            method="POST",
            path="/calendar/releases",
            permission="governance.release.schedule",
            handler=schedule_release,
            status=201,
        ),
        Route(method="GET", path="/calendar/releases", permission=read, handler=list_releases),
        Route(method="GET", path=RELEASE, permission=read, handler=get_release),
        Route(
            method="POST",
            path=f"{RELEASE}:cancel",
            permission="governance.release.cancel",
            handler=cancel_release,
        ),
    ]


def _show_freeze(freeze: Freeze) -> FreezeView:
    return FreezeView.of(freeze, names=list(freeze.names))


def _show_window(window: Window) -> WindowView:
    freeze = window.freeze
    return WindowView.of(
        window,
        freeze=freeze.name,
        reason=freeze.reason,
        names=list(freeze.names),
        override_role=freeze.override_role,
    )


def read_time(text: str, param: str) -> int:
    """Return a time that somebody wrote; raise ``invalid_request``, naming its field."""
    try:
        at_us = parse_time(text)
    except ValueError:
        at_us = -1
    if not 0 <= at_us < END_US:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a time of this age.",
            hint="Write 2026-01-31 or 2026-01-31T12:00:00+01:00.",
            param=param,
        )
    return at_us
