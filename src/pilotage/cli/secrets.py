"""``pilotage secrets``: the keys that seal what is at rest."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import (
    Json,
    OperationBar,
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

GROUP = make_group("secrets", "Keys at rest: root keys, and the data keys of tenants.")


@command(GROUP, "list")
def list_secrets(*, as_json: Json = False) -> None:
    """List data keys: whose, which root key wraps each, which are destroyed.

    [bold]Example[/bold]: pilotage secrets list
    """

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await collect(control, "/data-keys"), await name_tenants(control)

    keys, names = run(work)
    if as_json:
        show_json(keys)
        return
    rows = [
        (
            names.get(key["owner_id"], key["owner_id"]),
            key["number"],
            key["root"],
            show_time(key["created_at"]),
            show_time(key["destroyed_at"]),
        )
        for key in keys
    ]
    columns = ("owner", "#key", "#root key", "created (UTC)", "destroyed (UTC)")
    show_table(columns, rows, "There are none yet: a tenant gets one when it is needed.")


@command(GROUP)
def rotate(
    *,
    tenant: Annotated[
        str | None, typer.Option(help="A tenant's data key; without it, the root key.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make a new root key and wrap every data key with it, or a new data key for a tenant.

    Older keys go on opening what they sealed. Interrupted, the next start ends it.

    [bold]Examples[/bold]: pilotage secrets rotate --reason "yearly"
    |    pilotage secrets rotate --tenant acme --reason "incident 12"
    """
    path = "/root-keys" if tenant is None else at("tenants", tenant, "data-keys")

    async def work(control: ControlClient) -> dict[str, Any]:
        with OperationBar("rotate") as watch:
            return await control.finish(await control.post(path), watch)

    done = run(work, project, reason)
    if as_json:
        show_json(done)
    elif tenant is None:
        say(f"Root key {done['root']} wraps {done['data_keys']} data keys. Back up the root keys.")
    else:
        say(f"Data key {done['data_key']} of {tenant} has sealed {done['names']} names anew.")
