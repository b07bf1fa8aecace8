"""The supervisor: ``pilotage up``. One control process, N gateway processes, the engine children.

It holds the data folder's lock and both listening sockets, so that a process that dies is replaced
without a refused connection. Its children die with it (the kernel sees to that), and none of them
needs another to be alive: gateways serve with the control process away, engines outlive it.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from pilotage.endpoints.backends.local import LINE_BYTES, Desired, Seen
from pilotage.endpoints.engines.command import remove_configs
from pilotage.endpoints.engines.table import EngineTable
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.crypto import open_signer
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.kit.disk import DiskWatch
from pilotage.kit.resources import Background
from pilotage.runtime.children import (
    GATEWAY_MODULE,
    Child,
    Children,
    drain_limit_s,
    make_gateways,
)
from pilotage.runtime.doors import make_url, open_control_door, open_gateway_door
from pilotage.runtime.fleet import LocalFleet
from pilotage.runtime.handover import Handover

_LOG = logging.getLogger("pilotage.supervisor")
CONTROL_MODULE = "pilotage.server.process"  # by name: the doors stand above this room
STOP_CONTROL_S = 10.0


class Supervisor:
    """Everything that runs under one ``pilotage up``."""

    def __init__(self, settings: Settings, folder: DataFolder, clock: Clock) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._children = Children(folder, clock)
        self._channel: asyncio.StreamWriter | None = None
        self._fleet: LocalFleet | None = None
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
            gateway_door = stack.enter_context(open_gateway_door(self._settings))
            control_door = stack.enter_context(open_control_door(self._settings))
            is_tls = bool(self._settings.gateway.tls_certificate)
            self.gateway_url = make_url(gateway_door, is_tls=is_tls)
            self.control_url = make_url(control_door)
            lock.write(self._info())
            public_key = open_signer(self._folder.keys / "snapshot.key").public.hex()
            stack.callback(self._hang_up)
            background = await stack.enter_async_context(Background())
            background.start(DiskWatch(self._folder.path).run(), "disk")
            remove_configs(self._folder.run)
            self._fleet = LocalFleet(
                engine=EngineTable(self._settings.engines, self._folder.run),
                targets=TargetsFile(self._folder.targets),
                spools=self._folder.spool,
                logs=self._folder.logs,
                clock=self._clock,
                background=background,
                start_timeout_s=duration_s(self._settings.engine.start_timeout),
                grace_s=duration_s(self._settings.gateway.drain_timeout),
                is_spot=self._settings.engine.machine == "spot",
            )
            self._fleet.on_change = self._report
            background.start(self._fleet.run(), "fleet")
            stack.push_async_callback(self._stop_children)
            gateways = make_gateways(self._settings, self._folder, gateway_door, public_key)
            control = self._make_control(background, control_door)
            self._children.start(background, [control, *gateways])
            await self._children.wait_started()
            yield self

    def _info(self) -> ServerInfo:
        return ServerInfo(
            pid=os.getpid(),
            started_at_us=self._clock.now_us(),
            control_url=self.control_url,
            gateway_url=self.gateway_url,
        )

    def _make_control(self, background: Background, door: socket.socket) -> Child:
        async def prepare() -> Handover:
            ours, theirs = socket.socketpair()
            reader, self._channel = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
            background.start(self._obey(reader, self._channel), "channel")
            return Handover(
                settings=self._settings,
                data_path=str(self._folder.path),
                parent_pid=os.getpid(),
                listen_fd=door.fileno(),
                channel_fd=theirs.detach(),
            )

        return Child("control", CONTROL_MODULE, prepare)

    async def _stop_children(self) -> None:
        """Gateways first (they drain), then the control process; engines end with the background.

        Cancelled meanwhile (a second signal), it kills what is left.
        """
        try:
            await self._children.stop(GATEWAY_MODULE, drain_limit_s(self._settings))
            await self._children.stop(CONTROL_MODULE, STOP_CONTROL_S)
        finally:
            if self._fleet is not None:
                self._fleet.hurry()
            self._children.kill()

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one control process says for as long as it lives."""
        self._report()
        try:
            while line := await reader.readline():
                if self._fleet is not None:
                    self._fleet.apply(msgspec.json.decode(line, type=Desired).groups)
        except (ConnectionError, msgspec.DecodeError) as cut:  # killed in the middle of a word
            _LOG.warning("the control process broke off: %s", cut)
        finally:
            writer.close()

    def _hang_up(self) -> None:
        """Close the channel even if it was opened too late for anybody to listen to it."""
        if self._channel is not None:
            self._channel.close()

    def _report(self) -> None:
        fleet, channel = self._fleet, self._channel
        if channel is None or fleet is None or channel.is_closing():
            return
        seen = Seen(statuses=fleet.list_statuses(), loads=fleet.list_loads())
        channel.write(msgspec.json.encode(seen) + b"\n")
