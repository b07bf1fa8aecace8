"""The control plane of a data folder: found where a server runs, else opened in this process.

What a program opens is shared by all that asks for it, for a data folder has one holder. It begins
as a control plane alone; who needs replicas has it become a whole server.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder, FolderLock, ServerInfo
from pilotage.kit.resources import Held

if TYPE_CHECKING:  # imported when something is opened: what opens nothing starts faster
    from fastapi import FastAPI

    from pilotage.sdk.following import FollowingTransport

POLL_S = 0.1
WAIT_S = 10.0  # for another command to give the folder back, or for a server to say where it is


@asynccontextmanager
async def open_plane(settings: Settings) -> "AsyncIterator[ServerInfo | FastAPI]":
    """Find the live server of the data folder, or run its control plane in this process."""
    folder = DataFolder(settings.data_path)
    taken = await _take(folder)
    if isinstance(taken, ServerInfo):
        yield taken
        return
    with taken:
        from pilotage.server.embedded import (
            open_embedded,
        )  # FastAPI and SQL, which a client of a live server does without

        async with open_embedded(settings, folder) as app:
            yield app


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[ServerInfo]:
    """Find the live server of the data folder, or run one on free ports."""
    folder = DataFolder(settings.data_path)
    async with AsyncExitStack() as stack:
        if folder.find_server() is None:
            from pilotage.runtime.supervisor import Supervisor

            replace = msgspec.structs.replace
            settings = replace(
                settings,
                gateway=replace(settings.gateway, port=0),
                control=replace(settings.control, port=0),
            )
            supervisor = Supervisor(settings, folder, SystemClock())
            await stack.enter_async_context(supervisor.run())
        server = folder.find_server()
        if server is None:
            raise PilotageError("unavailable", f"No server of {folder.path} runs any more.")
        yield server


class SharedPlane:
    """The control plane of a folder as this program has it; closes with the last who uses it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: Held[ServerInfo | FastAPI] = Held(partial(open_plane, settings))
        self._opening = asyncio.Lock()
        self._transport: FollowingTransport | None = None
        self.is_live = False

    async def open(self, *, is_served: bool = False) -> "FollowingTransport":
        """Return the way to it, opened now if it is not; ``is_served``: with replicas."""
        async with self._opening:
            plane = await self._held.open()
            self.is_live = isinstance(plane, ServerInfo)
            if self._transport is None:
                from pilotage.sdk.following import FollowingTransport

                self._transport = FollowingTransport(plane)
            if is_served and not self.is_live:
                await self._serve(self._transport)
            return self._transport

    async def close(self) -> None:
        """Close it."""
        try:
            if self._transport is not None:
                await self._transport.aclose()
        finally:
            await self._held.close()

    async def _serve(self, transport: "FollowingTransport") -> None:
        """Give the folder back and have a server take it, while nobody asks for anything."""
        async with transport.moving():
            await self._held.close()
            self._held = Held(partial(run_server, self._settings))
            try:
                plane = await self._held.open()
            except BaseException:
                self._held = Held(partial(open_plane, self._settings))
                await transport.follow(await self._held.open())
                raise
            await transport.follow(plane)
            self.is_live = True


@asynccontextmanager
async def share_plane(settings: Settings) -> AsyncIterator[SharedPlane]:
    """Use the plane of a folder beside others of the same program."""
    planes = _PLANES.setdefault(asyncio.get_running_loop(), {})
    key = settings.data_path.absolute()
    plane, users = planes.get(key) or (SharedPlane(settings), 0)
    planes[key] = plane, users + 1
    try:
        yield plane
    finally:
        plane, users = planes.pop(key)
        if users > 1:
            planes[key] = plane, users - 1
        else:
            await plane.close()


_PLANES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, tuple[SharedPlane, int]]] = (
    WeakKeyDictionary()
)


async def _take(folder: DataFolder) -> ServerInfo | FolderLock:
    """Return who serves the folder, or its lock.

    Another command gets a while to give it back, and a server to say where it is and, at its first
    start, to make the credentials.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while True:
        is_late = loop.time() >= end
        server = folder.find_server()
        if server is not None and (is_late or folder.credentials.exists()):
            return server
        try:
            holder = ServerInfo(pid=os.getpid(), started_at_us=SystemClock().now_us())
            return folder.prepare().acquire(holder)
        except PilotageError as refused:
            if refused.code != "conflict" or is_late:
                raise
        await asyncio.sleep(POLL_S)
