"""``pilotage as-of``: what was in production at a moment."""

from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, Project, note, run, say, show_json, show_table, show_time
from pilotage.sdk.control import ControlClient


def as_of(
    time: Annotated[
        str, typer.Argument(metavar="[TIME]", help="2026-06-30T18:00:00Z, or a date; default: now.")
    ] = "",
    *,
    endpoint: Annotated[str, typer.Option(help="Only this endpoint.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Versions that never left development, too.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what was in production at a moment, who put it there, and on which record.

    Answered from the history alone, which the audit log proves.

    [bold]Example[/bold]: pilotage as-of 2026-06-30T18:00:00Z --endpoint support
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/as-of", at=time or None, everything=everything)

    past = run(work, project)
    if endpoint:
        past["endpoints"] = [item for item in past["endpoints"] if item["name"] == endpoint]
    if as_json:
        show_json(past)
        return
    columns = ("endpoint", "arms", "since (UTC)", "by", "reason", "decision")
    empty = f"There was no endpoint{f' {endpoint}' if endpoint else ''}."
    show_table(columns, [_show_endpoint(item) for item in past["endpoints"]], empty)
    if not endpoint:
        say("")
        columns = ("version", "stage", "since (UTC)", "by", "approved by", "decision")
        rows = [_show_version(item) for item in past["versions"]]
        show_table(columns, rows, "No version had left development.")
    note(f"As of {show_time(past['at'])} UTC, revision {past['seq']}.")


def _show_endpoint(item: dict[str, Any]) -> tuple[object, ...]:
    arms = [f"{arm['model']} {arm['percent']:g} %" for arm in item["arms"]]
    arms += [f"fallback {model}" for model in item["fallbacks"]]
    arms += [f"shadow {item['shadow']}"] if item["shadow"] else []
    change = item["split"] or {"at": None, "by": "", "reason": "", "decision_id": ""}
    since = (show_time(change["at"]), change["by"], change["reason"], change["decision_id"])
    return item["name"], ", ".join(arms) or "nothing", *since


def _show_version(item: dict[str, Any]) -> tuple[object, ...]:
    change = item["change"]
    approvers = [who for approval in change["approvals"] for who in approval["approved_by"]]
    since = (show_time(change["at"]), change["by"], ", ".join(approvers), change["decision_id"])
    return item["ref"], item["stage"], *since
