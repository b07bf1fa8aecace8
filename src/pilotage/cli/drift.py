"""``pilotage drift``: whether prompts and answers are still what they were."""

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
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("drift", "Drift of prompts, answers and speed from a frozen reference.")
Endpoint = Annotated[str | None, typer.Argument(help="Only of an endpoint.")]
ReferenceId = Annotated[str, typer.Argument(help="The reference's id.")]
_NONE = (
    "No version has a reference. One freezes by itself after 1,000 calls, "
    "or now: pilotage drift freeze"
)


@command(GROUP)
def show(endpoint: Endpoint = None, *, project: Project = "default", as_json: Json = False) -> None:
    """Compare the newest calls of every version with its reference, measure by measure.

    A PSI above its limit is a shift that chance does not make.

    [bold]Example[/bold]: pilotage drift show chat
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/drift", endpoint=endpoint)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["endpoint"],
            item["model"],
            moved["measure"],
            f"{moved['n']:,}",
            f"{moved['m']:,}",
            f"{moved['psi']:.3f}",
            f"{moved['psi_limit']:.3f}",
            f"{moved['js']:.3f}",
            "shifted" if moved["is_shifted"] else "",
        )
        for item in found
        for moved in item["measures"]
    ]
    empty = "No reference has 200 calls after it yet." if found else _NONE
    columns = ("endpoint", "model", "measure", "#n", "#reference", "#PSI", "#limit", "#JS", "")
    show_table(columns, rows, empty)


@command(GROUP)
def references(
    endpoint: Endpoint = None, *, project: Project = "default", as_json: Json = False
) -> None:
    """List the references of model versions on endpoints.

    [bold]Example[/bold]: pilotage drift references chat
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/drift-references", endpoint=endpoint)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["id"],
            item["endpoint"],
            item["model"],
            show_time(item["frozen_at"]),
            "by itself" if item["is_automatic"] else item["frozen_by"],
            len(item["measures"]),
        )
        for item in found
    ]
    show_table(("id", "endpoint", "model", "frozen", "by", "#measures"), rows, _NONE)


@command(GROUP)
def freeze(
    endpoint: Annotated[str, typer.Argument(help="The endpoint.")],
    model: Annotated[str, typer.Argument(help="NAME@VERSION that answered.")],
    *,
    since: Annotated[str, typer.Option(help="From this day or time on (UTC).")] = "",
    until: Annotated[str, typer.Option(help="To before this day or time (UTC).")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make the calls of a span the reference of a version, in place of the one it has.

    [bold]Example[/bold]: pilotage drift freeze chat smollm2@1.0.0 --since 2026-03-01
    """
    body = {"endpoint": endpoint, "model": model, "since": since, "until": until}

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/drift-references", body)

    _show(run(work, project, reason), as_json=as_json)


@command(GROUP)
def reference(
    reference_id: ReferenceId, *, project: Project = "default", as_json: Json = False
) -> None:
    """Show what a reference holds.

    [bold]Example[/bold]: pilotage drift reference ref_01jd8
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("drift-references", reference_id))

    _show(run(work, project), as_json=as_json)


@command(GROUP)
def thaw(
    reference_id: ReferenceId,
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Delete a reference; another freezes once there are enough calls.

    [bold]Example[/bold]: pilotage drift thaw ref_01jd8 --reason "prompts were rewritten"
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("drift-references", reference_id))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": reference_id})
    else:
        say(f"{reference_id} is deleted.")


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    fields = {
        "id": found["id"],
        "endpoint": found["endpoint"],
        "model": found["model"],
        "frozen": show_time(found["frozen_at"]),
        "by": "itself" if found["is_automatic"] else found["frozen_by"],
    }
    for held in found["measures"]:
        span = f"{show_time(held['since'])} to {show_time(held['until'])}"
        fields[held["measure"]] = f"{held['n']:,} values from {span}"
    show_fields(fields)
