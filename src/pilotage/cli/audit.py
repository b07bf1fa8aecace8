"""``pilotage audit``: who changed what, when and why, and whether the record is whole."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    FAILURE,
    Json,
    collect,
    note,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("audit", "The audit log: every change, chained by hashes.")


@command(GROUP, "list")
def list_entries(
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=500, help="How many of the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    event: Annotated[str, typer.Option(help="Only events that begin so.")] = "",
    object_id: Annotated[
        str | None, typer.Option("--object", help="Only of an object, by id.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what somebody did, by id.")] = None,
    as_json: Json = False,
) -> None:
    """List the newest entries, the newest last.

    [bold]Example[/bold]: pilotage audit list --event endpoints. -n 5
    """
    query = {"event": event, "object_id": object_id, "actor": actor}

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        if everything:
            return await collect(control, "/audit/entries", **query)
        page = await control.get("/audit/entries", newest=True, limit=count, **query)
        return list(page["items"])

    entries = run(work)
    if as_json:
        show_json(entries)
        return
    rows = [
        (
            item["position"],
            show_time(item["at"]),
            item["event"],
            item["object_id"],
            item["actor"],
            item["reason"],
        )
        for item in entries
    ]
    empty = "There are no such entries. See all: pilotage audit list --all"
    show_table(("#position", "time (UTC)", "event", "object", "by", "reason"), rows, empty)


@command(GROUP)
def verify(*, as_json: Json = False) -> None:
    """Recompute the whole log and compare it with the changes; exit code 1 if it was altered.

    [bold]Example[/bold]: pilotage audit verify --json
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/audit:verify")

    report = run(work)
    if as_json:
        show_json(report)
    elif report["is_intact"]:
        say(f"{report['entries']} entries, intact. Head: {report['head_hash']}")
        note("Note the head elsewhere: a later check can be compared with it.")
    else:
        say(f"Altered at position {report['first_bad_position']}: {report['problem']}.")
        say(f"{report['entries']} entries before it are intact. Head: {report['head_hash']}")
    if not report["is_intact"]:
        raise typer.Exit(FAILURE)
