"""``pilotage quality`` and ``pilotage feedback``: what is thought of answers."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    collect,
    run,
    show_json,
    show_table,
    show_time,
)
from pilotage.cli.versions import name_versions
from pilotage.sdk.control import ControlClient

FEEDBACK = make_group("feedback", "What callers said of answers.")
_METRICS = {
    "feedback": "feedback_score",
    "accuracy": "accuracy",
    "hallucinations": "hallucination_rate",
    "toxicity": "toxicity_score",
    "valid": "validation_pass_rate",
}
_NONE = "Nobody gave feedback. Clients do so at POST /v1/feedback."


def quality(
    endpoint: Annotated[str | None, typer.Argument(help="Only of an endpoint.")] = None,
    *,
    by: Annotated[str, typer.Option(help="Any of alias, version, tenant.")] = "alias,version",
    window: Annotated[str, typer.Option(help="How far to look back; default: 1d.")] = "",
    since: Annotated[str, typer.Option(help="From this day or time on (UTC).")] = "",
    until: Annotated[str, typer.Option(help="To before this day or time (UTC).")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Add up what people and graders said of answers, each with its 95 % interval.

    [bold]Example[/bold]: pilotage quality chat --window 7d
    """
    query = {"endpoint": endpoint, "by": by, "window": window, "since": since, "until": until}

    async def work(control: ControlClient) -> tuple[dict[str, Any], dict[str, str]]:
        given = {name: value for name, value in query.items() if value}
        names = await name_tenants(control) | await name_versions(control, by)
        return await control.get("/quality", **given), names

    found, names = run(work, project)
    if as_json:
        show_json(found)
        return
    keys = list(found["items"][0]["group"]) if found["items"] else []
    rows = [
        (
            *(names.get(value, value) for value in item["group"].values()),
            *(_estimate(item[metric]) for metric in _METRICS.values()),
        )
        for item in found["items"]
    ]
    show_table((*keys, *(f"#{title}" for title in _METRICS)), rows, _NONE)


@command(FEEDBACK, "list")
def list_feedback(
    endpoint: Annotated[str | None, typer.Argument(help="Only of an endpoint.")] = None,
    *,
    tenant: Annotated[str | None, typer.Option(help="Only of a tenant.")] = None,
    comments: Annotated[
        bool, typer.Option("--comments", help="With comments; the audit log says who read them.")
    ] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """List feedback in the order in which it was given.

    [bold]Examples[/bold]: pilotage feedback list chat --tenant acme
    |    pilotage feedback list chat --comments --reason "why answers are disliked"
    """
    shown = True if comments else None

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/feedback", endpoint=endpoint, tenant=tenant, comments=shown)

    found = run(work, project, reason)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            show_time(item["at"]),
            item["endpoint"],
            item["model"],
            item["request_id"],
            item["score"],
            item["label"],
            item["state"],
            *([_comment(item)] if comments else []),
        )
        for item in found
    ]
    columns = ("at", "endpoint", "model", "request", "#score", "label", "call")
    show_table((*columns, "comment") if comments else columns, rows, _NONE)


def _comment(item: dict[str, Any]) -> str:
    """Return a comment; one that nothing opens any more is told of."""
    return str(item["comment"] or ("(erased)" if item["has_comment"] else ""))


def _estimate(estimate: dict[str, Any] | None) -> str:
    """Return an estimate as people read it; nothing where nobody judged."""
    if estimate is None:
        return ""
    span = f"{estimate['low']:.2f}-{estimate['high']:.2f}"
    return f"{estimate['value']:.2f} ({span}, n={estimate['n']})"
