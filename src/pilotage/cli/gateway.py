"""``pilotage gateway``: answer calls apart from the control plane, until Ctrl-C."""

import asyncio
import signal

from pilotage.cli.session import OUT
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings, load_settings
from pilotage.kit.data_folder import DataFolder


def gateway() -> None:
    """Run a gateway apart from its control plane, until Ctrl-C.

    It needs remote.control_url, remote.credential and remote.public_key, which
    'pilotage gateways create' prints, and a data folder of its own.

    [bold]Example[/bold]: PILOTAGE_REMOTE_CONTROL_URL=https://pilotage.example pilotage gateway
    """
    from pilotage.kit.telemetry import start_logging

    settings = load_settings()
    start_logging("warning" if settings.log.level == "info" else settings.log.level)
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    from pilotage.runtime.remote import RemoteGateway

    stopped = asyncio.Event()
    task = asyncio.current_task()

    def stop() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()  # the second signal: now
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    folder = DataFolder(settings.data_path)
    async with RemoteGateway(settings, folder, SystemClock()).run() as running:
        OUT.print(f"\nGateway   {running.gateway_url}/v1", markup=False)
        OUT.print(f"Control   {settings.remote.control_url or 'none'}", markup=False)
        OUT.print(f"Data      {folder.path}\n\nCtrl-C stops.\n", markup=False)
        await stopped.wait()
        OUT.print("Stopping: running calls get their time (Ctrl-C again stops now).")
    OUT.print("Stopped.")
