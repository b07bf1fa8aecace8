"""How the classes of the Python API reach the control API: opened by the first call, then held."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from pilotage.kit.resources import Held

if TYPE_CHECKING:
    from pilotage.sdk.control import ControlClient


def hold_control(
    project_id: str, data_dir: str | None, reason: str, *, makes_project: bool = True
) -> "Held[ControlClient]":
    """Return a client of a project that is opened when it is first asked for.

    ``data_dir`` is the data folder, None for that of the settings; ``reason`` is kept with every
    change. A project that is not there is made, unless ``makes_project`` is false.
    """
    return Held(lambda: _open(project_id, data_dir, reason, makes_project=makes_project))


async def make_project(control: "ControlClient", project_id: str) -> None:
    """Make a project, unless it is there."""
    if await control.find(f"/projects/{quote(project_id, safe='')}") is None:
        await control.post("/projects", {"name": project_id})


@asynccontextmanager
async def _open(
    project_id: str, data_dir: str | None, reason: str, *, makes_project: bool
) -> "AsyncIterator[ControlClient]":
    from pilotage.kit.config import load_settings
    from pilotage.sdk.control import share_control

    settings = load_settings()
    if data_dir is not None:
        settings = msgspec.structs.replace(settings, data_dir=str(Path(data_dir)))
    async with share_control(settings, project_id, reason) as control:
        if makes_project:
            await make_project(control, project_id)
        yield control
