"""A whole installation as a user runs it: ``pilotage up`` on its own folder and free ports."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from gateway_harness import BYTECODE, until
from pilotage.kit.blobs_file import read_file
from pilotage.kit.config import load_settings
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.runtime.credentials import Credentials, read_credentials
from pilotage.sdk.control import ControlClient, open_control

START_S = 30.0
Answer = TypeVar("Answer")


class System:
    """``pilotage up --bare`` as a child process."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.folder = DataFolder(path)
        self.environment = {
            **BYTECODE,
            "PILOTAGE_DATA_DIR": str(path),
            "PILOTAGE_GATEWAY_PORT": "0",
            "PILOTAGE_CONTROL_PORT": "0",
            "PILOTAGE_ENGINE_CONTEXT_TOKENS": "2048",
            **environment,
        }
        self.process: Process | None = None

    async def start(self) -> None:
        """Start it and wait until the gateway is ready."""
        self.process = await self.run("up", "--bare")
        await until(lambda: self._server() is not None, "the server", START_S)
        await self.wait_ready()

    async def run(self, *arguments: str) -> Process:
        """Start a pilotage command in the environment of this installation."""
        with (self.folder.path.parent / f"{self.folder.path.name}.{arguments[0]}.log").open(
            "ab"
        ) as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pilotage.cli.main",
                *arguments,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    @property
    def server(self) -> ServerInfo:
        """Who serves the folder."""
        found = self._server()
        assert found is not None, "no server"
        return found

    @property
    def credentials(self) -> Credentials:
        """The credentials of the first start."""
        return read_credentials(self.folder.credentials)

    def http(self, secret: str | None = None) -> httpx.AsyncClient:
        """Return a client of the gateway."""
        return httpx.AsyncClient(
            base_url=self.server.gateway_url,
            headers={"authorization": f"Bearer {secret or self.credentials.api_key}"},
            timeout=60,
            trust_env=False,
        )

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ControlClient]:
        """Open a client of the control API."""
        async with open_control(load_settings(None, self.environment)) as control:
            yield control

    async def wait_ready(self) -> None:
        """Wait until the gateway says that it is ready."""

        def is_ready() -> bool:
            try:
                return (
                    httpx.get(f"{self.server.gateway_url}/readyz", trust_env=False).status_code
                    == 200
                )
            except httpx.HTTPError:
                return False

        await until(is_ready, "a ready gateway", START_S)

    async def wait_served(self, name: str) -> None:
        """Wait until every deployment of an endpoint is ready."""
        async with self.control() as control:
            await poll(
                lambda: control.get(f"/endpoints/{name}"),
                lambda reply: all(item["state"] == "ready" for item in reply["deployments"]),
            )

    def children(self, module: str = "") -> list[psutil.Process]:
        """Return the processes of the supervisor, or those that run a module."""
        assert self.process is not None
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in found if module in " ".join(child.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def child(self, module: str) -> psutil.Process:
        """Return the one process that runs a module."""
        (found,) = self.children(module)
        return found

    async def replaced(self, old: psutil.Process, module: str) -> psutil.Process:
        """Wait until a killed process has a successor."""
        await until(
            lambda: any(child.pid != old.pid for child in self.children(module)), f"a new {module}"
        )
        return next(child for child in self.children(module) if child.pid != old.pid)

    async def stop(self, patience_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), patience_s)

    def _server(self) -> ServerInfo | None:
        return self.folder.find_server()


@asynccontextmanager
async def running(path: Path, **environment: str) -> AsyncIterator[System]:
    """Run an installation for the length of a block."""
    system = System(path, **environment)
    try:
        await system.start()
        yield system
    finally:
        if system.process is not None and system.process.returncode is None:
            code = await system.stop()
            assert code == 0, f"pilotage up ended with {code}"


async def add_model(control: ControlClient, gguf: Path, name: str, version: str) -> str:
    """Upload a file and make it a version of a model; return NAME@VERSION."""
    artifact = await control.upload("/artifacts", read_file(gguf))
    try:
        await control.post("/models", {"name": name})
    except Exception as there:
        if getattr(there, "code", "") != "already_exists":
            raise
    body = {"version": version, "artifact_sha256": artifact["sha256"], "license": "CC0-1.0"}
    await control.post(f"/models/{name}/versions", body)
    return f"{name}@{version}"


async def serve(control: ControlClient, endpoint: str, *models: str) -> None:
    """Make an endpoint with a price and deploy versions on it, the first one with all traffic."""
    await control.post("/endpoints", {"name": endpoint})
    for name in {model.partition("@")[0] for model in models}:
        await control.post("/prices", {"subject": name, "input": "0.5", "output": "1.5"})
    for model in models:
        await control.finish(
            await control.post(f"/endpoints/{endpoint}/deployments", {"model": model})
        )


def ask(model: str, text: str = "hello", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a chat request."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        **more,
    }


async def poll(
    ask_again: Callable[[], Awaitable[Answer]],
    is_enough: Callable[[Answer], bool],
    patience_s: float = START_S,
) -> Answer:
    """Ask again and again until the answer is the one waited for."""
    end = asyncio.get_running_loop().time() + patience_s
    while not is_enough(answer := await ask_again()):
        assert asyncio.get_running_loop().time() < end, f"still {answer} after {patience_s:g} s"
        await asyncio.sleep(0.05)
    return answer
