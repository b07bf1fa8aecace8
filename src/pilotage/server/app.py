"""Assembly of the control plane's application; the one place where its errors become replies."""

import inspect
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute

import pilotage
from pilotage.core.errors import PilotageError
from pilotage.kit.api import RawReply, Route
from pilotage.runtime.installation import Installation
from pilotage.server.conventions import Edge, make_endpoint, make_route_class
from pilotage.server.deferred import DeferredRoute
from pilotage.server.raw import make_raw_endpoint

PREFIX = "/api/v1"
_LOG = logging.getLogger("pilotage.server")
_PROBLEM_TYPE = "application/problem+json"
_PROBLEM = {_PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ANY_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any error", "content": _PROBLEM}
}
_STATUS_CODES = {
    400: "invalid_json",  # what FastAPI says of a body that it cannot even decode
    404: "unknown_url",
    405: "method_not_allowed",
}


class Problem(BaseModel):
    """An error after RFC 9457; ``code`` is from the catalogue."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    param: str | None = None


def make_app(installation: Installation) -> FastAPI:
    """Return the application of an installation that is open."""
    edge = Edge(
        db=installation.db,
        identity=installation.identity,
        wait_visible=installation.wait_visible,
    )
    app = FastAPI(
        title="Pilotage control API",
        version=pilotage.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
    )
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    app.router.routes += [_defer(edge, route) for route in installation.routes]
    for raw in installation.raw_routes:
        app.router.add_route(
            PREFIX + raw.path, make_raw_endpoint(edge, raw), [raw.method], include_in_schema=False
        )
    for page in installation.pages:
        app.router.add_route(
            page.path, make_raw_endpoint(edge, page), [page.method], include_in_schema=False
        )
    app.add_api_route("/healthz", _answer_health, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(PilotageError, _answer_expected)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_broken)
    return app


def _defer(edge: Edge, route: Route) -> DeferredRoute:
    path = PREFIX + route.path

    def make() -> APIRoute:
        return make_route_class(edge, route)(
            path,
            make_endpoint(edge, route),
            methods=[route.method],
            status_code=route.status,
            response_model=None,
            responses=_ANY_ERROR | _describe_reply(route),
            openapi_extra={"x-pilotage-permission": route.permission},
            operation_id=f"{route.method.lower()}_{route.handler.__name__}",
            tags=[route.permission.partition(".")[0]],
        )

    return DeferredRoute(path, route.method, make)


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the shape of every error."""
    if app.openapi_schema is None:
        routes = [route.made for route in app.routes if isinstance(route, DeferredRoute)]
        document = get_openapi(title=app.title, version=app.version, routes=routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        app.openapi_schema = document
    return app.openapi_schema


def _describe_reply(route: Route) -> dict[int | str, dict[str, Any]]:
    shown = inspect.signature(route.handler, eval_str=True).return_annotation
    if shown is None or shown is inspect.Signature.empty:
        return {}
    if shown is RawReply:
        return {route.status: {"description": "The bytes", "content": {"*/*": {}}}}
    return {route.status: {"model": shown}}


async def _answer_health() -> dict[str, str]:
    return {"status": "ok", "version": pilotage.__version__}


async def _answer_expected(_: Request, error: Exception) -> Response:
    if not isinstance(error, PilotageError):
        raise error
    return _render(error)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _render(
            PilotageError("invalid_json", f"The body is not valid JSON: {first['ctx']['error']}.")
        )
    place = [str(part) for part in first["loc"]]
    param = ".".join(place[1:] or place).encode("utf-8", "backslashreplace").decode()
    return _render(PilotageError("invalid_request", f"{param}: {first['msg']}.", param=param))


async def _answer_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _STATUS_CODES.get(error.status_code, "invalid_request")
    response = _render(PilotageError(code, str(error.detail)))
    if error.status_code == 405:
        response.headers["allow"] = ", ".join(_list_methods(request))
    return response


def _list_methods(request: Request) -> list[str]:
    path = request.url.path
    routes = [r for r in request.app.routes if isinstance(r, StarletteRoute)]
    return sorted(
        {m for route in routes if route.path_regex.match(path) for m in route.methods or ()}
    )


async def _answer_broken(request: Request, error: Exception) -> Response:
    _LOG.error("a control request broke: %s %s", request.method, request.url.path, exc_info=error)
    return _render(PilotageError("internal_error"))


def _render(error: PilotageError) -> Response:
    problem = Problem(
        type=f"urn:pilotage:error:{error.code}",
        title=error.spec.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        hint=error.hint,
        param=error.param,
    )
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if error.code == "request_timeout":
        headers["connection"] = "close"  # the rest of the body may follow
    return Response(problem.model_dump_json(), error.status, headers, _PROBLEM_TYPE)
