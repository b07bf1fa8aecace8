"""``pilotage routes`` and ``pilotage inhibitions``: which alerts are told where, and which not."""

from typing import Annotated, Any

import typer
import yaml

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Out,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    note,
    run,
    say,
    show_fields,
    show_json,
    show_table,
)
from pilotage.sdk.control import ControlClient

ROUTES = make_group("routes", "Routes: which alerts are told on which channels.")
INHIBITIONS = make_group("inhibitions", "Inhibitions: which alerts say enough for others.")
KINDS = ("page", "ticket", "finance")
EMPTY = (
    "There are no routes: alerts are told in the server's log. Make one: pilotage routes set page "
    "--kind page --match 'severity=error|critical' --to on-call"
)
NO_INHIBITIONS = (
    "There are no inhibitions. Make one: pilotage inhibitions set down --source rule=down "
    "--target rule=slow --equal alias"
)
FIELDS = ("kind", "match", "channels", "group_by", "settle", "interval", "repeat")
PARTS = ("source", "target", "equal")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The route.")]
InhibitionName = Annotated[str, typer.Argument(metavar="NAME", help="The inhibition.")]


@command(ROUTES, "list")
def list_routes(*, project: Project = "default", as_json: Json = False) -> None:
    """List routes by name; alerts take every route that fits them.

    [bold]Example[/bold]: pilotage routes list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/notice-routes")

    routes = run(work, project)
    if as_json:
        show_json(routes)
        return
    rows = [
        (item["name"], item["kind"], say_match(item["match"]), ", ".join(item["channels"]))
        for item in routes
    ]
    show_table(("name", "kind", "alerts", "channels"), rows, EMPTY)


@command(ROUTES, "show")
def show_route(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a route.

    [bold]Example[/bold]: pilotage routes show page
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("notice-routes", name))

    route = run(work, project)
    if as_json:
        show_json(route)
        return
    pace = route["pace"]
    fields: dict[str, object] = {
        "name": route["name"],
        "kind": route["kind"],
        "alerts": say_match(route["match"]),
        "channels": ", ".join(route["channels"]),
        "together by": ", ".join(route["group_by"]),
        "told after": pace["settle"],
        "news after": pace["interval"],
        "again after": pace["repeat"],
        "id": route["id"],
    }
    show_fields(fields)


@command(ROUTES, "set")
def set_route(  # noqa: PLR0913 - a route has that many parts
    name: Name,
    *,
    kind: Annotated[str | None, typer.Option(help="page, ticket or finance.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=PATTERN", help="Only such alerts; as often as needed."),
    ] = None,
    to: Annotated[list[str] | None, typer.Option(metavar="CHANNEL", help="Where to.")] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Told together; * for each alone.")
    ] = None,
    settle: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long a group gathers, such as 30s.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option(metavar="TIME", help="Between news of a group.")
    ] = None,
    repeat: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until what still fires is told again.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set a route; one that is there keeps what is not named.

    [bold]Examples[/bold]: pilotage routes set page --kind page --match 'severity=error|critical'
    --to on-call
    |    pilotage routes set money --kind finance --match team=finance --to desk
    """
    if kind is not None and kind not in KINDS:
        fail_usage(f"There is no kind {kind!r}.", f"There are: {', '.join(KINDS)}.")
    matched = None if match is None else read_match(match)
    said = (kind, matched, to, group_by, settle, interval, repeat)
    given = {field: value for field, value in zip(FIELDS, said, strict=True) if value is not None}

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("notice-routes", name)
        now = await control.find(path)
        if now is None:
            if to is None:
                fail_usage(f"There is no route {name!r} yet.", "Say where it leads with --to.")
            return await control.post("/notice-routes", given | {"name": name})
        kept = {field: now[field] for field in FIELDS}
        return await control.put(path, kept | given, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        to_whom = ", ".join(made["channels"])
        say(f"{name}: {say_match(made['match'])} to {to_whom}, as {made['kind']}.")


@command(ROUTES)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a route; nothing more is told on it, not even that an alert is over.

    [bold]Example[/bold]: pilotage routes delete page
    """
    _delete("notice-routes", name, project, reason, as_json=as_json)


@command(ROUTES)
def export(
    *,
    out: Out = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write the routes, channels and inhibitions as Alertmanager's configuration.

    [bold]Example[/bold]: pilotage routes export -o alertmanager.yml
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/alertmanager-config")

    made = run(work, project)
    if as_json:
        show_json(made)
        return
    text = yaml.safe_dump(made["config"], sort_keys=False, allow_unicode=True)
    if out is None:
        say(text.rstrip())
    else:
        out.write_text(text, encoding="utf-8")
        say(f"{out} is written.")
    for line in made["notes"]:
        note(line)


@command(INHIBITIONS, "list")
def list_inhibitions(*, project: Project = "default", as_json: Json = False) -> None:
    """List inhibitions by name.

    [bold]Example[/bold]: pilotage inhibitions list
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/inhibitions")

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            item["name"],
            say_match(item["source"]),
            say_match(item["target"]),
            ", ".join(item["equal"]),
        )
        for item in found
    ]
    show_table(("name", "while", "not told", "of the same"), rows, NO_INHIBITIONS)


@command(INHIBITIONS, "show")
def show_inhibition(
    name: InhibitionName, *, project: Project = "default", as_json: Json = False
) -> None:
    """Show an inhibition.

    [bold]Example[/bold]: pilotage inhibitions show down
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("inhibitions", name))

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    fields: dict[str, object] = {
        "name": found["name"],
        "while": say_match(found["source"]),
        "not told": say_match(found["target"]),
        "of the same": ", ".join(found["equal"]),
        "id": found["id"],
    }
    show_fields(fields)


@command(INHIBITIONS, "set")
def set_inhibition(
    name: InhibitionName,
    *,
    source: Annotated[
        list[str], typer.Option(metavar="LABEL=PATTERN", help="While such an alert fires ...")
    ],
    target: Annotated[
        list[str], typer.Option(metavar="LABEL=PATTERN", help="... these are not told.")
    ],
    equal: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only where both have the same value of it."),
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set an inhibition: while one alert fires, others are not told.

    [bold]Example[/bold]: pilotage inhibitions set down --source rule=down --target rule=slow
    --equal alias
    """
    said = (read_match(source), read_match(target), equal or [])
    body = dict(zip(PARTS, said, strict=True))

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("inhibitions", name)
        now = await control.find(path)
        if now is None:
            return await control.post("/inhibitions", body | {"name": name})
        return await control.put(path, body, rev=now["rev"])

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name}: while {say_match(made['source'])}, not told: {say_match(made['target'])}.")


@command(INHIBITIONS, "delete")
def delete_inhibition(
    name: InhibitionName,
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Delete an inhibition.

    [bold]Example[/bold]: pilotage inhibitions delete down
    """
    _delete("inhibitions", name, project, reason, as_json=as_json)


def read_match(words: list[str]) -> dict[str, str]:
    """Return the patterns by label of ``LABEL=PATTERN``; end the command for anything else."""
    match: dict[str, str] = {}
    for word in words:
        label, is_there, pattern = word.partition("=")
        if not is_there or not label or label in match:
            fail_usage(f"{word!r} is no LABEL=PATTERN, or a second one.", "Such as: team=risk")
        match[label] = pattern
    return match


def say_match(match: dict[str, str]) -> str:
    """Return patterns by label as people read them."""
    return ", ".join(f"{label}={pattern}" for label, pattern in match.items()) or "all alerts"


def _delete(path: str, name: str, project: str, reason: str, *, as_json: bool) -> None:
    async def work(control: ControlClient) -> None:
        await control.delete(at(path, name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted.")
