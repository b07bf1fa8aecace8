"""``pilotage tenants``: who pays for calls."""

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
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.sdk.control import ControlClient

GROUP = make_group("tenants", "Tenants: who pays for calls.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant.")]


@command(GROUP, "list")
def list_tenants(*, project: Project = "default", as_json: Json = False) -> None:
    """List tenants by name.

    [bold]Example[/bold]: pilotage tenants list --project research
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/tenants")

    tenants = run(work, project)
    if as_json:
        show_json(tenants)
        return
    rows = [(item["name"], item["id"], show_time(item["created_at"])) for item in tenants]
    empty = "There are no tenants. Make one: pilotage tenants create NAME"
    show_table(("name", "id", "created (UTC)"), rows, empty)


@command(GROUP)
def create(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Create a tenant.

    [bold]Example[/bold]: pilotage tenants create acme
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/tenants", {"name": name})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name} is created. Give it a key: pilotage keys create --tenant {name}")


@command(GROUP, "show")
def show_tenant(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a tenant and what holds for its calls.

    [bold]Example[/bold]: pilotage tenants show acme
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(at("tenants", name))

    shown = run(work, project)
    if as_json:
        show_json(shown)
    else:
        show_fields(_describe(shown))


@command(GROUP)
def change(  # noqa: PLR0913 - a tenant has that many settings
    name: Name,
    *,
    time_zone: Annotated[
        str | None, typer.Option(help="Where its days and months begin, such as Europe/Berlin.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(help="Where its calls may be answered; !local takes this installation out."),
    ] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Answer in any region.")] = False,
    feature: Annotated[
        list[str] | None, typer.Option(help="What it may send as x-pilotage-feature.")
    ] = None,
    no_features: Annotated[bool, typer.Option("--no-features", help="It names none.")] = False,
    data_class: Annotated[
        str | None,
        typer.Option(help="What it sends: public, internal, confidential or restricted."),
    ] = None,
    shows: Annotated[
        bool | None,
        typer.Option("--shows/--hides", help="Whether replies carry cost, arm and version."),
    ] = None,
    log_percent: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="Part of its calls that the request log keeps."),
    ] = None,
    measure_percent: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="Part of its calls whose texts are measured."),
    ] = None,
    sample_percent: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Part of its calls that is kept, pseudonymised and sealed, to be replayed.",
        ),
    ] = None,
    keeps_comments: Annotated[
        bool | None,
        typer.Option(
            "--keeps-comments/--drops-comments", help="Whether comments in feedback are kept."
        ),
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Change what holds for a tenant's calls; what is not named stays.

    [bold]Examples[/bold]: pilotage tenants change acme --time-zone Europe/Berlin --region eu
    |    pilotage tenants change acme --data-class restricted --feature search --log-percent 1
    """
    named = {
        "time_zone": time_zone,
        "regions": [] if anywhere else region,
        "features": [] if no_features else feature,
        "data_class": data_class,
        "shows": shows,
        "log_percent": log_percent,
        "measure_percent": measure_percent,
        "sample_percent": sample_percent,
        "keeps_comments": keeps_comments,
    }
    given = {key: value for key, value in named.items() if value is not None}
    if not given:
        fail_usage("Nothing is to be changed.", "See: pilotage tenants change --help")

    async def work(control: ControlClient) -> dict[str, Any]:
        path = at("tenants", name)
        now = await control.get(path)
        return await control.put(path, {key: now[key] for key in named} | given, rev=now["rev"])

    changed = run(work, project, reason)
    if as_json:
        show_json(changed)
    else:
        show_fields(_describe(changed))


@command(GROUP)
def delete(
    name: Name, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a tenant and revoke its keys; its usage stays in the ledger.

    [bold]Example[/bold]: pilotage tenants delete acme --reason "contract ended"
    """

    async def work(control: ControlClient) -> None:
        await control.delete(at("tenants", name))

    run(work, project, reason)
    if as_json:
        show_json({"deleted": name})
    else:
        say(f"{name} is deleted and its keys are revoked.")


def _describe(tenant: dict[str, Any]) -> dict[str, object]:
    return {
        "name": tenant["name"],
        "time zone": tenant["time_zone"],
        "regions": ", ".join(tenant["regions"]) or "any",
        "features": ", ".join(tenant["features"]) or "none",
        "data class": tenant["data_class"],
        "replies show cost": "yes" if tenant["shows"] else "no",
        "logged": f"{tenant['log_percent']:g} %",
        "measured": f"{tenant['measure_percent']:g} %",
        "sampled": f"{tenant['sample_percent']:g} %",
        "comments in feedback": "kept" if tenant["keeps_comments"] else "dropped",
        "id": tenant["id"],
    }


@command(GROUP)
def erase(
    name: Name,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Erase a tenant for ever: its keys, and who its users are. Needs the role security.

    [bold]Examples[/bold]: pilotage tenants erase acme --dry-run
    |    pilotage tenants erase acme --reason "request of 3 March"
    """
    if not dry_run and not is_sure:
        typer.confirm(f"Erase {name} for ever?", abort=True, err=True)

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(at("tenants", name) + ":erase", {"dry_run": dry_run})

    report = run(work, project, reason)
    if as_json:
        show_json(report)
        return
    said = "is erased" if report["is_done"] else "would be erased"
    say(
        f"{name} {said}: {report['users']} users, {report['data_keys']} data keys, "
        f"{report['api_keys']} API keys, {report['limits']} limits that name a user."
    )
    rows = [(item["where"], item["what"], item["until"]) for item in report["remnants"]]
    show_table(("left in", "what", "until"), rows, "Nothing is left.")
