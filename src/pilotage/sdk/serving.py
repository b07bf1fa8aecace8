"""An installation that answers: its control API and its gateway, run here if nobody runs it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.resources import Held
from pilotage.sdk.control import ControlClient
from pilotage.sdk.held import make_project

if TYPE_CHECKING:
    import httpx

DEFAULT = "default"
KEY_LIVES = "12h"
PUBLISHED_WITHIN_S = 15.0  # what is changed reaches gateways within a second or two
LOOK_EVERY_S = 0.05
LONGEST_S = 600.0  # of a prediction, as gateways have it
_NOT_YET = frozenset({"model_not_found", "invalid_api_key", "not_ready", "no_replica"})


class Serving:
    """A project's control API, and its endpoints' predictions."""

    def __init__(self, control: ControlClient, http: "httpx.AsyncClient", secret: str) -> None:
        self.control = control
        self._http = http
        self._secret = secret
        self._made_key = ""

    async def predict(
        self, endpoint: str, instances: Sequence[Any], parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Ask the gateway for predictions; raise what it refuses.

        What was made just now may still be on its way to the gateway, and is waited for.
        """
        body = {"instances": list(instances), "parameters": dict(parameters)}
        loop = asyncio.get_running_loop()
        end = loop.time() + PUBLISHED_WITHIN_S
        while True:
            try:
                return await self._post(f"/v1/endpoints/{quote(endpoint, safe='/:')}:predict", body)
            except PilotageError as refused:
                if refused.code not in _NOT_YET or loop.time() >= end:
                    raise
                await self._check_published(endpoint)
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Revoke the key that was made here, if one was."""
        if self._made_key:
            await self.control.post(f"/keys/{self._made_key}:revoke")

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        import httpx

        if not self._secret:
            self._secret = await self._make_key()
        headers = {"authorization": f"Bearer {self._secret}"}
        try:
            reply = await self._http.post(path, json=body, headers=headers)
            content = reply.json()
        except (httpx.HTTPError, json.JSONDecodeError) as failed:
            raise PilotageError(
                "unavailable",
                f"The gateway does not answer: {str(failed) or type(failed).__name__}.",
            ) from None
        if reply.is_success:
            return dict(content)
        said = content["error"]
        code = said["code"] if said["code"] in CATALOGUE else "internal_error"
        raise PilotageError(code, said["message"], param=said["param"])

    async def _make_key(self) -> str:
        """Make a key of the project's default tenant, which is made where there is none."""
        if await self.control.find(f"/tenants/{DEFAULT}") is None:
            await self.control.post("/tenants", {"name": DEFAULT})
        made = await self.control.post(
            "/keys", {"tenant": DEFAULT, "name": "python", "expires_in": KEY_LIVES}
        )
        self._made_key = made["id"]
        return str(made["secret"])

    async def _check_published(self, endpoint: str) -> None:
        """Raise ``conflict`` where an endpoint is not published, and will not be."""
        found = await self.control.get(f"/endpoints/{quote(endpoint, safe='/:')}")
        snapshot = await self.control.get("/snapshot")
        for item in snapshot["unpublished"]:
            if (item["project_id"], item["name"]) == (found["project_id"], found["name"]):
                raise PilotageError(
                    "conflict",
                    f"{found['name']!r} cannot be called: {item['reason']}.",
                    hint="See: pilotage endpoints show",
                )


def hold_serving(
    project_id: str, data_dir: str | None, reason: str, api_key: str | None
) -> Held[Serving]:
    """Return an installation that is opened when it is first asked for."""
    return Held(lambda: _open(project_id, data_dir, reason, api_key))


@asynccontextmanager
async def _open(
    project_id: str, data_dir: str | None, reason: str, api_key: str | None
) -> AsyncIterator[Serving]:
    import httpx

    from pilotage.kit.config import load_settings
    from pilotage.runtime.credentials import read_credentials
    from pilotage.sdk.control import share_control

    settings = load_settings()
    if data_dir is not None:
        settings = msgspec.structs.replace(settings, data_dir=str(Path(data_dir)))
    folder = DataFolder(settings.data_path)
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(
            share_control(settings, project_id, reason, is_served=True)
        )
        await make_project(control, project_id)
        server = folder.find_server()
        if server is None:
            raise PilotageError("unavailable", f"No server of {folder.path} runs any more.")
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=server.gateway_url, timeout=LONGEST_S, trust_env=False)
        )
        secret = api_key or ""
        if not secret and project_id == DEFAULT:
            secret = read_credentials(folder.credentials).api_key
        serving = Serving(control, http, secret)
        stack.push_async_callback(serving.close)
        yield serving
