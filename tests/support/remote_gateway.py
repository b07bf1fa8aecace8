"""A gateway that runs apart, as a user runs it: ``pilotage gateway`` on a folder of its own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from gateway_harness import BYTECODE, until
from pilotage.kit.data_folder import DataFolder
from system import System

START_S = 30.0


class Remote:
    """``pilotage gateway`` as a child process."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.folder = DataFolder(path)
        self.environment = {
            **BYTECODE,
            "PILOTAGE_DATA_DIR": str(path),
            "PILOTAGE_GATEWAY_PORT": "0",
            **environment,
        }
        self.log = path.parent / f"{path.name}.log"
        self.process: Process | None = None

    async def start(self, *, wait_ready: bool = True) -> None:
        """Start it and wait until it listens, and is ready."""
        await self.run()
        await until(lambda: self.gateway_url != "", "the gateway", START_S)
        if wait_ready:
            await until(lambda: self.ask_ready() == 200, "a ready gateway", START_S)

    async def run(self) -> Process:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pilotage.cli.main",
                "gateway",
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        return self.process

    @property
    def gateway_url(self) -> str:
        """Where it listens, "" while it does not."""
        holder = self.folder.find_holder()
        return holder.gateway_url if holder else ""

    def ask_ready(self) -> int:
        """Return the status of /readyz, 0 without an answer."""
        verify = self.environment.get("TEST_CA", "")
        try:
            reply = httpx.get(f"{self.gateway_url}/readyz", trust_env=False, verify=verify or True)
        except httpx.HTTPError:
            return 0
        return reply.status_code

    def http(self, secret: str) -> httpx.AsyncClient:
        """Return a client of the gateway."""
        return httpx.AsyncClient(
            base_url=self.gateway_url,
            headers={"authorization": f"Bearer {secret}"},
            timeout=30,
            trust_env=False,
        )

    def gateways(self) -> list[psutil.Process]:
        """Return the gateway processes."""
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [c for c in children if "pilotage.runtime.gateway" in " ".join(c.cmdline())]
        except psutil.NoSuchProcess:
            return []

    async def kill(self) -> None:
        """kill -9 of the parent; its children die with it."""
        children = self.gateways()
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        await until(lambda: not any(map(is_alive, children)), "the end of all children")

    async def stop(self, patience_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), patience_s)


@asynccontextmanager
async def running_remote(
    path: Path, system: System, name: str, **environment: str
) -> AsyncIterator[Remote]:
    """Run a gateway apart from an installation for the length of a block."""
    remote = await make_remote(path, system, name, **environment)
    try:
        await remote.start()
        yield remote
    finally:
        if remote.process is not None and remote.process.returncode is None:
            code = await remote.stop()
            assert code == 0, f"pilotage gateway ended with {code}: {remote.log.read_text()}"


async def make_remote(path: Path, system: System, name: str, **environment: str) -> Remote:
    """Create a gateway at an installation; return it with its credential, not started."""
    async with system.control() as control:
        made = await control.post("/gateways", {"name": name})
    credential = path.parent / f"{name}.credential"
    credential.write_text(made["secret"])
    return Remote(
        path,
        PILOTAGE_REMOTE_CONTROL_URL=system.server.control_url,
        PILOTAGE_REMOTE_CREDENTIAL=f"file:{credential}",
        PILOTAGE_REMOTE_PUBLIC_KEY=made["public_key"],
        **environment,
    )


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
