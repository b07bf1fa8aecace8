"""Channels with their secrets where an operator puts them, and what sends notices to them."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hook_server import HookServer
from notified import T0, make_alert
from pilotage.core.errors import PilotageError
from pilotage.kit.channel_settings import ChannelSettings
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy, Lookup
from pilotage.monitoring.alerts.types import AlertChange
from pilotage.monitoring.notify.sender import Sender, make_notifiers
from pilotage.monitoring.notify.spec_rules import check_channel
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    Encryption,
    Message,
    Notice,
    NoticeState,
    RouteKind,
)
from smtp_server import SmtpServer

KEY = base64.b64encode(b"a key of 32 bytes, more or less.").decode()
TO = ("ann@bank.example.org", "ben@bank.example.org")
FOLDER = "channels"


def put_file(folder: Path, text: str, name: str = "secret", project_id: str = "prj_1") -> Path:
    """Write a file for the channels of a project below a folder; return its path."""
    path = folder / FOLDER / f"of-{project_id}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path


def make_sender(
    folder: Path,
    clock: Clock,
    allow: str = "127.0.0.0/8",
    limit_s: float = 5.0,
    lookup: Lookup | None = None,
) -> Sender:
    """Return what sends notices with the secrets below a folder."""
    settings = ChannelSettings(files=str(folder / FOLDER), pagerduty_hosts="127.0.0.1")
    egress = EgressPolicy(allow, clock, lookup=lookup)
    notifiers = make_notifiers(settings, egress, clock, _name_project)
    return Sender(notifiers, limit_s)


async def _name_project(project_id: str) -> str:
    return f"of-{project_id}"


def make_notice(*alerts: AlertChange, remaining: Sequence[str] = ()) -> Notice:
    """Return a notice of alerts, of one that fires if none is named."""
    return Notice(
        id="ntc_1",
        rev=1,
        project_id="prj_1",
        channel_id="chn_1",
        channel="on-call",
        group_id="ngr_1",
        message=Message(
            group_id="ngr_1",
            route="risk",
            kind=RouteKind.PAGE,
            key={"rule": "slow"},
            alerts=alerts or (make_alert(),),
        ),
        state=NoticeState.WAITING,
        attempts=1,
        due_at_us=T0,
        created_at_us=T0,
        remaining=tuple(remaining),
    )


def make_secret(folder: Path, text: str) -> str:
    """Write a secret of the project; return the reference to it."""
    return f"file:{put_file(folder, text)}"


def hook_spec(server: HookServer, folder: Path, ca_file: str = "") -> ChannelSpec:
    """Return a channel that leads to a webhook."""
    return check_channel(
        ChannelSpec(
            kind=ChannelKind.WEBHOOK,
            url=server.url,
            secret=make_secret(folder, f"whsec_{KEY}"),
            ca_file=ca_file,
        )
    )


def mail_spec(server: SmtpServer, **more: Any) -> ChannelSpec:  # noqa: ANN401 - any field
    """Return a channel that leads to a mail server."""
    fields: dict[str, Any] = {
        "kind": ChannelKind.EMAIL,
        "url": server.url,
        "encryption": Encryption.NONE,
        "sender": "pilotage@bank.example.org",
        "to": TO,
    }
    return check_channel(ChannelSpec(**fields | more))


async def refuse(sender: Sender, spec: ChannelSpec, notice: Notice | None = None) -> PilotageError:
    """Send what cannot be delivered; return why."""
    with pytest.raises(PilotageError) as caught:
        await sender.send(spec, notice or make_notice())
    return caught.value
