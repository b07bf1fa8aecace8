"""The supervisor: ``pilotage up``. One control process, N gateway processes, the engine children.

It holds the data folder's lock and both listening sockets, so that a process that dies is replaced
without a refused connection. Its children die with it (the kernel sees to that), and none of them
needs another to be alive: gateways serve with the control process away, engines outlive it.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import LINE_BYTES, Desired, Seen
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.endpoints.rules import STEADY_S, next_pause_s
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, child_environment, duration_s
from pilotage.kit.crypto import open_signer
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.kit.resources import Background
from pilotage.runtime.fleet import LocalFleet
from pilotage.runtime.handover import Handover, NotStarted, log_path, read_event
from pilotage.runtime.logfile import open_log

_LOG = logging.getLogger("pilotage.supervisor")
BACKLOG = 2048
CONTROL_MODULE = "pilotage.server.process"  # by name: the doors stand above this room
GATEWAY_MODULE = "pilotage.runtime.gateway"
STOP_CONTROL_S = 10.0
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


class Supervisor:
    """Everything that runs under one ``pilotage up``."""

    def __init__(self, settings: Settings, folder: DataFolder, clock: Clock) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._is_stopping = False
        self._children: list[Child] = []
        self._channel: asyncio.StreamWriter | None = None
        self._fleet: LocalFleet | None = None
        self._sockets: list[socket.socket] = []
        self.gateway_url = ""
        self.control_url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Supervisor"]:
        """Start everything; yield when gateway and control process listen.

        Drain and stop at the end.

        Raises ``invalid_config`` or ``conflict``, with nothing left running, if it cannot start.
        """
        async with AsyncExitStack() as stack:
            self._folder.prepare()
            lock = stack.enter_context(self._folder.acquire(self._info()))
            self._listen(stack)
            lock.write(self._info())
            public_key = open_signer(self._folder.keys / "snapshot.key").public.hex()
            background = await stack.enter_async_context(Background())
            self._fleet = LocalFleet(
                engine=ENGINE,
                targets=TargetsFile(self._folder.targets),
                logs=self._folder.logs,
                clock=self._clock,
                background=background,
                start_timeout_s=duration_s(self._settings.engine.start_timeout),
                grace_s=duration_s(self._settings.gateway.drain_timeout),
            )
            self._fleet.on_change = self._report
            self._children = self._make_children(background, public_key)
            stack.push_async_callback(self._stop_children)
            for child in self._children:
                background.start(self._keep(child), child.name)
            await self._wait_started()
            yield self

    def _listen(self, stack: AsyncExitStack) -> None:
        gateway, control = self._settings.gateway, self._settings.control
        for name, host, port in (
            ("gateway", gateway.host, gateway.port),
            ("control", control.host, control.port),
        ):
            listener = open_listener(name, host, port)
            stack.callback(listener.close)
            self._sockets.append(listener)
        self.gateway_url, self.control_url = (_url(listener) for listener in self._sockets)

    def _info(self) -> ServerInfo:
        return ServerInfo(
            pid=os.getpid(),
            started_at_us=self._clock.now_us(),
            control_url=self.control_url,
            gateway_url=self.gateway_url,
        )

    def _make_children(self, background: Background, public_key: str) -> list[Child]:
        async def prepare_control() -> Handover:
            ours, theirs = socket.socketpair()
            reader, self._channel = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
            background.start(self._obey(reader, self._channel), "channel")
            return self._handover(self._sockets[1], channel_fd=theirs.detach())

        def gateway(slot: str) -> Child:
            async def prepare() -> Handover:
                return self._handover(self._sockets[0], slot=slot, public_key=public_key)

            return Child(slot, GATEWAY_MODULE, prepare)

        count = self._settings.gateway.processes or 1
        control = Child("control", CONTROL_MODULE, prepare_control)
        return [control, *(gateway(f"gateway-{number}") for number in range(count))]

    def _handover(
        self, listener: socket.socket, channel_fd: int = -1, slot: str = "", public_key: str = ""
    ) -> Handover:
        return Handover(
            settings=self._settings,
            data_path=str(self._folder.path),
            parent_pid=os.getpid(),
            listen_fd=listener.fileno(),
            channel_fd=channel_fd,
            slot=slot,
            public_key=public_key,
        )

    async def _keep(self, child: Child) -> None:
        """Run a child, again after every crash, until the supervisor stops."""
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
        return await process.wait()

    async def _wait_started(self) -> None:
        for child in self._children:
            try:
                async with asyncio.timeout(60):
                    await child.has_started.wait()
            except TimeoutError:
                path = log_path(self._folder.logs, child.name)
                raise PilotageError(
                    "unavailable", f"{child.name} does not start.", hint=f"See {path}"
                ) from None
            if child.refusal is not None:
                raise child.refusal

    async def _stop_children(self) -> None:
        """Gateways first (they drain), then the control process; engines end with the background.

        Cancelled meanwhile (a second signal), it kills what is left.
        """
        self._is_stopping = True
        control, *gateways = self._children
        drain_s = duration_s(self._settings.gateway.drain_timeout) + AFTER_DRAIN_S
        try:
            await asyncio.gather(*(_stop(child.process, drain_s) for child in gateways))
            await _stop(control.process, STOP_CONTROL_S)
        finally:
            if self._fleet is not None:
                self._fleet.hurry()
            for child in self._children:
                if child.process is not None and child.process.returncode is None:
                    child.process.kill()

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one control process says for as long as it lives."""
        self._report()
        try:
            while line := await reader.readline():
                if self._fleet is not None:
                    self._fleet.apply(msgspec.json.decode(line, type=Desired).replicas)
        except (ConnectionError, msgspec.DecodeError) as cut:  # killed in the middle of a word
            _LOG.warning("the control process broke off: %s", cut)
        finally:
            writer.close()

    def _report(self) -> None:
        if self._channel is not None and self._fleet is not None and not self._channel.is_closing():
            self._channel.write(
                msgspec.json.encode(Seen(statuses=self._fleet.list_statuses())) + b"\n"
            )


def open_listener(name: str, host: str, port: int) -> socket.socket:
    """Bind and listen; raise ``invalid_config`` that names the setting if that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as failed:
        raise PilotageError(
            "invalid_config", f"{name}.host: {host} is no address: {failed.strerror}."
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as failed:
        listener.close()
        raise PilotageError(
            "invalid_config",
            f"{name}.port: {host}:{port} cannot be used: {failed.strerror}.",
            hint=f"Stop what uses it, or set PILOTAGE_{name.upper()}_PORT.",
        ) from None
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _stop(process: Process | None, timeout_s: float) -> None:
    if process is None or process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
