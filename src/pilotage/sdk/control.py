"""The control API from Python: over TCP to a live server, or in process when none runs.

``async with open_control(settings) as control`` finds the server of the data folder; without one it
takes the folder's lock and runs the control plane in this process for as long as the block lasts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.runtime.credentials import read_credentials

TIMEOUT_S = 30.0
POLL_S = 0.1
Watch = Callable[[dict[str, Any]], None]


class ControlClient:
    """Calls of ``/api/v1``; errors come back as the :class:`PilotageError` they are."""

    def __init__(self, http: httpx.AsyncClient, *, is_live: bool) -> None:
        self._http = http
        self.is_live = is_live

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """Read an object."""
        return await self._call("GET", path, query)

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

        Return its result or raise its error.
        """
        try:
            while operation["state"] == "running":
                watch(operation)
                await asyncio.sleep(POLL_S)
                operation = await self.get(f"/operations/{operation['id']}")
        except asyncio.CancelledError:
            await self.post(f"/operations/{operation['id']}:cancel")
            raise
        watch(operation)
        if operation["state"] == "succeeded":
            return dict(operation["result"] or {})
        error = operation["error"] or {
            "code": "cancelled",
            "detail": "It was cancelled.",
            "hint": "",
        }
        raise _error(error)

    async def _call(
        self, method: str, path: str, query: dict[str, object], **more: Any
    ) -> dict[str, Any]:
        params = {name: str(value) for name, value in query.items() if value is not None}
        try:
            response = await self._http.request(method, f"/api/v1{path}", params=params, **more)
        except httpx.HTTPError as failed:
            raise PilotageError(
                "unavailable",
                f"The control plane does not answer: {failed}.",
                hint="See: pilotage doctor",
            ) from None
        if response.is_error:
            raise _error(response.json())
        return dict(response.json()) if response.content else {}


def _error(problem: dict[str, Any]) -> PilotageError:
    code = problem.get("code", "internal_error")
    known = code if code in CATALOGUE else "internal_error"
    return PilotageError(
        known, problem.get("detail", ""), hint=problem.get("hint", ""), param=problem.get("param")
    )


@asynccontextmanager
async def open_control(
    settings: Settings, project: str = "default"
) -> AsyncIterator[ControlClient]:
    """Open a client of the data folder's control plane, in process if no server runs."""
    folder = DataFolder(settings.data_path)
    server = folder.find_server()
    if server is not None:
        async with _connect(folder, project, base_url=server.control_url) as http:
            yield ControlClient(http, is_live=True)
        return
    from pilotage.server.embedded import (
        open_embedded,
    )  # FastAPI and SQL, which a client of a live server does without

    async with (
        open_embedded(settings, folder) as app,
        _connect(
            folder, project, base_url="http://pilotage", transport=httpx.ASGITransport(app=app)
        ) as http,
    ):
        yield ControlClient(http, is_live=False)


def _connect(folder: DataFolder, project: str, **more: Any) -> httpx.AsyncClient:  # noqa: ANN401
    credentials = read_credentials(folder.credentials)
    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {credentials.admin}"},
        params={"project": project},
        timeout=TIMEOUT_S,
        trust_env=False,
        **more,
    )
