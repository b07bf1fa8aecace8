"""Child processes that are kept running: started, heard, started again after a crash, stopped."""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.endpoints.rules import STEADY_S, next_pause_s
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, child_environment, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.process import end
from pilotage.kit.resources import Background
from pilotage.runtime.handover import Handover, NotStarted, log_path, read_event
from pilotage.runtime.logfile import open_log

_LOG = logging.getLogger("pilotage.supervisor")
GATEWAY_MODULE = "pilotage.runtime.gateway"
START_S = 60.0
AFTER_DRAIN_S = 15.0


@dataclass(slots=True)
class Child:
    """A process that is kept running: how it is started, and the one that runs now."""

    name: str
    module: str
    prepare: Callable[[], Awaitable[Handover]]
    process: Process | None = None
    has_started: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: PilotageError | None = None
    has_run: bool = False


class Children:
    """The children of a parent process, which die with it (the kernel sees to that)."""

    def __init__(self, folder: DataFolder, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._is_stopping = False
        self._children: list[Child] = []

    def start(self, background: Background, children: list[Child]) -> None:
        """Begin to keep children running, for as long as the owner of the background lives."""
        self._children += children
        for child in children:
            background.start(self._keep(child), child.name)

    async def wait_started(self) -> None:
        """Return when all run; raise what one of them says that keeps it from starting."""
        for child in self._children:
            try:
                async with asyncio.timeout(START_S):
                    await child.has_started.wait()
            except TimeoutError:
                path = log_path(self._folder.logs, child.name)
                raise PilotageError(
                    "unavailable", f"{child.name} does not start.", hint=f"See {path}"
                ) from None
            if child.refusal is not None:
                raise child.refusal

    async def stop(self, module: str, timeout_s: float) -> None:
        """Ask the children that run a module to end, and kill those that do not in time.

        No child is started again from now on.
        """
        self._is_stopping = True
        await asyncio.gather(
            *(_stop(child.process, timeout_s) for child in self._children if child.module == module)
        )

    def kill(self) -> None:
        """End every child at once."""
        self._is_stopping = True
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                child.process.kill()

    async def _keep(self, child: Child) -> None:
        """Run a child, again after every crash, until told to stop."""
        crashes = 0
        while not self._is_stopping:
            started_s = self._clock.monotonic_s()
            try:
                code: object = await self._run_once(child)
            except OSError as failed:  # no process, file or space to be had: try again later
                code = failed
            if self._is_stopping or (child.refusal is not None and not child.has_run):
                return
            if child.refusal is not None:  # it ran before: what refuses it now may pass
                code, child.refusal = child.refusal, None
            crashes = 1 if self._clock.monotonic_s() - started_s > STEADY_S else crashes + 1
            _LOG.warning("%s ended with code %s and is started again", child.name, code)
            if crashes > 1:
                await asyncio.sleep(next_pause_s(crashes - 1))

    async def _run_once(self, child: Child) -> int:
        handover = await child.prepare()
        inherited = [handover.listen_fd] + (
            [handover.channel_fd] if handover.channel_fd >= 0 else []
        )
        try:
            with open_log(log_path(self._folder.logs, child.name)) as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    child.module,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=log,
                    pass_fds=inherited,
                    env=child_environment(),
                    start_new_session=True,
                )
        finally:
            if handover.channel_fd >= 0:
                os.close(handover.channel_fd)  # the child has its own; ours would hide its end
        child.process = process
        try:
            await self._hear(child, process, handover)
            return await process.wait()
        finally:
            await end(process)

    async def _hear(self, child: Child, process: Process, handover: Handover) -> None:
        """Hand over what a child needs, and learn whether it starts."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child has no pipes")
        process.stdin.write(msgspec.json.encode(handover) + b"\n")
        event = read_event(await process.stdout.readline())
        if isinstance(event, NotStarted):
            child.refusal = PilotageError(event.code, event.detail, hint=event.hint)
        elif event is not None:
            child.has_run = True
        if event is not None:
            child.has_started.set()


def make_gateways(
    settings: Settings, folder: DataFolder, listener: socket.socket, public_key: str
) -> list[Child]:
    """Return the gateway processes of a socket, each with a slot of its own."""

    def make(slot: str) -> Child:
        async def prepare() -> Handover:
            return Handover(
                settings=settings,
                data_path=str(folder.path),
                parent_pid=os.getpid(),
                listen_fd=listener.fileno(),
                slot=slot,
                public_key=public_key,
            )

        return Child(slot, GATEWAY_MODULE, prepare)

    return [make(f"gateway-{number}") for number in range(settings.gateway.processes or 1)]


def drain_limit_s(settings: Settings) -> float:
    """Return how long gateway processes get to end their calls and themselves."""
    return duration_s(settings.gateway.drain_timeout) + AFTER_DRAIN_S


async def _stop(process: Process | None, timeout_s: float) -> None:
    if process is None or process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        await end(process)
