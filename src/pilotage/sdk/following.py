"""A transport that follows a control plane: in this process first, behind a socket later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from pilotage.kit.data_folder import ServerInfo

if TYPE_CHECKING:
    from fastapi import FastAPI

    Plane = ServerInfo | FastAPI


class FollowingTransport(httpx.AsyncBaseTransport):
    """Sends every request to wherever the plane is now; ``moving`` lets nobody ask meanwhile."""

    def __init__(self, plane: "Plane") -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stands = asyncio.Event()
        self._stands.set()
        self._transport, self._url = _point(plane)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, once the plane stands."""
        while not self._stands.is_set():  # it may move again before this task runs
            await self._stands.wait()
        self._running += 1
        self._idle.clear()
        try:
            if self._url is not None:
                where = {"scheme": self._url.scheme, "host": self._url.host, "port": self._url.port}
                request.url = request.url.copy_with(**where)
                request.headers["host"] = self._url.netloc.decode()
            return await self._transport.handle_async_request(request)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Wait for running requests and hold new ones up until :meth:`follow` was called."""
        self._stands.clear()
        try:
            await self._idle.wait()
            yield
        finally:
            self._stands.set()

    async def follow(self, plane: "Plane") -> None:
        """Send requests to another plane from now on."""
        before = self._transport
        self._transport, self._url = _point(plane)
        await before.aclose()

    async def aclose(self) -> None:
        """Close what is open."""
        await self._transport.aclose()


def _point(plane: "Plane") -> tuple[httpx.AsyncBaseTransport, httpx.URL | None]:
    if isinstance(plane, ServerInfo):
        return httpx.AsyncHTTPTransport(trust_env=False), httpx.URL(plane.control_url)
    return httpx.ASGITransport(app=plane), None
