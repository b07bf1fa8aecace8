"""``pilotage operations``: long work, running and done."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    at,
    collect,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("operations", "Operations: downloads, deployments and other long work.")
Id = Annotated[str, typer.Argument(metavar="ID", help="The operation's id, from the list.")]


@command(GROUP, "list")
def list_operations(
    *,
    state: Annotated[
        str | None, typer.Option(help="Only running, succeeded, failed or cancelled ones.")
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List operations, oldest first.

    [bold]Example[/bold]: pilotage operations list --state running
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/operations", state=state)

    operations = run(work, project)
    if as_json:
        show_json(operations)
        return
    rows = [
        (
            item["id"],
            item["kind"],
            item["subject"],
            item["state"],
            _describe_progress(item),
            show_time(item["created_at"]),
        )
        for item in operations
    ]
    empty = "There are no operations. One begins with: pilotage models pull"
    show_table(("id", "kind", "subject", "state", "progress", "created (UTC)"), rows, empty)


@command(GROUP, "show")
def show_operation(operation: Id, *, project: Project = "default", as_json: Json = False) -> None:
    """Show an operation: how far it is, or how it ended.

    [bold]Example[/bold]: pilotage operations show op_06f...
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("operations", operation))

    shown = run(work, project)
    if as_json:
        show_json(shown)
        return
    fields = {name: shown[name] for name in ("id", "kind", "subject", "state")}
    fields |= {"progress": _describe_progress(shown), "created": show_time(shown["created_at"])}
    if shown["error"]:
        fields |= {"error": shown["error"]["detail"], "hint": shown["error"]["hint"]}
    for name, value in (shown["result"] or {}).items():
        fields[f"result: {name}"] = value
    show_fields(fields)


@command(GROUP)
def cancel(operation: Id, *, project: Project = "default", as_json: Json = False) -> None:
    """Cancel a running operation; this returns when it has ended.

    [bold]Example[/bold]: pilotage operations cancel op_06f...
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("operations", operation) + ":cancel")

    ended = run(work, project)
    if as_json:
        show_json(ended)
    else:
        say(f"{ended['id']} is {ended['state']}.")


def _describe_progress(operation: dict[str, Any]) -> str:
    if operation["total"] <= 0:
        return str(operation["phase"])
    return f"{operation['phase']} {operation['done'] / operation['total']:.0%}"
