"""Routes that FastAPI reads when they are first asked for.

FastAPI takes about 3 ms for the signature and the models of a route. A server has hundreds of them
and a command asks one, so what a route is made of waits for its first request, or for the OpenAPI
document.
"""

from collections.abc import Callable
from functools import cached_property

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, compile_path, get_route_path
from starlette.types import Receive, Scope, Send


class DeferredRoute(BaseRoute):
    """A route of which only path and method are known before ``make`` is called, once."""

    def __init__(self, path: str, method: str, make: Callable[[], APIRoute]) -> None:
        self.path = path
        self.methods = {method}
        self.path_regex, _, _ = compile_path(path)
        self._make = make

    @cached_property
    def made(self) -> APIRoute:
        """The whole route."""
        return self._make()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say as :class:`APIRoute` does whether a request is for this route."""
        if scope["type"] != "http" or not self.path_regex.match(get_route_path(scope)):
            return Match.NONE, {}
        return self.made.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that matches."""
        await self.made.handle(scope, receive, send)
