"""The control API from Python: over TCP to a live server, or in process when none runs.

``async with open_control(settings) as control`` finds the server of the data folder; without one it
takes the folder's lock and runs the control plane in this process for as long as the block lasts.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.kit.config import Settings, resolve_secret
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.runtime.credentials import read_credentials
from pilotage.sdk.planes import open_plane, share_plane

if TYPE_CHECKING:  # imported when a client is opened: a command that opens none starts faster
    import httpx

TIMEOUT_S = 30.0
POLL_S = 0.1  # between looks at an operation
NOWHERE = "http://pilotage"  # of a plane in this process
Watch = Callable[[dict[str, Any]], None]


class ControlClient:
    """Calls of ``/api/v1``; errors come back as the :class:`PilotageError` they are."""

    def __init__(self, http: "httpx.AsyncClient", *, is_live: bool) -> None:
        self._http = http
        self.is_live = is_live
        self.decisions: list[str] = []  # the records of what this client has changed

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """Read an object."""
        return await self._call("GET", path, query)

    async def find(self, path: str, **query: object) -> dict[str, Any] | None:
        """Read an object; None if it is not there."""
        try:
            return await self.get(path, **query)
        except PilotageError as missing:
            if missing.code == "not_found":
                return None
            raise

    async def post(self, path: str, body: object = None, **query: object) -> dict[str, Any]:
        """Create something or do something."""
        return await self._call("POST", path, query, json=body)

    async def put(
        self, path: str, body: object, rev: int | None = None, **query: object
    ) -> dict[str, Any]:
        """Replace something; ``rev`` is the revision that was read, None overwrites any."""
        return await self._call(
            "PUT", path, query, json=body, headers={"if-match": "*" if rev is None else f'"{rev}"'}
        )

    async def delete(self, path: str, **query: object) -> dict[str, Any]:
        """Delete an object."""
        return await self._call("DELETE", path, query)

    async def upload(
        self, path: str, content: AsyncIterator[bytes], **query: object
    ) -> dict[str, Any]:
        """Send a raw body."""
        return await self._call("POST", path, query, content=content, timeout=None)

    async def download(self, path: str, **query: object) -> bytes:
        """Return what a route for programs sends: bytes of its own kind."""
        response = await self._send("GET", path, query)
        if not response.is_success:
            _read(response)
        return response.content

    async def stream(self, path: str, **query: object) -> AsyncIterator[bytes]:
        """Iterate over the bytes that a route sends, in parts."""
        import httpx

        params = {name: _text(value) for name, value in query.items()}
        try:
            async with self._http.stream("GET", f"/api/v1{path}", params=params) as response:
                if not response.is_success:
                    await response.aread()
                    _read(response)
                async for part in response.aiter_bytes():
                    yield part
        except httpx.HTTPError as failed:
            raise _away(failed) from None

    async def list(self, path: str, **query: object) -> AsyncIterator[dict[str, Any]]:
        """Iterate over every item of a list, page by page."""
        after: str | None = ""
        while after is not None:
            page = await self.get(path, **query | ({"after": after} if after else {}))
            for item in page["items"]:
                yield item
            after = page["next"]

    async def finish(
        self, operation: dict[str, Any], watch: Watch = lambda _: None
    ) -> dict[str, Any]:
        """Wait for an operation, telling ``watch`` each state of it.

        Return its result or raise its error. Cancelled meanwhile, it cancels the operation.
        """
        try:
            while operation["state"] == "running":
                watch(operation)
                await asyncio.sleep(POLL_S)
                operation = await self.get(f"/operations/{operation['id']}")
        except asyncio.CancelledError:
            with suppress(PilotageError):  # it has ended meanwhile
                await self.post(f"/operations/{operation['id']}:cancel")
            raise
        watch(operation)
        if operation["state"] == "succeeded":
            return dict(operation["result"] or {})
        raise _error(operation["error"] or {"code": "cancelled", "detail": "It was cancelled."})

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        **more: Any,  # noqa: ANN401 - httpx's own
    ) -> dict[str, Any]:
        return _read(await self._send(method, path, query, **more))

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        **more: Any,  # noqa: ANN401 - httpx's own
    ) -> "httpx.Response":
        import httpx

        params = {name: _text(value) for name, value in query.items() if value is not None}
        try:
            reply = await self._http.request(method, f"/api/v1{path}", params=params, **more)
        except httpx.HTTPError as failed:
            raise _away(failed) from None
        self.decisions += filter(None, reply.headers.get("pilotage-decision", "").split(","))
        return reply


def _away(failed: Exception) -> PilotageError:
    return PilotageError(
        "unavailable",
        f"The control plane does not answer: {str(failed) or type(failed).__name__}.",
        hint="It may be starting or stopping: try again, or look: pilotage doctor",
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(response: "httpx.Response") -> dict[str, Any]:
    try:
        content = response.json() if response.content else {}
    except json.JSONDecodeError:
        content = None
    if response.is_success and isinstance(content, dict):
        return content
    if isinstance(content, dict) and "code" in content:
        raise _error(content)
    raise PilotageError(
        "unavailable",
        f"{response.url.netloc.decode()} answers like no control plane (status "
        f"{response.status_code}).",
        hint="Another program may have the port: pilotage doctor",
    )


def _error(problem: dict[str, Any]) -> PilotageError:
    code = problem.get("code", "internal_error")
    known = code if code in CATALOGUE else "internal_error"
    return PilotageError(
        known, problem.get("detail", ""), hint=problem.get("hint", ""), param=problem.get("param")
    )


@asynccontextmanager
async def open_control(
    settings: Settings, project: str = "default", reason: str = ""
) -> AsyncIterator[ControlClient]:
    """Open a client of the data folder's control plane, in process if no server runs.

    ``reason`` is kept with every change that is made through it.
    """
    import httpx

    async with open_plane(settings) as plane:
        is_live = isinstance(plane, ServerInfo)
        url = plane.control_url if isinstance(plane, ServerInfo) else NOWHERE
        transport = None if isinstance(plane, ServerInfo) else httpx.ASGITransport(app=plane)
        async with _make_http(settings, project, reason, url, transport) as http:
            yield ControlClient(http, is_live=is_live)


@asynccontextmanager
async def share_control(
    settings: Settings, project: str = "default", reason: str = "", *, is_served: bool = False
) -> AsyncIterator[ControlClient]:
    """Open a client as :func:`open_control` does, beside others of the same program.

    A data folder has one holder: what the first of them opens in this process serves all of them,
    and closes with the last. ``is_served`` has it be a server with replicas from now on.
    """
    async with share_plane(settings) as plane:
        way = await plane.open(is_served=is_served)
        # not closed: others use the way, too
        http = _make_http(settings, project, reason, NOWHERE, way)
        yield ControlClient(http, is_live=plane.is_live)


def _make_http(
    settings: Settings,
    project: str,
    reason: str,
    url: str,
    transport: "httpx.AsyncBaseTransport | None",
) -> "httpx.AsyncClient":
    import httpx

    headers = {b"authorization": f"Bearer {_find_credential(settings)}".encode()}
    if reason:
        headers[b"x-pilotage-reason"] = " ".join(reason.split()).encode()
    return httpx.AsyncClient(
        base_url=url,
        transport=transport,
        headers=headers,
        params={"project": project},
        timeout=TIMEOUT_S,
        trust_env=False,
    )


def _find_credential(settings: Settings) -> str:
    """Return what commands act with: somebody's own, or else the administrator's."""
    if settings.control.credential:
        return resolve_secret(settings.control.credential).strip()
    return read_credentials(DataFolder(settings.data_path).credentials).admin
