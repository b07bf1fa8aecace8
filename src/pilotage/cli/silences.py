"""``pilotage silences`` and ``pilotage notices``: what is not told, and what was."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.routes import read_match, say_match
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.duration import parse_duration_us
from pilotage.kit.clock import SystemClock, parse_time, rfc3339
from pilotage.sdk.control import ControlClient

SILENCES = make_group("silences", "Silences: alerts of which nobody is told for a time.")
NOTICES = make_group("notices", "Notices: what was told, and what is on its way.")
NO_SILENCES = (
    "There are no silences. Make one: pilotage silences create --match alias=chat --for 2h "
    "--reason maintenance"
)
STATES = ("waiting", "delivered", "failed")
SilenceId = Annotated[str, typer.Argument(metavar="ID", help="The silence.")]
NoticeId = Annotated[str, typer.Argument(metavar="ID", help="The notice.")]


@command(SILENCES, "list")
def list_silences(
    *,
    with_ended: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List silences as they were made.

    [bold]Example[/bold]: pilotage silences list --all
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/silences", with_ended=with_ended)

    silences = run(work, project)
    if as_json:
        show_json(silences)
        return
    rows = [
        (
            item["id"],
            "on" if item["is_on"] else "off",
            say_match(item["match"]),
            show_time(item["ends_at"]),
            item["reason"],
        )
        for item in silences
    ]
    show_table(("id", "", "alerts", "until", "why"), rows, NO_SILENCES)


@command(SILENCES)
def create(
    *,
    match: Annotated[
        list[str], typer.Option(metavar="LABEL=PATTERN", help="Which alerts; as often as needed.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why nobody needs to be told.")],
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long, such as 2h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="A date, or RFC 3339, instead.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it begins; now if not told.")
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Tell nobody of some alerts for a time; that they are over is told even so.

    [bold]Example[/bold]: pilotage silences create --match alias=chat --for 2h --reason maintenance
    """
    body = {
        "match": read_match(match),
        "reason": reason,
        "ends_at": _read_end(since, lasting, until),
    }
    if since is not None:
        body["starts_at"] = since

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/silences", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        until_when = show_time(made["ends_at"])
        say(f"{made['id']}: nobody is told of {say_match(made['match'])} until {until_when} UTC.")


@command(SILENCES, "show")
def show_silence(
    silence: SilenceId, *, project: Project = "default", as_json: Json = False
) -> None:
    """Show a silence.

    [bold]Example[/bold]: pilotage silences show ID
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("silences", silence))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    fields: dict[str, object] = {
        "id": found["id"],
        "alerts": say_match(found["match"]),
        "since": show_time(found["starts_at"]),
        "until": show_time(found["ends_at"]),
        "why": found["reason"],
        "by": found["created_by"],
    }
    show_fields(fields)


@command(SILENCES)
def end(
    silence: SilenceId, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """End a silence now.

    [bold]Example[/bold]: pilotage silences end ID
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('silences', silence)}:end", {})

    ended = run(work, project, reason)
    if as_json:
        show_json(ended)
    else:
        say(f"{silence} is over.")


@command(NOTICES, "list")
def list_notices(
    *,
    state: Annotated[str | None, typer.Option(help=f"Only {', '.join(STATES)} ones.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only those of a channel.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List notices as they were made; those that ended are kept for a month.

    [bold]Example[/bold]: pilotage notices list --state failed
    """
    if state is not None and state not in STATES:
        fail_usage(f"There is no state {state!r}.", f"There are: {', '.join(STATES)}.")
    query = {
        name: value for name, value in (("state", state), ("channel", channel)) if value is not None
    }

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/notices", **query)

    notices = run(work, project)
    if as_json:
        show_json(notices)
        return
    rows = [
        (item["id"], item["state"], item["channel"], item["title"], item["problem"])
        for item in notices
    ]
    show_table(("id", "state", "channel", "says", "problem"), rows, "There are no notices.")


@command(NOTICES, "show")
def show_notice(notice: NoticeId, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a notice.

    [bold]Example[/bold]: pilotage notices show ID
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("notices", notice))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    fields: dict[str, object] = {
        "id": found["id"],
        "says": found["title"],
        "state": found["state"],
        "channel": found["channel"],
        "route": found["route"] or "none",
        "attempts": found["attempts"],
        "problem": found["problem"],
        "made": show_time(found["created_at"]),
        "ended": show_time(found["ended_at"]),
    }
    show_fields(fields)


@command(NOTICES)
def send(
    notice: NoticeId, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Try a notice anew that was given up.

    [bold]Example[/bold]: pilotage notices send ID
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at('notices', notice)}:send", {})

    sent = run(work, project, reason)
    if as_json:
        show_json(sent)
    else:
        say(f"{notice} is on its way to {sent['channel']} again.")


def _read_end(since: str | None, lasting: str | None, until: str | None) -> str:
    """Return when a silence ends, in the API's words; end the command for what is no time."""
    if (lasting is None) == (until is None):
        fail_usage("A silence lasts a time or until one.", "Such as: --for 2h")
    if until is not None:
        return until
    try:
        starts_us = SystemClock().now_us() if since is None else parse_time(since)
        return rfc3339(starts_us + parse_duration_us(lasting or ""))
    except ValueError as wrong:
        fail_usage(f"{wrong}.", "Such as: --for 2h")
