"""``pilotage models evidence``: what was found out about versions, and where it comes from."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

GROUP = make_group("evidence", "What was found out about a version: metrics, scans, evaluations.")
EMPTY = (
    "There is no evidence. Add some: pilotage models evidence add NAME@VERSION accuracy=0.92 "
    "--run eval-7"
)
PERFORMANCE, COST = "metric.performance", "metric.cost"
Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version.")]
_MEASURED = re.compile(r"([^=]+)=([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z%/]*)")


@command(GROUP)
def add(  # noqa: PLR0913 - evidence has that many parts
    ref: Version,
    measured: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE[UNIT]]...", help="What was measured.")
    ] = None,
    *,
    cost: Annotated[bool, typer.Option("--cost", help="These are metrics of cost.")] = False,
    kind: Annotated[str, typer.Option(help="Another kind, such as scan.security.")] = "",
    subject: Annotated[str, typer.Option(help="What of this kind; the metric of --samples.")] = "",
    verdict: Annotated[
        bool | None, typer.Option("--passed/--failed", help="What it comes to.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Raw numbers, one a line.")
    ] = None,
    unit: Annotated[str, typer.Option(help="The unit of --samples, such as ms.")] = "",
    file: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A list of items as the API has them.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="How many samples it is of.")] = None,
    run_id: Annotated[str, typer.Option("--run", help="The run that measured it.")] = "",
    data: Annotated[str, typer.Option(help="The dataset version it was measured on.")] = "",
    tool: Annotated[str, typer.Option(help="What measured it.")] = "",
    note: Annotated[str, typer.Option(help="What else is to be said.")] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="When it holds no longer.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Add what was found out about a version; what it replaces stays as history.

    [bold]Examples[/bold]: pilotage models evidence add chat@1.0.0 accuracy=0.92 latency_p95=234.5ms
    |    pilotage models evidence add chat@1.0.0 --samples latencies.txt --subject latency_p95
    |    pilotage models evidence add chat@1.0.0 --kind scan.security --passed
    """
    same = {
        "n": n,
        "passed": verdict,
        "run_id": run_id,
        "dataset_version_id": data,
        "tool": tool,
        "note": note,
        "expires_at": expires or None,
    }
    metric = kind or (COST if cost else PERFORMANCE)
    items = [same | {"kind": metric} | _parse_measured(text) for text in measured or []]
    if samples is not None:
        numbers = _read(samples).split()
        items.append(same | {"kind": metric, "subject": subject, "unit": unit, "samples": numbers})
    elif kind and not items:
        items.append(same | {"kind": kind, "subject": subject})
    if file is not None:
        items += _read_items(file)
    if not items:
        fail_usage("There is nothing to add.", "Give NAME=VALUE, --samples, --kind or --file.")

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        made = await control.post(path_of(ref, "evidence"), {"items": items})
        added: list[dict[str, Any]] = made["items"]
        return added

    added = run(work, project, reason)
    if as_json:
        show_json(added)
    else:
        for item in added:
            say(f"{item['kind']} {item['subject']} {show_value(item)}".rstrip())


@command(GROUP, "list")
def list_evidence(
    ref: Version,
    *,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    history: Annotated[bool, typer.Option("--history", help="What was replaced, too.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List what was found out about a version, newest first.

    [bold]Example[/bold]: pilotage models evidence list chat@1.0.0 --history
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        asked = {"history": str(history).lower()} | ({"kind": kind} if kind else {})
        return await collect(control, path_of(ref, "evidence"), **asked)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    columns = ("kind", "subject", "#value", "#n", "verdict", "from", "added (UTC)", "note")
    show_table(columns, [_row(item) for item in found], EMPTY)


def path_of(ref: str, *more: str) -> str:
    """Return the API's path of a version; raise ``invalid_request`` for a ref without a number."""
    name, at_sign, version = ref.partition("@")
    if not at_sign:
        raise PilotageError(
            "invalid_request",
            f"{ref!r} names no version.",
            hint=f"Write NAME@VERSION; pilotage models versions {name} lists them.",
        )
    return at("models", name, "versions", version, *more)


def show_value(item: dict[str, Any]) -> str:
    """Return a number as people read it, with its unit and its interval."""
    if item["value"] is None:
        return {True: "passed", False: "failed", None: ""}[item["passed"]]
    unit = f" {item['unit']}" if item["unit"] else ""
    around = "" if item["low"] is None else f" ({item['low']} to {item['high']})"
    return f"{item['value']}{unit}{around}"


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    verdict = {True: "passed", False: "failed", None: ""}[item["passed"]]
    origin = ", ".join(filter(None, (item["run_id"], item["dataset_version_id"], item["tool"])))
    note = "replaced" if item["superseded_by"] else item["note"]
    value = show_value(item) if item["value"] is not None else ""
    when = show_time(item["created_at"])
    return (item["kind"], item["subject"], value, item["n"], verdict, origin, when, note)


def _parse_measured(text: str) -> dict[str, Any]:
    found = _MEASURED.fullmatch(text)
    if found is None:
        fail_usage(f"{text!r} is no measurement.", "Write NAME=VALUE, such as latency_p95=234.5ms.")
    return {"subject": found[1], "value": found[2], "unit": found[3]}


def _read_items(file: Path) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(_read(file), type=list[dict[str, Any]])
    except msgspec.DecodeError as wrong:
        fail_usage(f"{file}: {wrong}.", 'Write a list: [{"kind": "scan.security", "passed": true}]')


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as failed:
        fail_usage(f"{file} cannot be read: {failed}.")
