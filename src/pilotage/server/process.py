"""The control process: ``python -m pilotage.server.process``, started by the supervisor."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
import uvloop

from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import LINE_BYTES, SupervisedFleet
from pilotage.kit.clock import SystemClock
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.lifeline import die_with_parent
from pilotage.kit.resources import Background
from pilotage.kit.telemetry import start_logging
from pilotage.runtime.handover import Handover, Started, read_handover, say, say_failure
from pilotage.runtime.installation import open_installation
from pilotage.server.app import make_app


def main() -> None:
    """Run the control process until it is told to stop."""
    handover = read_handover()
    die_with_parent(handover.parent_pid)
    start_logging(handover.settings.log.level)
    try:
        uvloop.run(serve(handover))
    except PilotageError as refused:
        say_failure(refused)


async def serve(handover: Handover) -> None:
    """Open the installation and serve the inherited socket."""
    channel = socket.socket(fileno=handover.channel_fd)
    reader, writer = await asyncio.open_connection(sock=channel, limit=LINE_BYTES)
    fleet = SupervisedFleet(reader, writer)
    folder = DataFolder(Path(handover.data_path))
    async with (
        Background() as background,
        open_installation(handover.settings, folder, SystemClock(), fleet) as installation,
    ):
        background.start(fleet.listen(), "fleet")
        config = uvicorn.Config(
            make_app(installation),
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        server = ControlServer(config, installation.end_waits)
        await server.serve(sockets=[socket.socket(fileno=handover.listen_fd)])
    writer.close()


class ControlServer(uvicorn.Server):
    """Says when it listens; lets long polls go when it closes."""

    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the supervisor once the socket is served."""
        await super().startup(sockets)
        say(Started())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer who waits, then close."""
        await self._on_shutdown()
        await super().shutdown(sockets)


if __name__ == "__main__":
    main()
