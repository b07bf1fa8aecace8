"""A gateway in this process: its own slot of the data folder's spool, no socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from pilotage.core.errors import PilotageError
from pilotage.gateway.client import ChainClient
from pilotage.gateway.counters.away import AwayStore
from pilotage.gateway.plane import DataPlane
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.crypto import open_signer
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.resources import Background
from pilotage.runtime.gateway import OpenedPlane, open_plane

MAX_SLOTS = 64
FIRST_LOOK_S = 0.01


@asynccontextmanager
async def open_in_process(
    settings: Settings, folder: DataFolder, api_key: str, ready_within_s: float
) -> AsyncIterator[ChainClient]:
    """Open a data plane on a data folder whose control plane runs elsewhere, and a client of it.

    Raises what :func:`open_plane_in_process` does.
    """
    async with open_plane_in_process(settings, folder, ready_within_s) as plane:
        yield ChainClient(plane, SystemClock(), api_key)


@asynccontextmanager
async def open_plane_in_process(
    settings: Settings, folder: DataFolder, ready_within_s: float, name: str = "python"
) -> AsyncIterator[DataPlane]:
    """Open a data plane in the first free of the slots of a name.

    Raises ``not_ready`` if it has no valid Snapshot in time. Running calls get the drain's time
    when the block ends.
    """
    public_key = open_signer(folder.keys / "snapshot.key").public
    async with AsyncExitStack() as stack:
        opened = _open_free_slot(stack, settings, folder, public_key, name)
        plane = opened.plane
        stack.callback(opened.watcher.settle)
        background = await stack.enter_async_context(Background())
        plane.background = background
        background.start(opened.watcher.run(), "watch")
        background.start(opened.needs.run(), "needs")
        background.start(plane.counters.run(), "counters")
        await _wait_ready(plane, ready_within_s)
        try:
            yield plane
        finally:
            await plane.drain(duration_s(settings.gateway.drain_timeout))
            await plane.counters.leave()


def _open_free_slot(
    stack: AsyncExitStack, settings: Settings, folder: DataFolder, public_key: bytes, name: str
) -> OpenedPlane:
    store = AwayStore() if settings.counters.url == "memory" else None
    for number in range(MAX_SLOTS):
        slot = f"{name}-{number}"
        try:
            return open_plane(stack, settings, folder, slot, public_key, store=store)
        except PilotageError as taken:
            if taken.code != "conflict" or number == MAX_SLOTS - 1:
                raise
    raise AssertionError


async def _wait_ready(plane: DataPlane, within_s: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while problem := plane.find_problem():
        if loop.time() >= end:
            raise PilotageError("not_ready", f"The gateway is not ready: {problem}.")
        await asyncio.sleep(FIRST_LOOK_S)
