"""``pilotage plan`` and ``apply``: make the objects what files say they are; never delete any."""

from decimal import Decimal
from typing import Annotated, Any

import typer

from pilotage.cli.objects.documents import read_documents
from pilotage.cli.objects.drift import Stray, find_strays
from pilotage.cli.objects.plan import make_plan
from pilotage.cli.objects.step import UNCHANGED, Difference, Step
from pilotage.cli.session import FAILURE, Json, Project, Reason, note, run, say, show_json
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE|FOLDER|-", help="What to apply; repeatable."),
]
DIFFERENT = "different"
STRAY = "not in files"


def plan(
    *,
    files: Files,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also list what is there and in no document.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if anything differs: for CI.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Say what applying files would change, field by field; change nothing.

    With --drift this is a report of where an installation has left its files.

    [bold]Examples[/bold]: pilotage plan -f release/
    |    pilotage plan -f release/ --drift --check
    """
    documents = read_documents(files, project)

    async def work(control: ControlClient) -> tuple[list[Step], list[Stray]]:
        steps = await make_plan(control, documents)
        return steps, await find_strays(control, documents) if drift else []

    steps, strays = run(work, project)
    shown = [_show(step, as_json=as_json) for step in steps]
    shown += [_show_stray(stray, as_json=as_json) for stray in strays]
    changes = sum(step.result != UNCHANGED for step in steps)
    if as_json:
        show_json(shown)
    elif not changes and not strays:
        note("Nothing differs.")
    else:
        note(f"{changes} of {len(steps)} objects would change; nothing has been changed.")
    if check and (changes or strays):
        raise typer.Exit(FAILURE)


def apply(
    *,
    files: Files,
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
    if dry_run:
        plan(files=files, project=project, as_json=as_json)
        return
    documents = read_documents(files, project)

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await _apply(await make_plan(control, documents), as_json=as_json)

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)


async def _apply(steps: list[Step], *, as_json: bool) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    first = [step for step in steps if step.document.kind == "Project"]
    later = [step for step in steps if step.document.kind != "Project"]
    step = steps[0]
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
    shown: dict[str, Any] = {
        "kind": document.kind,
        "name": document.content.title,
        "project": document.project,
        "result": step.result,
    }
    if step.differences:
        shown[DIFFERENT] = {
            item.field: {"now": _plain(item.now), "wanted": _plain(item.wanted)}
            for item in step.differences
        }
    if step.secret:
        shown["secret"] = step.secret
    if not as_json:
        say(_line(step.result, document.kind, document.content.title, document.project))
        for item in step.differences:
            say(f"              {_describe(item)}")
        if step.secret:
            say(f"              {step.secret}")
            note("              Keep this text: it is shown this once.")
    return shown


def _show_stray(stray: Stray, *, as_json: bool) -> dict[str, Any]:
    if not as_json:
        say(_line(STRAY, stray.kind, stray.title, stray.project))
    return {
        "kind": stray.kind,
        "name": stray.title,
        "project": stray.project,
        "result": STRAY,
    }


def _line(result: str, kind: str, title: str, project: str) -> str:
    where = "" if project == "default" else f"  (project {project})"
    return f"{result:<14}{kind} {title}{where}"


def _describe(item: Difference) -> str:
    return f"{item.field}: {_plain(item.now)} -> {_plain(item.wanted)}"


def _plain(value: object) -> object:
    """Return a value as JSON and people read it."""
    if value is None or isinstance(value, bool | int | float | list | dict):
        return value
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return str(value)
