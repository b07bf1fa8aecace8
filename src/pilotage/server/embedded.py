"""The control plane in this process, for commands and programs when no server runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.runtime.installation import open_installation
from pilotage.server.app import make_app


@asynccontextmanager
async def open_embedded(settings: Settings, folder: DataFolder) -> AsyncIterator[FastAPI]:
    """Run the control plane of a data folder that this process holds."""
    async with open_installation(settings, folder, SystemClock(), AbsentFleet()) as installation:
        yield make_app(installation)
