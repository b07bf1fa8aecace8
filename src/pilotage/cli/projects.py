"""``pilotage projects``: the owners of models, endpoints and prices."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Reason,
    collect,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("projects", "Projects: what models, endpoints and prices belong to.")


@command(GROUP, "list")
def list_projects(*, as_json: Json = False) -> None:
    """List projects by name.

    [bold]Example[/bold]: pilotage projects list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/projects")

    projects = run(work)
    if as_json:
        show_json(projects)
        return
    rows = [(item["name"], item["id"], show_time(item["created_at"])) for item in projects]
    empty = "There are no projects. Make one: pilotage projects create NAME"
    show_table(("name", "id", "created (UTC)"), rows, empty)


@command(GROUP)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    *,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create a project.

    [bold]Example[/bold]: pilotage projects create research
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/projects", {"name": name})

    made = run(work, reason=reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name} is created. It needs a tenant: pilotage tenants create NAME --project {name}")
