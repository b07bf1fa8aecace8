"""The conventions of ``/api/v1``, given to every route in one place.

Bearer credential and permission; the project from ``?project=``; ``Idempotency-Key`` on POST, ETag
and ``If-Match`` on PUT and PATCH; a reply to a change waits until gateways serve it (at most 2 s,
then 202 and the name of the slot that is behind).
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Query, Request, Response
from pydantic import BaseModel

from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.api import RevisedView, Route
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.idempotency import KeptReply, claim_key, keep_reply, release_key

Visibility = Callable[[int], Awaitable[list[str]]]
BEHIND = "pilotage-behind"


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
        self, edge: Edge, request: Request, actor: Actor, expected_rev: int | None
    ) -> None:
        self._edge = edge
        self._request = request
        self.actor = actor
        self.expected_rev = expected_rev
        self.last_seq = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """Open a reading transaction in the call's scope."""
        async with self._edge.db.read(self.actor) as tx:
            yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Tx]:
        """Open a writing transaction; what it changes will be waited for."""
        async with self._edge.db.write(self.actor) as tx:
            yield tx
        self.last_seq = max([self.last_seq, *tx.written])

    def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body."""
        return self._request.stream()


def make_endpoint(edge: Edge, route: Route) -> Callable[..., Awaitable[Response]]:
    """Return the FastAPI endpoint of a route: its handler within the conventions."""

    async def endpoint(request: Request, project: str = "", **arguments: Any) -> Response:  # noqa: ANN401
        call = await _authorise(edge, route, request, project)
        key = request.headers.get("idempotency-key") if route.method == "POST" else None
        if key is None:
            return await _respond(edge, route, call, arguments)
        return await _respond_once(edge, route, call, arguments, key)

    _describe(endpoint, route)
    return endpoint


async def _authorise(edge: Edge, route: Route, request: Request, project: str) -> AuthorisedCall:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    async with edge.db.read(SYSTEM) as tx:
        principal = await edge.identity.authenticate(
            tx, credential.strip() if scheme.lower() == "bearer" else ""
        )
        edge.identity.authorise(principal, route.permission)
        project_id = None if route.is_global else (await edge.identity.get_project(tx, project)).id
    reason = request.headers.get("x-pilotage-reason", "")[:500]
    actor = Actor(principal_id=principal.id, project_id=project_id, reason=reason)
    return AuthorisedCall(edge, request, actor, _read_if_match(route, request))


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
    text = wanted.removeprefix("W/").strip('"')
    if not text.isdigit():
        raise PilotageError("precondition_failed", f"{wanted} is no ETag of this API.")
    return int(text)


async def _respond(
    edge: Edge, route: Route, call: AuthorisedCall, arguments: dict[str, Any]
) -> Response:
    result = await route.handler(call, **arguments)
    status, headers = route.status, {}
    if call.last_seq:
        behind = await edge.wait_visible(call.last_seq)
        if behind:
            status = 202
            headers[BEHIND] = ",".join(behind)
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
        return _replay(kept)
    try:
        response = await _respond(edge, route, call, arguments)
    except BaseException:
        if not call.last_seq:
            async with edge.db.write(call.actor) as tx:
                await release_key(tx, key)
        raise
    async with edge.db.write(call.actor) as tx:
        await keep_reply(
            tx, key, response.status_code, _without(bytes(response.body), route.secrets)
        )
    return response


def _replay(kept: KeptReply) -> Response:
    return Response(kept.body, kept.status, {"idempotent-replayed": "true"}, "application/json")


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


def _describe(endpoint: Callable[..., Awaitable[Response]], route: Route) -> None:
    """Give an endpoint the handler's parameters, name and text, for FastAPI to read."""
    own = list(inspect.signature(route.handler, eval_str=True).parameters.values())[1:]
    request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    scope = inspect.Parameter(
        "project",
        inspect.Parameter.KEYWORD_ONLY,
        default=Query("default", description="The project, by name or id."),
        annotation=str,
    )
    parameters = [request, *([] if route.is_global else [scope])]
    parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__name__ = route.handler.__name__
    endpoint.__doc__ = route.handler.__doc__
