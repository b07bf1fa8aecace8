"""Settings of what notices are told with, and what keeps it apart from this installation's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from pilotage.core.addresses import NOTICE_PREFIX
from pilotage.kit.setting_types import doc


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the channels of notices may use of this machine, besides variables of their own."""

    files: Annotated[
        str,
        doc(
            "folder of the secrets and certificates that channels may name by path, those of a "
            "project in a subfolder of its name; none: they name no files"
        ),
    ] = ""
    pagerduty_hosts: Annotated[
        str,
        doc("hosts that take events for PagerDuty besides its own, separated by commas"),
    ] = ""

    @property
    def hosts_of_pagerduty(self) -> frozenset[str]:
        """The hosts that take events for PagerDuty besides its own."""
        named = (name.strip().lower() for name in self.pagerduty_hosts.split(","))
        return frozenset(name for name in named if name)

    @property
    def folder(self) -> Path | None:
        """The folder, absolute and without links."""
        return Path(self.files).expanduser().resolve() if self.files else None


def find_channel_flaws(
    channels: ChannelSettings, data: Path, own: dict[str, str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Say which settings would let channels have what is not theirs, and how to mend it.

    ``own`` has, by setting, the references and paths of this installation's own secrets.
    """
    folder = channels.folder
    if folder is not None:
        data = data.resolve()
        if folder.is_relative_to(data) or data.is_relative_to(folder):
            mend = "Name a folder beside it: channels may send what is in there anywhere."
            yield "channels.files", ("is in the data folder, or around it", mend)
    for name, reference in own.items():
        kind, _, where = reference.partition(":")
        path = Path(where if kind == "file" else reference).expanduser()
        is_theirs = (
            where.startswith(NOTICE_PREFIX)
            if kind == "env"
            else folder is not None and reference != "" and path.resolve().is_relative_to(folder)
        )
        if is_theirs:
            mend = f"Keep it apart from {NOTICE_PREFIX}* and channels.files."
            yield name, ("names what channels may send anywhere", mend)
