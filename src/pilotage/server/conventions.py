"""The conventions of ``/api/v1``, given to every route in one place.

Bearer credential and permission, before anything of the request is read, again when its body has
come, and in each transaction that writes; the project from ``?project=``; ``Idempotency-Key`` on
POST, ETag and ``If-Match`` on PUT and PATCH; pages of 1 to 500 items; a reply to a change waits
until gateways serve it (at most 2 s, then 202 and the name of the slot that is behind).
"""

import hashlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Body, RawReply, RevisedView, Route
from pilotage.kit.db import Actor, Database, Tx
from pilotage.kit.idempotency import (
    KeptReply,
    check_same,
    claim_key,
    interrupt_key,
    keep_reply,
    release_key,
)
from pilotage.server.admission import Admission, admit
from pilotage.server.bodies import check_text, read_json, stream_body

Visibility = Callable[[int], Awaitable[list[str]]]
BEHIND = "pilotage-behind"
DECISION = "pilotage-decision"  # the records of what a request has changed of traffic or stages
MAX_PAGE = 500
_ETAG = re.compile(r'(?:W/)?"?(\d{1,18})"?', re.ASCII)
_WHOLE_NUMBER = Field(ge=0, le=2**63 - 1)
_PAGE_SIZE = Field(ge=1, le=MAX_PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What every route needs: the database, who checks credentials, how to wait for visibility."""

    db: Database
    identity: IdentityService
    wait_visible: Visibility


class AuthorisedCall:
    """One request that may do what it asks.

    The :class:`pilotage.kit.api.ApiCall` of the handlers.
    """

    def __init__(
        self, edge: Edge, request: Request, admission: Admission, expected_rev: int | None
    ) -> None:
        self._edge = edge
        self._request = request
        self._admission = admission
        self.actor: Actor = admission.actor
        self.expected_rev = expected_rev
        self.last_seq = 0
        self.decisions: list[str] = []
        self._read: hashlib._Hash | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """Open a reading transaction in the call's scope."""
        async with self._edge.db.read(self.actor) as tx:
            yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Tx]:
        """Open a writing transaction for whoever may still write; its changes are waited for."""
        async with self._edge.db.write(self.actor) as tx:
            await self._admission.check(tx)
            yield tx
        self.last_seq = max([self.last_seq, *tx.written])
        self.decisions += tx.decisions

    async def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body; what was read of it is what an ``Idempotency-Key`` stands for."""
        if self._read is None:
            self._read = hashlib.sha256()
        async for part in stream_body(self._request):
            self._read.update(part)
            yield part

    async def wait_gone(self) -> None:
        """Wait until the caller has hung up."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    async def require(self, permission: str, *, is_global: bool = False) -> None:
        """Raise ``permission_denied`` unless the caller also holds this permission."""
        project_id = None if is_global else self.actor.project_id
        async with self._edge.db.read(self.actor) as tx:
            await self._edge.identity.authorise(tx, self.actor.principal_id, permission, project_id)

    async def check_again(self) -> None:
        """Raise unless the caller would be let in now."""
        await self._admission.check_now()

    @property
    def body_sha256(self) -> str:
        """The hex SHA-256 of the raw body as far as it was read; empty if nobody asked for it."""
        return "" if self._read is None else self._read.hexdigest()


def make_route_class(edge: Edge, route: Route) -> type[APIRoute]:
    """Return the class of a route that admits a request before it reads its body."""
    has_json = any(_is_body(parameter) for parameter in _list_own(route))

    class AuthorisedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def take(request: Request) -> Response:
                call = request.state.call = await _authorise(edge, route, request)
                if has_json:
                    request = await read_json(request)
                    await call.check_again()
                return await answer(request)

            return take

    return AuthorisedRoute


def make_endpoint(edge: Edge, route: Route) -> Callable[..., Awaitable[Response]]:
    """Return the FastAPI endpoint of a route: its handler within the conventions."""

    async def endpoint(request: Request, project: str = "", **arguments: Any) -> Response:  # noqa: ANN401, ARG001 - the project is in the call
        call: AuthorisedCall = request.state.call
        for name, value in arguments.items():
            check_text(value, "" if isinstance(value, BaseModel) else name)
        key = request.headers.get("idempotency-key") if route.method == "POST" else None
        if key is None:
            return await _respond(edge, route, call, arguments)
        return await _respond_once(edge, route, call, arguments, key)

    _describe(endpoint, route)
    return endpoint


async def _authorise(edge: Edge, route: Route, request: Request) -> AuthorisedCall:
    admission = await admit(
        edge.db, edge.identity, request, route.permission, is_global=route.is_global
    )
    return AuthorisedCall(edge, request, admission, _read_if_match(route, request))


def _read_if_match(route: Route, request: Request) -> int | None:
    if route.method not in ("PUT", "PATCH"):
        return None
    wanted = request.headers.get("if-match")
    if wanted is None:
        raise PilotageError(
            "precondition_required",
            "This needs If-Match: the ETag of what was read, or * to overwrite.",
            hint="GET the object first and send its ETag.",
        )
    if wanted == "*":
        return None
    tag = _ETAG.fullmatch(wanted)
    if tag is None:
        raise PilotageError("precondition_failed", f"{wanted[:80]!r} is no ETag of this API.")
    return int(tag[1])


def make_raw_response(reply: RawReply) -> Response:
    """Return the response of bytes, or of a file that is streamed."""
    if isinstance(reply.body, Path):
        return FileResponse(reply.body, reply.status, media_type=reply.media_type)
    return Response(reply.body, reply.status, media_type=reply.media_type if reply.body else None)


async def _respond(
    edge: Edge, route: Route, call: AuthorisedCall, arguments: dict[str, Any]
) -> Response:
    result = await route.handler(call, **arguments)
    if isinstance(result, RawReply):
        return make_raw_response(result)
    status, headers = route.status, {}
    if call.last_seq:
        behind = await edge.wait_visible(call.last_seq)
        if behind:
            status = 202
            headers[BEHIND] = ",".join(behind)
    if call.decisions:
        headers[DECISION] = ",".join(call.decisions)
    if isinstance(result, RevisedView):
        headers["etag"] = f'"{result.rev}"'
    body = result.model_dump_json().encode() if isinstance(result, BaseModel) else b""
    media_type = "application/json" if body else None
    return Response(body, status if body or status != 202 else 204, headers, media_type)


async def _respond_once(
    edge: Edge, route: Route, call: AuthorisedCall, arguments: dict[str, Any], key: str
) -> Response:
    asked = f"{route.method} {route.path} {call.actor.project_id} {_plain(arguments)}".encode()
    async with edge.db.write(call.actor) as tx:
        kept = await claim_key(tx, key, asked)
    if kept is not None:
        return await _replay(route, call, kept)
    try:
        response = await _respond(edge, route, call, arguments)
    except BaseException:
        async with edge.db.write(call.actor) as tx:
            await (interrupt_key if call.last_seq else release_key)(tx, key)
        raise
    body = _without(bytes(response.body), route.secrets)
    async with edge.db.write(call.actor) as tx:
        await keep_reply(tx, key, response.status_code, body, call.body_sha256)
    return response


async def _replay(route: Route, call: AuthorisedCall, kept: KeptReply) -> Response:
    if kept.body_sha256:
        async for _ in call.body():
            pass
        check_same(kept, call.body_sha256)
    headers = {"idempotent-replayed": "true"}
    shown = inspect.signature(route.handler, eval_str=True).return_annotation
    if isinstance(shown, type) and issubclass(shown, RevisedView):
        headers["etag"] = f'"{msgspec.json.decode(kept.body)["rev"]}"'
    media_type = "application/json" if kept.body else None
    return Response(kept.body, kept.status, headers, media_type)


def _without(body: bytes, secrets: tuple[str, ...]) -> str:
    if not secrets:
        return body.decode()
    content = msgspec.json.decode(body)
    return msgspec.json.encode(content | dict.fromkeys(secrets)).decode()


def _plain(arguments: dict[str, Any]) -> str:
    plain = {
        k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v
        for k, v in arguments.items()
    }
    return msgspec.json.encode(plain, order="deterministic").decode()


def _list_own(route: Route) -> list[inspect.Parameter]:
    """Return the parameters of a route's handler behind the call."""
    return list(inspect.signature(route.handler, eval_str=True).parameters.values())[1:]


def _is_body(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Body)


def _bound(parameter: inspect.Parameter) -> inspect.Parameter:
    """Keep numbers in paths and queries within what every database can count."""
    if parameter.annotation not in (int, int | None):
        return parameter
    bound = _PAGE_SIZE if parameter.name == "limit" else _WHOLE_NUMBER
    return parameter.replace(annotation=Annotated[parameter.annotation, bound])


def _describe(endpoint: Callable[..., Awaitable[Response]], route: Route) -> None:
    """Give an endpoint the handler's parameters, name and text, for FastAPI to read."""
    request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    scope = inspect.Parameter(
        "project",
        inspect.Parameter.KEYWORD_ONLY,
        default=Query("default", description="The project, by name or id."),
        annotation=str,
    )
    parameters = [request, *([] if route.is_global else [scope])]
    own = [_bound(parameter) for parameter in _list_own(route)]
    parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__name__ = route.handler.__name__
    endpoint.__doc__ = route.handler.__doc__
