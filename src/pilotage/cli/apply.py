"""``pilotage apply``: make the objects what files say they are. It never deletes anything."""

from typing import Annotated, Any

import typer

from pilotage.cli.objects import read_documents
from pilotage.cli.plan import make_plan
from pilotage.cli.session import Json, Project, Reason, note, run, say, show_json
from pilotage.cli.step import Step
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient


def apply(
    *,
    files: Annotated[
        list[str],
        typer.Option("--file", "-f", metavar="FILE|FOLDER|-", help="What to apply; repeatable."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create and change objects as YAML files say; applied again, it changes nothing.

    Everything is checked before the first change, and nothing is ever deleted.

    [bold]Examples[/bold]: pilotage apply -f release.yaml --dry-run
    |    pilotage apply -f release/ --reason "new prices"
    """
    documents = read_documents(files, project)

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        plan = await make_plan(control, documents)
        if dry_run:
            return [_show(step, as_json=as_json) for step in plan]
        return await _apply(plan, as_json=as_json)

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)
    elif dry_run:
        note("This is what would happen; nothing has been changed.")


async def _apply(plan: list[Step], *, as_json: bool) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    first = [step for step in plan if step.document.kind == "Project"]
    later = [step for step in plan if step.document.kind != "Project"]
    step = plan[0]
    try:
        for step in first:
            await step.act()
            done.append(_show(step, as_json=as_json))
        for step in later:  # files come in before anything refers to them: one may be no model
            await step.prepare()
        for step in later:
            await step.act()
            done.append(_show(step, as_json=as_json))
    except PilotageError as failed:
        what = f"{step.document.kind} {step.document.content.title}"
        raise PilotageError(
            failed.code,
            f"{step.document.place}: {what}: {failed.detail}",
            hint=failed.hint or "What was applied before stays; mend it and apply again.",
        ) from None
    return done


def _show(step: Step, *, as_json: bool) -> dict[str, Any]:
    document = step.document
    shown = {
        "kind": document.kind,
        "name": document.content.title,
        "project": document.project,
        "result": step.result,
    }
    if step.secret:
        shown["secret"] = step.secret
    if not as_json:
        where = "" if document.project == "default" else f"  (project {document.project})"
        say(f"{step.result:<10}{document.kind} {document.content.title}{where}")
        if step.secret:
            say(f"          {step.secret}")
            note("          Keep this text: it is shown this once.")
    return shown
