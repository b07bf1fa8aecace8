"""``pilotage calendar``: when nothing may change, and what is planned to change when."""

import json
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
    fail_usage,
    note,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("calendar", "The change calendar: freezes and scheduled releases.")
NO_FREEZES = "No freeze is ahead. Set one: pilotage calendar freeze NAME --from ... --to ..."
NO_RELEASES = "Nothing is planned. Plan: pilotage calendar schedule ACTION SUBJECT --at ..."
Why = Annotated[str, typer.Option("--reason", help="Why; kept for ever.")]
FreezeName = Annotated[str, typer.Argument(metavar="FREEZE", help="The freeze.")]


@command(GROUP, "list")
def list_calendar(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Ended releases, too.")] = False,
    since: Annotated[str | None, typer.Option(help="Freezes from then on; default: now.")] = None,
    until: Annotated[str | None, typer.Option(help="Freezes until then; default: 31 days.")] = None,
    project: Project = "default",
    ics: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write iCalendar; - for stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the freezes ahead and the releases that are planned.

    [bold]Examples[/bold]: pilotage calendar list --until 2026-12-31
    |    pilotage calendar list --ics changes.ics
    """
    if ics is not None:
        _export(ics, project)
        return
    state = None if everything else "planned"

    async def work(control: ControlClient) -> dict[str, list[dict[str, Any]]]:
        windows = await control.get("/calendar/windows", since=since, until=until)
        releases = await collect(control, "/calendar/releases", state=state)
        return {"freezes": windows["items"], "releases": releases}

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    _show_freezes(found["freezes"])
    say("")
    _show_releases(found["releases"])


@command(GROUP)
def freeze(  # noqa: PLR0913 - a freeze has that many parts
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    *,
    starts: Annotated[str, typer.Option("--from", metavar="TIME", help="2026-12-18T18:00+01:00")],
    ends: Annotated[str, typer.Option("--to", metavar="TIME", help="When it is over.")],
    reason: Why,
    of: Annotated[
        list[str] | None, typer.Option(help="An endpoint or model; default: the whole project.")
    ] = None,
    weekly: Annotated[bool, typer.Option("--weekly", help="Again each week.")] = False,
    until: Annotated[str | None, typer.Option(help="When a weekly one ends for good.")] = None,
    zone: Annotated[str, typer.Option(help="Whose local time a weekly one keeps.")] = "UTC",
    override_role: Annotated[str, typer.Option(help="Who may go through with a reason.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Set a freeze: while it lasts, no traffic moves and no stage changes.

    [bold]Examples[/bold]: pilotage calendar freeze year-end --from 2026-12-18 --to 2027-01-04
    --reason "year-end close" --override-role ml_ops
    |    pilotage calendar freeze weekends --from 2026-12-04T18:00+01:00
    --to 2026-12-07T07:00+01:00 --weekly --zone Europe/Berlin --reason "nobody is there"
    """
    body = {
        "name": name,
        "reason": reason,
        "starts_at": starts,
        "ends_at": ends,
        "names": of or [],
        "repeat": "weekly" if weekly else "never",
        "until": until,
        "time_zone": zone,
        "override_role": override_role,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/calendar/freezes", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        starts, ends = show_time(made["starts_at"]), show_time(made["ends_at"])
        say(f"{name} holds from {starts} to {ends} UTC.")


@command(GROUP)
def lift(
    name: FreezeName, *, reason: Why, project: Project = "default", as_json: Json = False
) -> None:
    """Lift a freeze for good, its repetitions too; on record for ever if it holds now.

    [bold]Example[/bold]: pilotage calendar lift year-end --reason "closed early"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.delete(at("calendar", "freezes", name))

    run(work, project, reason)
    if as_json:
        show_json({"lifted": name})
    else:
        say(f"{name} is lifted.")


@command(GROUP)
def override(
    name: FreezeName,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What is to be changed.")],
    *,
    reason: Why,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Take leave to change one subject during a freeze, once and within the hour.

    It goes into the log of manual interventions, with the reason.

    [bold]Example[/bold]: pilotage calendar override year-end chat --reason "outage 17"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        body = {"subject": subject, "reason": reason}
        return await control.post(at("calendar", "freezes", name, "overrides"), body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"You may change {subject} once until {show_time(made['expires_at'])} UTC.")


@command(GROUP)
def schedule(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What is to be done.")],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What it is done to.")],
    *,
    when: Annotated[str, typer.Option("--at", metavar="TIME", help="2026-12-01T06:00+01:00")],
    reason: Why,
    arguments: Annotated[
        str, typer.Option("--with", metavar="JSON", help="What the action is told.")
    ] = "{}",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Plan a change; gates, approvals and freezes are checked when it is made, in your name.

    [bold]Example[/bold]: pilotage calendar schedule registry.version.promote tiny@1.2.0
    --at 2026-12-01T06:00+01:00 --with '{"stage": "production"}' --reason "approved on Friday"
    """
    try:
        told = json.loads(arguments)
    except ValueError:
        fail_usage(f"--with: {arguments[:80]!r} is not JSON.")
    body = {"action": action, "subject": subject, "at": when, "reason": reason, "arguments": told}

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/calendar/releases", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{made['id']}: {action} {made['subject']} at {show_time(made['at'])} UTC.")


@command(GROUP)
def cancel(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="The release, by id.")],
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Cancel a planned release.

    [bold]Example[/bold]: pilotage calendar cancel sch_01jd8x --reason "not ready"
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('calendar', 'releases', release)}:cancel")

    ended = run(work, project, reason)
    if as_json:
        show_json(ended)
    else:
        say(f"{ended['id']} is {ended['state']}.")


def _export(target: str, project: str) -> None:
    async def work(control: ControlClient) -> bytes:
        return await control.download("/calendar.ics", project=project)

    content = run(work, project)
    if target == "-":
        sys.stdout.write(content.decode())
        return
    Path(target).write_bytes(content)
    note(f"Wrote {target}.")


def _show_freezes(windows: list[dict[str, Any]]) -> None:
    rows = [
        (
            show_time(item["starts_at"]),
            show_time(item["ends_at"]),
            item["freeze"],
            ", ".join(item["names"]) or "everything",
            item["reason"],
            item["override_role"] or "nobody",
        )
        for item in windows
    ]
    columns = ("from (UTC)", "to (UTC)", "freeze", "of", "reason", "override by")
    show_table(columns, rows, NO_FREEZES)


def _show_releases(releases: list[dict[str, Any]]) -> None:
    rows = [
        (
            show_time(item["at"]),
            item["id"],
            f"{item['action']} {item['subject']}",
            item["requested_by"],
            item["state"],
            item["outcome"] or item["decision_id"],
        )
        for item in releases
    ]
    show_table(("at (UTC)", "id", "what", "asked by", "state", "outcome"), rows, NO_RELEASES)
