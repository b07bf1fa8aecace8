"""``pilotage models promote``, ``pilotage gates`` and ``pilotage release-policy``."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.evidence import Version, path_of
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    fail_usage,
    note,
    run,
    say,
    show_fields,
    show_json,
    show_table,
)
from pilotage.sdk.control import ControlClient

GATES = make_group("gates", "Gates: what each stage asks of a version.")
POLICY = make_group("release-policy", "What may serve traffic, and who must agree to changes.")
Stage = Annotated[
    str, typer.Argument(metavar="STAGE", help="development, staging, production or archived.")
]
Gated = Annotated[str, typer.Argument(metavar="STAGE", help="staging or production.")]
CHECK_FORM = (
    'Write NAME[:SUBJECT] [KEY=VALUE]..., such as "latency_p95 max=250 min_n=100" or '
    '"not_worse:accuracy tolerance_percent=1" or "licence allowed=MIT,Apache-2.0".'
)
NUMBERS = ("min_n", "max_age_days")
KEYS = ("min", "max", "allowed", "tolerance_percent", "by_interval", *NUMBERS)


def promote(
    ref: Version,
    stage: Stage,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the gates would say.")
    ] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Move a version to a stage, through its gates; no stage is skipped.

    Going back, from production to staging or from the archive, needs a reason.

    [bold]Examples[/bold]: pilotage models promote chat@1.2.0 staging
    |    pilotage models promote chat@1.2.0 production --dry-run
    """
    path = path_of(ref)

    async def work(control: ControlClient) -> dict[str, Any]:
        if dry_run:
            return await control.get(f"{path}:assess", stage=stage)
        return await control.post(f"{path}:promote", {"stage": stage, "reason": reason})

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)
    elif dry_run:
        _show_gates(shown["gates"])
        say(f"{ref} {'may' if shown['may_pass'] else 'may not'} go to {stage}.")
    else:
        say(f"{ref}: {shown['before']} -> {shown['stage']}.")
    if dry_run and not shown["may_pass"]:
        raise typer.Exit(1)


@command(GATES, "list")
def list_gates(*, project: Project = "default", as_json: Json = False) -> None:
    """List what each stage asks.

    [bold]Example[/bold]: pilotage gates list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await control.get("/gate-policies"))["items"]
        return items

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (item["stage"], ", ".join(map(_name, item["checks"])), item["approvals"], item["rev"])
        for item in found
    ]
    show_table(("stage", "checks", "#approvals", "#revision"), rows, "No stage has gates.")


@command(GATES, "show")
def show_gates(stage: Gated, *, project: Project = "default", as_json: Json = False) -> None:
    """Show what a stage asks.

    [bold]Example[/bold]: pilotage gates show production
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("gate-policies", stage))

    found = run(work, project)
    if as_json:
        show_json(found)
    else:
        _show_policy(found)


@command(GATES, "set")
def set_gates(
    stage: Gated,
    *,
    check: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="A check; may be repeated.")
    ] = None,
    approvals: Annotated[
        int | None, typer.Option(min=0, help="How many others must approve.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Replace the checks of a stage, or how many must approve; what is not named stays.

    [bold]Examples[/bold]: pilotage gates set staging --check scan_format --check "accuracy min=0.9"
    |    pilotage gates set production --approvals 2
    """
    if check is None and approvals is None:
        fail_usage("There is nothing to set.", "Give --check or --approvals.")
    wanted = None if check is None else [read_check(text) for text in check]

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("gate-policies", stage)
        now = await control.get(path)
        body = {
            "checks": now["checks"] if wanted is None else wanted,
            "approvals": now["approvals"] if approvals is None else approvals,
        }
        return await control.put(path, body, rev=now["rev"])

    changed = run(work, project, reason)
    if as_json:
        show_json(changed)
    else:
        _show_policy(changed)


@command(POLICY, "show")
def show_policy(*, project: Project = "default", as_json: Json = False) -> None:
    """Show what a change of traffic needs.

    [bold]Example[/bold]: pilotage release-policy show
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/release-policy")

    _show_release_policy(run(work, project), as_json=as_json)


@command(POLICY, "set")
def set_policy(
    *,
    serve_from: Annotated[
        str | None, typer.Option(metavar="STAGE", help="The lowest stage that may serve.")
    ] = None,
    approvals: Annotated[
        int | None, typer.Option(min=0, help="How many others must agree to a change of traffic.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Replace what a change of traffic needs; what is not named stays, what serves goes on.

    [bold]Example[/bold]: pilotage release-policy set --serve-from production --approvals 1
    """
    if serve_from is None and approvals is None:
        fail_usage("There is nothing to set.", "Give --serve-from or --approvals.")

    async def work(control: ControlClient) -> dict[str, Any]:
        now = await control.get("/release-policy")
        body = {
            "serve_from_stage": serve_from or now["serve_from_stage"],
            "approvals": now["approvals"] if approvals is None else approvals,
        }
        return await control.put("/release-policy", body, rev=now["rev"])

    _show_release_policy(run(work, project, reason), as_json=as_json)


def read_check(text: str) -> dict[str, Any]:
    """Read a check such as ``latency_p95 max=250``; anything else is a misuse."""
    first, *rest = text.split() or [""]
    name, _, subject = first.partition(":")
    found: dict[str, Any] = {"name": name} | ({"subject": subject} if subject else {})
    for word in rest:
        key, _, value = word.partition("=")
        if key not in KEYS or not value or key in found:
            fail_usage(f"{word!r} is no part of a check.", CHECK_FORM)
        if key in NUMBERS and not (value.isascii() and value.isdigit()):
            fail_usage(f"{word!r} is no number.", CHECK_FORM)
        parts = {"allowed": value.split(","), "by_interval": value in ("true", "yes")}
        found[key] = int(value) if key in NUMBERS else parts.get(key, value)
    return found


def _show_gates(gates: list[dict[str, Any]]) -> None:
    rows = [
        (
            item["name"],
            item["state"].replace("_", " "),
            f"{item['value']} {item['unit']}".strip() if item["value"] else "",
            item["threshold"],
            item["detail"],
        )
        for item in gates
    ]
    show_table(("gate", "verdict", "value", "asked for", "detail"), rows, "Nothing is asked.")
    for item in gates:
        if item["command"]:
            note(f"{item['name']}: {item['command']}")


def _show_policy(policy: dict[str, Any]) -> None:
    show_fields(
        {
            "stage": policy["stage"],
            "approvals": policy["approvals"],
            "revision": policy["rev"] or "0, the default",
        }
    )
    rows = [(_name(item), _describe(item)) for item in policy["checks"]]
    show_table(("check", "asks for"), rows, "It checks nothing.")


def _show_release_policy(policy: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(policy)
        return
    show_fields(
        {
            "serves from": policy["serve_from_stage"],
            "approvals": policy["approvals"],
            "revision": policy["rev"] or "0, the default",
        }
    )


def _name(check: dict[str, Any]) -> str:
    return f"{check['name']}:{check['subject']}" if check["subject"] else str(check["name"])


def _describe(check: dict[str, Any]) -> str:
    said = {key: check[key] for key in KEYS if check[key] not in (None, [], "0", False)}
    if "allowed" in said:
        said["allowed"] = ",".join(check["allowed"])
    return " ".join(f"{key}={value}" for key, value in said.items())
