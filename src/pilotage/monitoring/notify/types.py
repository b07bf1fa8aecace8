"""What notices are: channels, routes to them, silences, groups of alerts, and what is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from pilotage.monitoring.alerts.types import AlertChange, AlertState

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
Spec = TypeVar("Spec")
LOG_CHANNEL = "log"  # the control plane's own log: for alerts that no route takes


class ChannelKind(StrEnum):
    """How a channel is spoken to."""

    LOG = "log"
    WEBHOOK = "webhook"
    EMAIL = "email"
    SLACK = "slack"
    PAGERDUTY = "pagerduty"


class Encryption(StrEnum):
    """How the connection to a mail server is encrypted: by STARTTLS, from its start, or never."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """What is said of a channel. ``secret`` is a reference (``env:NAME``, ``file:PATH``).

    It names what a webhook is signed with, a mailbox's password, or PagerDuty's routing key.
    ``url`` may be a reference too, and Slack's must be: its address is all it takes to post there.
    ``encryption``, ``username``, ``sender`` and ``to`` are for mail. ``tells_end`` says whether
    the channel hears of alerts that are over.
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


class RouteKind(StrEnum):
    """What a notice asks for: somebody now, somebody some day, or somebody who pays."""

    PAGE = "page"
    TICKET = "ticket"
    FINANCE = "finance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a group of alerts is told: after settling, about news, and once more, microseconds."""

    settle_us: int
    interval_us: int
    repeat_us: int


PACES: Mapping[RouteKind, Pace] = {
    RouteKind.PAGE: Pace(settle_us=SECOND_US, interval_us=30 * SECOND_US, repeat_us=HOUR_US),
    RouteKind.TICKET: Pace(
        settle_us=5 * MINUTE_US, interval_us=30 * MINUTE_US, repeat_us=3 * DAY_US
    ),
    RouteKind.FINANCE: Pace(settle_us=5 * MINUTE_US, interval_us=HOUR_US, repeat_us=DAY_US),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """What is said of a route: the alerts it takes, and the channels it takes them to.

    ``match`` is by label, ``rule``, ``team`` and ``severity`` among them: a text with ``*`` for
    anything and ``|`` between alternatives. Alerts that have the labels of ``group_by`` in common
    are told together.
    """

    kind: RouteKind = RouteKind.TICKET
    match: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ("rule",)
    settle_us: int | None = None
    interval_us: int | None = None
    repeat_us: int | None = None

    @property
    def pace(self) -> Pace:
        """When its groups are told; what is left out is what its kind has."""
        own = PACES[self.kind]
        return Pace(
            settle_us=own.settle_us if self.settle_us is None else self.settle_us,
            interval_us=own.interval_us if self.interval_us is None else self.interval_us,
            repeat_us=own.repeat_us if self.repeat_us is None else self.repeat_us,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InhibitionSpec:
    """While an alert that ``source`` fits fires, those that ``target`` fits are not told.

    Only where both have the same values of the labels ``equal``; no alert inhibits itself.
    """

    source: dict[str, str]
    target: dict[str, str]
    equal: tuple[str, ...] = ()


class SettingKind(StrEnum):
    """What can be configured by name."""

    CHANNEL = "channel"
    ROUTE = "notice_route"
    INHIBITION = "inhibition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured(Generic[Spec]):
    """An object that somebody configured, by its name in a project."""

    id: str
    rev: int
    project_id: str
    name: str
    spec: Spec
    created_at_us: int
    deleted_at_us: int | None = None


Channel = Configured[ChannelSpec]
NoticeRoute = Configured[RouteSpec]
Inhibition = Configured[InhibitionSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """For a time, nobody is told of the alerts it fits; that they are over is told even so."""

    id: str
    rev: int
    project_id: str
    match: dict[str, str]
    starts_at_us: int
    ends_at_us: int
    reason: str
    created_by: str
    created_at_us: int

    def is_on(self, now_us: int) -> bool:
        """Say whether it holds now."""
        return self.starts_at_us <= now_us < self.ends_at_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Alerts that one route tells together: since when, what of, and when last.

    ``key`` holds the labels they have in common, ``told`` the ids of the alerts that were told to
    fire and not yet to be over; those that fire and that nothing needs to be said of, since they
    were named when the group was last told, are ``named``. The id is the same until nothing of it
    fires any more.
    """

    id: str
    rev: int
    project_id: str
    route_id: str
    key: dict[str, str]
    opened_at_us: int
    told_at_us: int | None = None
    told: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one notice says: ``alerts`` are those that fire in the group, and those over since.

    ``group_id`` is the same in all that is said of a group while anything in it fires. There are
    ``more_firing`` and ``more_ended`` besides, and ``muted`` that were told and fire on silenced.
    """

    group_id: str
    route: str
    kind: RouteKind
    key: dict[str, str]
    alerts: tuple[AlertChange, ...]
    more_firing: int = 0
    more_ended: int = 0
    muted: int = 0
    is_repeat: bool = False
    is_test: bool = False

    @property
    def is_firing(self) -> bool:
        """Say whether anything of it fires."""
        return bool(self.firing) or self.more_firing > 0

    @property
    def more(self) -> int:
        """How many alerts there are besides those that are listed."""
        return self.more_firing + self.more_ended

    @property
    def firing(self) -> tuple[AlertChange, ...]:
        """The alerts that fire."""
        return tuple(item for item in self.alerts if item.state == AlertState.FIRING)

    @property
    def ended(self) -> tuple[AlertChange, ...]:
        """The alerts that are over."""
        return tuple(item for item in self.alerts if item.state == AlertState.RESOLVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Which recipients do not have a notice that was sent: put off till later, or refused."""

    later: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


ARRIVED = Arrival()


class NoticeState(StrEnum):
    """Whether a notice is still to be delivered, was, or was given up."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message on its way to one channel; its id is the same in every attempt to deliver it.

    ``place`` is its place among all of its group on the channel, ``rank`` how urgent it is (0 the
    most); ``tried_us`` adds up the pauses between attempts. ``remaining`` names the recipients that
    do not have it yet, where some have. Those behind it may pass it where ``may_pass`` says so.
    """

    id: str
    rev: int
    project_id: str
    channel_id: str
    channel: str
    group_id: str
    message: Message
    state: NoticeState
    attempts: int
    due_at_us: int
    created_at_us: int
    ended_at_us: int | None = None
    problem: str = ""
    remaining: tuple[str, ...] = ()
    place: int = 0
    rank: int = 0
    tried_us: int = 0
    may_pass: bool = False
