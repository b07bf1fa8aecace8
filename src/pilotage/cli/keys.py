"""``pilotage keys``: the API keys of tenants."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    note,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("keys", "API keys: what applications send to the gateway.")
EMPTY = "There are no keys. Make one: pilotage keys create --tenant default --name NAME"


@command(GROUP, "list")
def list_keys(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only those of a tenant.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List keys, oldest first; their texts are kept nowhere.

    [bold]Example[/bold]: pilotage keys list --tenant acme
    """

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await collect(control, "/keys", tenant=tenant), await name_tenants(control)

    keys, names = run(work, project)
    if as_json:
        show_json(keys)
        return
    rows = [
        (
            key["id"],
            names.get(key["tenant_id"], key["tenant_id"]),
            key["name"],
            f"...{key['hint']}",
            key["state"],
            show_time(key["created_at"]),
            show_time(key["expires_at"]) or "never",
            "yes" if key["may_name_users"] else "no",
            ", ".join([*key["aliases"], *key["operations"]]) or "everything",
        )
        for key in keys
    ]
    columns = ("id", "tenant", "name", "ends in", "state", "created (UTC)", "expires")
    show_table((*columns, "names users", "is for"), rows, EMPTY)


@command(GROUP)
def create(  # noqa: PLR0913 - one option for each setting
    *,
    tenant: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    name: Annotated[str, typer.Option(help="What it is for.")] = "key",
    expires: Annotated[
        str | None, typer.Option(help="How long it lives, such as 30d; default: until revoked.")
    ] = None,
    may_name_users: Annotated[
        bool,
        typer.Option(
            "--may-name-users", help="Trust its holder to say on whose behalf a call is made."
        ),
    ] = False,
    alias: Annotated[
        list[str] | None, typer.Option(help="A model it may call, and no other; repeat for more.")
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(help="What it may do, such as chat or embeddings; repeat for more."),
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create a key and show its text, this once.

    [bold]Examples[/bold]: pilotage keys create --tenant acme --name crawler --expires 30d
    |    pilotage keys create --tenant acme --name portal --may-name-users
    |    pilotage keys create --name search --alias chat --operation embeddings
    """
    body = {
        "tenant": tenant,
        "name": name,
        "expires_in": expires,
        "may_name_users": may_name_users,
        "aliases": alias or [],
        "operations": operation or [],
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/keys", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
        return
    say(made["secret"])
    until = f", until {show_time(made['expires_at'])} UTC" if made["expires_at"] else ""
    note(f"{made['id']} of tenant {tenant}{until}. Keep the text: it is shown this once.")


@command(GROUP)
def rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from the list.")],
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old one goes on being accepted; 0 ends it now.")
    ] = "24h",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make another key like this one and show its text, this once; the old one ends later.

    [bold]Example[/bold]: pilotage keys rotate key_06f... --overlap 24h
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("keys", key) + ":rotate", {"overlap": overlap})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
        return
    say(made["secret"])
    note(f"{made['id']} takes the place of {key}, which ends in {overlap}.")


@command(GROUP)
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from the list.")],
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Revoke a key for ever; gateways refuse it when this returns.

    [bold]Example[/bold]: pilotage keys revoke key_06f... --reason "left in a log"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("keys", key) + ":revoke")

    revoked = run(work, project, reason)
    if as_json:
        show_json(revoked)
    else:
        say(f"{revoked['id']} ({revoked['name']}) is revoked.")


async def name_tenants(control: ControlClient) -> dict[str, str]:
    """Return the names of the living tenants by id."""
    return {tenant["id"]: tenant["name"] async for tenant in control.list("/tenants")}
