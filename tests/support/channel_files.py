"""Secrets of channels, where an operator puts them, and what sends notices with them."""

from pathlib import Path

from pilotage.kit.channel_settings import ChannelSettings
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy, Lookup
from pilotage.monitoring.notify.sender import Sender, make_notifiers

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
