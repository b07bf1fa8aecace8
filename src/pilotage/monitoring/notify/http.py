"""Control-plane routes of what is configured: channels, routes to them, inhibitions."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from pilotage.core.duration import format_duration, parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.clock import Clock
from pilotage.monitoring.notify.rules import say_absent
from pilotage.monitoring.notify.sender import Sender
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    Channel,
    ChannelKind,
    ChannelSpec,
    Encryption,
    Inhibition,
    InhibitionSpec,
    NoticeRoute,
    RouteKind,
    RouteSpec,
)

CHANNEL = "/channels/{channel}"
ROUTE = "/notice-routes/{notice_route}"
INHIBITION = "/inhibitions/{inhibition}"
Handler = Callable[..., Awaitable[Any]]
_TIMES = ("settle", "interval", "repeat")


class ChannelChange(Body):
    """What is said of a channel; all of it is replaced. ``secret`` is a reference, no secret.

    ``url`` is https://HOST/PATH, or smtp://HOST:PORT for mail, or a reference to what holds it.
    """

    kind: ChannelKind
    url: str = ""
    secret: str = ""
    ca_file: str = ""
    encryption: Encryption = Encryption.STARTTLS
    username: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()
    tells_end: bool = True

    def to_spec(self) -> ChannelSpec:
        """Return it as the service takes it."""
        return ChannelSpec(
            **{name: getattr(self, name) for name in ChannelSpec.__dataclass_fields__}
        )


class ChannelBody(ChannelChange):
    """A channel to create."""

    name: str


class ChannelView(RevisedView):
    """A channel; its secret is shown as the reference that it is."""

    project_id: str
    name: str
    kind: ChannelKind
    url: str
    secret: str
    ca_file: str
    encryption: Encryption
    username: str
    sender: str
    to: list[str]
    tells_end: bool
    created_at: datetime


class ArrivalView(View):
    """A test notice that arrived: its id, as the other side was told it, and how long it took."""

    notice: str
    channel: str
    took_ms: int


class RouteChange(Body):
    """What is said of a route; all of it is replaced.

    ``match`` is by label (``rule``, ``team``, ``severity`` among them): a text, ``*`` in it for
    anything, ``|`` between alternatives. ``settle``, ``interval`` and ``repeat`` are durations;
    what is left out is as its kind has it.
    """

    kind: RouteKind = RouteKind.TICKET
    match: dict[str, str] = Field(default_factory=dict)
    channels: tuple[str, ...]
    group_by: tuple[str, ...] = ("rule",)
    settle: str | None = None
    interval: str | None = None
    repeat: str | None = None

    def to_spec(self) -> RouteSpec:
        """Return it as the service takes it; raise ``invalid_request``."""
        times = {f"{name}_us": _read_span(getattr(self, name), name) for name in _TIMES}
        return RouteSpec(
            kind=self.kind,
            match=self.match,
            channels=self.channels,
            group_by=self.group_by,
            **times,
        )


class RouteBody(RouteChange):
    """A route to create."""

    name: str


class RouteView(RevisedView):
    """A route; ``pace`` is when its groups are told, what it does not say itself included."""

    project_id: str
    name: str
    kind: RouteKind
    match: dict[str, str]
    channels: list[str]
    group_by: list[str]
    settle: str | None
    interval: str | None
    repeat: str | None
    pace: dict[str, str]
    created_at: datetime


class InhibitionChange(Body):
    """While an alert that ``source`` fits fires, those that ``target`` fits are not told.

    Only where both have the same values of the labels ``equal``.
    """

    source: dict[str, str]
    target: dict[str, str]
    equal: tuple[str, ...] = ()

    def to_spec(self) -> InhibitionSpec:
        """Return it as the service takes it."""
        return InhibitionSpec(source=self.source, target=self.target, equal=self.equal)


class InhibitionBody(InhibitionChange):
    """An inhibition to create."""

    name: str


class InhibitionView(RevisedView):
    """An inhibition."""

    project_id: str
    name: str
    source: dict[str, str]
    target: dict[str, str]
    equal: list[str]
    created_at: datetime


def notify_routes(service: NotifyService, sender: Sender, clock: Clock) -> list[Route]:
    """List the routes of channels, of routes to them and of inhibitions."""
    return [
        *_channel_routes(service, sender, clock),
        *_route_routes(service),
        *_inhibition_routes(service),
    ]


def _channel_routes(service: NotifyService, sender: Sender, clock: Clock) -> list[Route]:
    async def create_channel(call: ApiCall, body: ChannelBody) -> ChannelView:
        """Create a channel; nothing goes there before a route leads to it."""
        async with call.write() as tx:
            return _show_channel(await service.channels.create(tx, body.name, body.to_spec()))

    async def list_channels(call: ApiCall, limit: int = 50, after: str = "") -> Page[ChannelView]:
        """List channels by name."""
        async with call.read() as tx:
            found = await service.channels.list(tx, after, limit + 1)
            return make_page(found, limit, _show_channel, "name")

    async def get_channel(call: ApiCall, channel: str) -> ChannelView:
        """Show a channel."""
        async with call.read() as tx:
            return _show_channel(await service.channels.get(tx, channel))

    async def change_channel(call: ApiCall, channel: str, body: ChannelChange) -> ChannelView:
        """Replace what is said of a channel; what waits for it goes where it leads then."""
        async with call.write() as tx:
            return _show_channel(
                await service.channels.change(tx, channel, body.to_spec(), call.expected_rev)
            )

    async def delete_channel(call: ApiCall, channel: str) -> None:
        """Delete a channel that no route leads to; what waits for it is given up."""
        async with call.write() as tx:
            await service.channels.delete(tx, channel)

    async def test_channel(call: ApiCall, channel: str) -> ArrivalView:
        """Send a test notice now, once, and say whether it arrived."""
        async with call.read() as tx:
            found = await service.channels.get(tx, channel)
            notice = service.make_test(tx, found)
        began_s = clock.monotonic_s()
        arrived = await sender.send(found.spec, notice)
        if problem := say_absent(arrived):
            raise PilotageError("unavailable", f"Not everybody has it: {problem}")
        took_ms = round((clock.monotonic_s() - began_s) * 1e3)
        return ArrivalView(notice=notice.id, channel=found.name, took_ms=took_ms)

    return [
        *_five(
            "/channels",
            CHANNEL,
            "channel",
            {
                "POST": create_channel,
                "LIST": list_channels,
                "GET": get_channel,
                "PUT": change_channel,
                "DELETE": delete_channel,
            },
        ),
        Route(
            method="POST",
            path=f"{CHANNEL}:test",
            permission="monitoring.channel.test",
            handler=test_channel,
        ),
    ]


def _route_routes(service: NotifyService) -> list[Route]:
    async def create_notice_route(call: ApiCall, body: RouteBody) -> RouteView:
        """Create a route; alerts take every route that fits them."""
        async with call.write() as tx:
            return _show_route(await service.routes.create(tx, body.name, body.to_spec()))

    async def list_notice_routes(
        call: ApiCall, limit: int = 50, after: str = ""
    ) -> Page[RouteView]:
        """List routes by name."""
        async with call.read() as tx:
            found = await service.routes.list(tx, after, limit + 1)
            return make_page(found, limit, _show_route, "name")

    async def get_notice_route(call: ApiCall, notice_route: str) -> RouteView:
        """Show a route."""
        async with call.read() as tx:
            return _show_route(await service.routes.get(tx, notice_route))

    async def change_notice_route(call: ApiCall, notice_route: str, body: RouteChange) -> RouteView:
        """Replace what is said of a route."""
        async with call.write() as tx:
            return _show_route(
                await service.routes.change(tx, notice_route, body.to_spec(), call.expected_rev)
            )

    async def delete_notice_route(call: ApiCall, notice_route: str) -> None:
        """Delete a route; nothing more is told on it, not even that an alert is over."""
        async with call.write() as tx:
            await service.routes.delete(tx, notice_route)

    return _five(
        "/notice-routes",
        ROUTE,
        "notice_route",
        {
            "POST": create_notice_route,
            "LIST": list_notice_routes,
            "GET": get_notice_route,
            "PUT": change_notice_route,
            "DELETE": delete_notice_route,
        },
    )


def _inhibition_routes(service: NotifyService) -> list[Route]:
    async def create_inhibition(call: ApiCall, body: InhibitionBody) -> InhibitionView:
        """Create an inhibition: some alerts say enough for others."""
        async with call.write() as tx:
            return _show_inhibition(await service.inhibitions.create(tx, body.name, body.to_spec()))

    async def list_inhibitions(
        call: ApiCall, limit: int = 50, after: str = ""
    ) -> Page[InhibitionView]:
        """List inhibitions by name."""
        async with call.read() as tx:
            found = await service.inhibitions.list(tx, after, limit + 1)
            return make_page(found, limit, _show_inhibition, "name")

    async def get_inhibition(call: ApiCall, inhibition: str) -> InhibitionView:
        """Show an inhibition."""
        async with call.read() as tx:
            return _show_inhibition(await service.inhibitions.get(tx, inhibition))

    async def change_inhibition(
        call: ApiCall, inhibition: str, body: InhibitionChange
    ) -> InhibitionView:
        """Replace what is said of an inhibition."""
        async with call.write() as tx:
            return _show_inhibition(
                await service.inhibitions.change(tx, inhibition, body.to_spec(), call.expected_rev)
            )

    async def delete_inhibition(call: ApiCall, inhibition: str) -> None:
        """Delete an inhibition."""
        async with call.write() as tx:
            await service.inhibitions.delete(tx, inhibition)

    return _five(
        "/inhibitions",
        INHIBITION,
        "inhibition",
        {
            "POST": create_inhibition,
            "LIST": list_inhibitions,
            "GET": get_inhibition,
            "PUT": change_inhibition,
            "DELETE": delete_inhibition,
        },
    )


def _five(all_of: str, one: str, noun: str, handlers: Mapping[str, Handler]) -> list[Route]:
    """Return the routes by which one kind of object is made, seen, changed and deleted."""
    permission = f"monitoring.{noun}"
    return [
        Route(
            method="POST",
            path=all_of,
            permission=f"{permission}.create",
            handler=handlers["POST"],
            status=201,
        ),
        Route(method="GET", path=all_of, permission=f"{permission}.read", handler=handlers["LIST"]),
        Route(method="GET", path=one, permission=f"{permission}.read", handler=handlers["GET"]),
        Route(method="PUT", path=one, permission=f"{permission}.change", handler=handlers["PUT"]),
        Route(
            method="DELETE",
            path=one,
            permission=f"{permission}.delete",
            handler=handlers["DELETE"],
            status=204,
        ),
    ]


def _read_span(text: str | None, param: str) -> int | None:
    try:
        return None if text is None else parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{param}: {wrong}.", param=param) from None


def _show_span(span_us: int | None) -> str | None:
    return None if span_us is None else format_duration(span_us)


def _show_channel(item: Channel) -> ChannelView:
    return ChannelView.of(
        item, **{name: getattr(item.spec, name) for name in ChannelSpec.__dataclass_fields__}
    )


def _show_route(item: NoticeRoute) -> RouteView:
    spec, pace = item.spec, item.spec.pace
    return RouteView.of(
        item,
        kind=spec.kind,
        match=spec.match,
        channels=spec.channels,
        group_by=spec.group_by,
        pace={name: format_duration(getattr(pace, f"{name}_us")) for name in _TIMES},
        **{name: _show_span(getattr(spec, f"{name}_us")) for name in _TIMES},
    )


def _show_inhibition(item: Inhibition) -> InhibitionView:
    spec = item.spec
    return InhibitionView.of(item, source=spec.source, target=spec.target, equal=spec.equal)
