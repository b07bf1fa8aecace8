"""Routes between programs: the same authorisation, then bytes in and bytes out."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import Request, Response

from pilotage.kit.api import RawRoute
from pilotage.kit.db import Actor, Tx
from pilotage.server.conventions import Edge, admit, make_raw_response


class AuthorisedRawCall:
    """The :class:`pilotage.kit.api.RawCall` of the handlers."""

    def __init__(self, edge: Edge, request: Request, actor: Actor) -> None:
        self._edge = edge
        self._request = request
        self.actor = actor

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path."""
        return self._request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters behind the question mark."""
        return self._request.query_params

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """Open a reading transaction."""
        async with self._edge.db.read(self.actor) as tx:
            yield tx

    async def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body."""
        async for part in self._request.stream():
            yield part


def make_raw_endpoint(edge: Edge, route: RawRoute) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a raw route."""

    async def endpoint(request: Request) -> Response:
        actor = await admit(edge, request, route.permission, is_global=route.is_global)
        call = AuthorisedRawCall(edge, request, actor)
        return make_raw_response(await route.handler(call))

    return endpoint
