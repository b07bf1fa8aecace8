"""``pilotage top``: what every alias does now, on one screen."""

from typing import Annotated

import typer

from pilotage.cli.session import Json, Project, fail_usage, run, show_json
from pilotage.cli.top_reading import WINDOWS, read_fleet
from pilotage.core.duration import parse_duration_us
from pilotage.sdk.control import ControlClient


def top(
    *,
    window: Annotated[
        str, typer.Option(help=f"How far back to look: {', '.join(WINDOWS)} ...")
    ] = WINDOWS[0],
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.5, max=60)] = 2.0,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Watch calls, latency, errors, cost and alerts while they happen.

    Keys: w another window, s another order, p pause, q quit. --json looks once.

    [bold]Example[/bold]: pilotage top --window 5m
    """
    try:
        parse_duration_us(window)
    except ValueError as wrong:
        fail_usage(f"--window: {wrong}.")
    if as_json:
        show_json(run(lambda control: read_fleet(control, window), project))
        return
    try:
        from pilotage.cli.top_screen import TopScreen
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("textual"):
            raise
        fail_usage("pilotage top needs Textual.", "Install it: pip install 'pilotage[tui]'")

    async def work(control: ControlClient) -> None:
        screen = TopScreen(
            lambda chosen: read_fleet(control, chosen), project, window=window, every_s=every
        )
        await screen.run_async()

    run(work, project)
