"""Kinds of notices: channels, routes to them, and what keeps quiet."""

from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, join, list_given
from pilotage.core.addresses import check_base_url, check_ca_file, check_notice_secret
from pilotage.core.duration import parse_duration_us
from pilotage.core.names import check_name
from pilotage.monitoring.notify.types import ChannelKind, Encryption, RouteKind

TIMES = ("settle", "interval", "repeat")


class ChannelObject(Object, frozen=True, rename={"channel_kind": "type"}):
    """A channel; what is left out is the default, also where it was something else."""

    name: str
    channel_kind: str
    url: str = ""
    secret: str = ""
    ca_file: str = ""
    encryption: str = Encryption.STARTTLS.value
    username: str = ""
    sender: str = ""
    to: list[str] = msgspec.field(default_factory=list)
    tells_end: bool = True

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it, without the name; PagerDuty has an address of its own."""
        kept = list_given(self, "name", "project", "channel_kind") | {"kind": self.channel_kind}
        if self.channel_kind == ChannelKind.PAGERDUTY and not self.url:
            del kept["url"]
        elif self.url.startswith("http"):
            kept["url"] = check_base_url(self.url)
        return kept

    def check(self) -> None:
        """Check what can be checked without the API."""
        check_name(self.name)
        if self.channel_kind not in list(ChannelKind):
            raise ValueError(f"type: {self.channel_kind!r} is none of {join(list(ChannelKind))}")
        if self.encryption not in list(Encryption):
            raise ValueError(f"encryption: {self.encryption!r} is none of {join(list(Encryption))}")
        check_notice_secret(self.secret)
        check_ca_file(self.ca_file)
        _ = self.body


class NoticeRouteObject(Object, frozen=True, rename={"route_kind": "type"}):
    """A route; what is left out is the default, also where it was something else."""

    name: str
    channels: list[str]
    route_kind: str = RouteKind.TICKET.value
    match: dict[str, str] = msgspec.field(default_factory=dict)
    group_by: list[str] = msgspec.field(default_factory=lambda: ["rule"])
    settle: str | None = None
    interval: str | None = None
    repeat: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it, without the name."""
        said = list_given(self, "name", "project", "route_kind", *TIMES)
        return said | {"kind": self.route_kind} | {name: getattr(self, name) for name in TIMES}

    def check(self) -> None:
        """Check what can be checked without the API."""
        check_name(self.name)
        if self.route_kind not in list(RouteKind):
            raise ValueError(f"type: {self.route_kind!r} is none of {join(list(RouteKind))}")
        for name in self.channels:
            check_name(name, "channels")
        for name in TIMES:
            if getattr(self, name) is not None:
                parse_duration_us(getattr(self, name))


class InhibitionObject(Object, frozen=True):
    """An inhibition; all of it is what the document says."""

    name: str
    source: dict[str, str]
    target: dict[str, str]
    equal: list[str] = msgspec.field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it, without the name."""
        return list_given(self, "name", "project")
