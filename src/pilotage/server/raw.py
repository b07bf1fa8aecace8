"""Routes between programs: the same authorisation, then bytes in and bytes out."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import Request, Response

from pilotage.kit.api import RawRoute
from pilotage.kit.db import Actor, Tx
from pilotage.server.admission import Admission, admit
from pilotage.server.bodies import stream_body
from pilotage.server.conventions import Edge, make_raw_response


class AuthorisedRawCall:
    """The :class:`pilotage.kit.api.RawCall` of the handlers."""

    def __init__(self, edge: Edge, request: Request, admission: Admission) -> None:
        self._edge = edge
        self._request = request
        self._admission = admission
        self.actor: Actor = admission.actor

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
        """Stream the raw body of whoever would still be let in at its end."""
        async for part in stream_body(self._request):
            yield part
        await self._admission.check_now()


def make_raw_endpoint(edge: Edge, route: RawRoute) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a raw route."""

    async def endpoint(request: Request) -> Response:
        admission = await admit(
            edge.db, edge.identity, request, route.permission, is_global=route.is_global
        )
        call = AuthorisedRawCall(edge, request, admission)
        return make_raw_response(await route.handler(call))

    return endpoint
