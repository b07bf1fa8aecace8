"""``pilotage decisions``: the record of every change of traffic or of a stage."""

import sys
from pathlib import Path
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
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("decisions", "Decision records: what changed, who approved it, how to undo it.")
EMPTY = "There are no such decisions."
Decision = Annotated[str, typer.Argument(metavar="DECISION", help="The decision, by id.")]


@command(GROUP, "list")
def list_decisions(  # noqa: PLR0913 - every part narrows the list
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=500, help="How many of the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only promote, split, rollback ...")] = None,
    subject: Annotated[str, typer.Option(help="Only of an endpoint or version.")] = "",
    by: Annotated[str, typer.Option(help="Only what somebody did, by id.")] = "",
    since: Annotated[str | None, typer.Option(help="Only from then on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before then.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List the newest decisions, the newest last.

    [bold]Example[/bold]: pilotage decisions list --subject chat -n 5
    """
    query = {"kind": kind, "subject": subject, "by": by, "since": since, "until": until}

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        if everything:
            return await collect(control, "/decisions", **query)
        page = await control.get("/decisions", newest=True, limit=count, **query)
        return list(page["items"])

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (show_time(item["at"]), item["id"], item["summary"], item["by"], item["reason"])
        for item in found
    ]
    show_table(("time (UTC)", "id", "what", "by", "reason"), rows, EMPTY)


@command(GROUP)
def show(
    decision: Decision,
    *,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the page; - for stdout.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write it as Markdown.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show a decision and the answers to the six questions of a deployment.

    [bold]Examples[/bold]: pilotage decisions show dec_01jd8x
    |    pilotage decisions show dec_01jd8x --html decision.html
    """
    if html is not None or markdown:
        _write_page(decision, project, html or "-", "html" if html else "markdown")
        return

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("decisions", decision))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    names = found["names"]
    show_fields(
        {
            "decision": found["id"],
            "what": found["summary"],
            "by": names.get(found["by"], found["by"]),
            "at": show_time(found["at"]),
            "reason": found["reason"],
        }
    )
    for answer in found["answers"]:
        say(f"\n{answer['question']}")
        for line in answer["lines"] + answer["missing"]:
            say(f"  {line}")


@command(GROUP, "note")
def add_note(
    decision: Decision,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to remember.")],
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Add a note to a decision; it stays for ever.

    [bold]Example[/bold]: pilotage decisions note dec_01jd8x "the June report is in the wiki"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("decisions", decision, "notes"), {"text": text})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"Fact {made['number']} of {decision}.")


@command(GROUP)
def bundle(
    decision: Decision,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to.")],
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write the signed bundle of a decision: it proves itself without a server.

    [bold]Example[/bold]: pilotage decisions bundle dec_01jd8x --out decision.json
    """

    async def work(control: ControlClient) -> bytes:
        return await control.download(at("decisions", decision, "bundle"), project=project)

    content = run(work, project)
    out.write_bytes(content)
    if as_json:
        show_json({"decision": decision, "file": str(out), "bytes": len(content)})
    else:
        say(f"Wrote {out} ({len(content)} bytes).")
        note(f"Check it anywhere: pilotage verify bundle {out} --key keys/audit.pub")


@command(GROUP, "log")
def deployment_log(
    *,
    interventions: Annotated[
        bool, typer.Option("--interventions", help="Only what people overruled.")
    ] = False,
    subject: Annotated[str, typer.Option(help="Only of an endpoint or version.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show the deployment log, or the log of manual interventions, in order.

    [bold]Examples[/bold]: pilotage decisions log --subject chat
    |    pilotage decisions log --interventions
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        if interventions:
            return await collect(control, "/intervention-log")
        return await collect(control, "/deployment-log", subject=subject)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            show_time(item["at"]),
            item["decision_id"],
            f"{item['what']} {item['subject']}" if interventions else item["summary"],
            item["by"],
            item["reason"] or "no reason was given",
        )
        for item in found
    ]
    show_table(("time (UTC)", "decision", "what", "by", "reason"), rows, EMPTY)


def _write_page(decision: str, project: str, target: str, form: str) -> None:
    async def work(control: ControlClient) -> bytes:
        path = at("decisions", decision, "page")
        return await control.download(path, format=form, project=project)

    content = run(work, project)
    if target == "-":
        sys.stdout.write(content.decode())
        return
    Path(target).write_bytes(content)
    note(f"Wrote {target}.")
