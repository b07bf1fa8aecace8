"""Routes that FastAPI reads when they are first asked for.

FastAPI takes a millisecond or more for the signature and the models of a route. A server has
hundreds of them and a command asks one, so what a route is made of waits for its first request, or
for the OpenAPI document.
"""

from collections.abc import Callable
from functools import cached_property

from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send


class DeferredRoute(Route):
    """A route of which only path and method are known before ``make`` is called, once."""

    def __init__(self, path: str, method: str, make: Callable[[], APIRoute]) -> None:
        super().__init__(path, Response, methods=[method])
        self.methods = {method}  # Starlette's own answers HEAD where there is a GET
        self._make = make

    @cached_property
    def made(self) -> APIRoute:
        """The whole route."""
        return self._make()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say as the whole route does whether a request is for it."""
        found, _ = super().matches(scope)
        return (found, {}) if found is Match.NONE else self.made.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that matches."""
        await self.made.handle(scope, receive, send)
