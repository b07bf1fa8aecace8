"""The control plane in this process, for commands and programs when no server runs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.runtime.installation import open_installation
from pilotage.server.app import make_app


@asynccontextmanager
async def open_embedded(settings: Settings, folder: DataFolder) -> AsyncIterator[FastAPI]:
    """Hold the data folder and run its control plane for as long as the block lasts."""
    clock = SystemClock()
    folder.prepare()
    with folder.acquire(ServerInfo(pid=os.getpid(), started_at_us=clock.now_us())):
        async with open_installation(settings, folder, clock, AbsentFleet()) as installation:
            yield make_app(installation)
