"""``pilotage tenants``: who pays for calls."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("tenants", "Tenants: who pays for calls.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant.")]


@command(GROUP, "list")
def list_tenants(*, project: Project = "default", as_json: Json = False) -> None:
    """List tenants by name.

    [bold]Example[/bold]: pilotage tenants list --project research
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/tenants")

    tenants = run(work, project)
    if as_json:
        show_json(tenants)
        return
    rows = [(item["name"], item["id"], show_time(item["created_at"])) for item in tenants]
    empty = "There are no tenants. Make one: pilotage tenants create NAME"
    show_table(("name", "id", "created (UTC)"), rows, empty)


@command(GROUP)
def create(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Create a tenant.

    [bold]Example[/bold]: pilotage tenants create acme
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/tenants", {"name": name})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name} is created. Give it a key: pilotage keys create --tenant {name}")


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a tenant and revoke its keys; its usage stays in the ledger.

    [bold]Example[/bold]: pilotage tenants delete acme --reason "contract ended"
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("tenants", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted and its keys are revoked.")
