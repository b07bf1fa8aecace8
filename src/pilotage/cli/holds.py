"""``pilotage holds``: legal holds."""

from typing import Annotated

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Reason,
    at,
    collect,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.errors import PilotageError

GROUP = make_group("holds", "Legal holds: while one is in force, nothing is pruned or erased.")
Name = Annotated[str, typer.Argument(help="The hold's name.")]


@command(GROUP)
def place(name: Name, *, reason: Reason = "", as_json: Json = False) -> None:
    """Place a legal hold on the whole installation.

    [bold]Example[/bold]: pilotage holds place case-4711 --reason "letter of 12 November"
    """
    if not reason:
        raise PilotageError("invalid_request", "A hold needs a reason.", hint="Add --reason WHY.")
    body = {"name": name, "reason": reason}
    made = run(lambda control: control.post("/audit/holds", body), reason=reason)
    show_json(made) if as_json else say(f"{name} is in force.")


@command(GROUP, "list")
def list_holds(*, as_json: Json = False) -> None:
    """List legal holds, released ones too.

    [bold]Example[/bold]: pilotage holds list --json
    """
    found = run(lambda control: collect(control, "/audit/holds"))
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["name"],
            "released" if item["released_at"] else "in force",
            show_time(item["created_at"]),
            item["created_by"],
            item["reason"],
        )
        for item in found
    ]
    empty = "There are no holds. Place one: pilotage holds place NAME --reason WHY"
    show_table(("hold", "state", "since (UTC)", "by", "reason"), rows, empty)


@command(GROUP)
def release(name: Name, *, reason: Reason = "", as_json: Json = False) -> None:
    """Release a legal hold for ever.

    [bold]Example[/bold]: pilotage holds release case-4711 --reason "case closed"
    """
    path = at("audit", "holds", name) + ":release"
    made = run(lambda control: control.post(path), reason=reason)
    show_json(made) if as_json else say(f"{name} is released.")
