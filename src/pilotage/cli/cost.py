"""``pilotage cost``: what everything cost, where it is going, and what is booked beside calls."""

from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.keys import name_tenants
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    collect,
    run,
    say,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.cli.versions import name_versions
from pilotage.core.money import format_usd, parse_usd
from pilotage.sdk.control import ControlClient

GROUP = make_group("cost", "Costs: of calls, replicas, storage and network; outlook and savings.")
EMPTY = "Nothing has cost anything."
KINDS = ("calls", "compute", "idle", "storage", "network", "usage", "other")
Since = Annotated[str | None, typer.Option(help="From this day on (UTC).")]
Until = Annotated[str | None, typer.Option(help="To before this day (UTC).")]


@command(GROUP)
def show(
    *,
    by: Annotated[
        str,
        typer.Option(
            help="Any of tenant, user, key, feature, alias, model, version, release, upstream, "
            "day, month, kind."
        ),
    ] = "tenant,model",
    since: Since = None,
    until: Until = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only of a tenant, of shadow copies, or of none.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only of an endpoint.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of a model.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Sum up what calls, replicas, storage and everything else cost.

    [bold]Examples[/bold]: pilotage cost show --by tenant,month
    |    pilotage cost show --by release,kind --since 2026-03-01
    """
    query = {"since": since, "until": until, "tenant": tenant, "alias": endpoint, "model": model}

    async def work(control: ControlClient) -> tuple[list[dict[str, Any]], dict[str, str]]:
        names = await name_tenants(control) | await name_versions(control, by)
        return await collect(control, "/costs", by=by, **query), names

    rows, names = run(work, project)
    if as_json:
        show_json(rows)
        return
    keys = list(rows[0]["groups"]) if rows else []
    kinds = [kind for kind in KINDS if any(kind in row["by_kind"] for row in rows)]
    shown = [
        (
            *(names.get(row["groups"][key], row["groups"][key]) or "(none)" for key in keys),
            f"{row['calls']:,}",
            f"{row['tokens']:,}",
            *(row["by_kind"].get(kind, "") for kind in kinds),
            row["cost_usd"],
        )
        for row in rows
    ]
    if shown and keys:
        shown.append(_total(rows, kinds, len(keys)))
    columns = (*keys, "#calls", "#tokens", *(f"#of {kind}" for kind in kinds), "#USD")
    show_table(columns, shown, EMPTY, has_total=bool(keys))


@command(GROUP)
def outlook(*, project: Project = "default", as_json: Json = False) -> None:
    """Say what this month will have cost at its end, with a 90 % interval.

    [bold]Example[/bold]: pilotage cost outlook
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:outlook")

    seen = run(work, project)
    if as_json:
        show_json(seen)
        return
    say(f"{seen['month']}: USD {seen['spent_usd']} so far.")
    if seen["expected_usd"] is None:
        say(f"  {seen['days']} whole days were seen; from 7 on there is a forecast.")
    else:
        say(
            f"  At its end: USD {seen['expected_usd']}, between {seen['low_usd']} and "
            f"{seen['high_usd']} with {seen['confidence']:.0%}."
        )


@command(GROUP)
def anomalies(
    *,
    days: Annotated[int, typer.Option(help="How many days back.")] = 30,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List the days on which cost or calls stood out against the weeks before.

    [bold]Example[/bold]: pilotage cost anomalies --days 90
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:anomalies", days=days)

    items = run(work, project)["items"]
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["day"],
            item["measure"],
            _amount(item["measure"], item["amount"]),
            _amount(item["measure"], item["usual"]),
            f"{item['deviations']:+.1f}",
        )
        for item in items
    ]
    columns = ("day", "of", "#amount", "#usual", "#deviations")
    show_table(columns, rows, "No day stood out. A day needs two weeks before it.")


@command(GROUP)
def release(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id.")],
    *,
    since: Since = None,
    until: Until = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Say what a release cost, beside the others of its endpoint, and what taking it back costs.

    [bold]Example[/bold]: pilotage cost release dep_0abc --since 2026-03-01
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:release", release=deployment, since=since, until=until)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    nothing = "nobody else answered"
    excess = found["excess_nano"]
    show_fields(
        {
            "release": f"{found['release']} of {found['alias'] or '(none)'}",
            "calls": f"{found['calls']:,}",
            "USD of calls": format_usd(found["calls_nano"]),
            "USD of copies for nobody": format_usd(found["shadow_nano"]),
            "USD of replicas": format_usd(found["compute_nano"]),
            "USD of idle replicas": format_usd(found["idle_nano"]),
            "USD in all": found["total_usd"],
            "more than the others": nothing if excess is None else format_usd(excess),
            "paid for nothing if taken back": found["rollback_usd"],
        }
    )


@command(GROUP)
def savings(
    *,
    since: Since = None,
    until: Until = None,
    reference: Annotated[
        str, typer.Option(metavar="MODEL", help="As if it had answered everything.")
    ] = "",
    provider: Annotated[str, typer.Option(help="Whose model that is.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Say what routing, providers' caches and stopped replicas saved, on the usage there was.

    [bold]Example[/bold]: pilotage cost savings --reference gpt-4o --provider openai
    """
    query = {"since": since, "until": until, "reference": reference, "provider": provider}

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:savings", **query)

    items = run(work, project)["items"]
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["way"].replace("_", " "),
            item["subject"] or "(none)",
            item["reference"],
            item["without_usd"],
            item["with_usd"],
            item["saved_usd"],
        )
        for item in items
    ]
    columns = ("way", "of", "against", "#USD without", "#USD with", "#USD saved")
    show_table(columns, rows, "Nothing was saved that can be measured.")


@command(GROUP)
def models(
    *,
    task: Annotated[str, typer.Option(help="A feature or an endpoint.")] = "",
    since: Since = None,
    until: Until = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List what a call of each model cost, the cheapest first.

    [bold]Example[/bold]: pilotage cost models --task search
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:models", task=task, since=since, until=until)

    items = run(work, project)["items"]
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["model"],
            f"{item['calls']:,}",
            f"{item['failed']:,}",
            format_usd(item["nano_per_call"]),
            item["cost_usd"],
        )
        for item in items
    ]
    show_table(("model", "#calls", "#failed", "#USD a call", "#USD"), rows, EMPTY)


@command(GROUP)
def check(
    *, since: Since = None, until: Until = None, project: Project = "default", as_json: Json = False
) -> None:
    """Add the ledger up anew and compare it with the lines that costs are shown from.

    [bold]Example[/bold]: pilotage cost check --since 2026-03-01
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/costs:check", since=since, until=until)

    found = run(work, project)
    if as_json:
        show_json(found)
    elif found["is_equal"]:
        say(f"The ledger and the lines agree: USD {format_usd(found['ledger_nano'])}.")
    else:
        say(
            f"They differ: the ledger has USD {format_usd(found['ledger_nano'])}, the lines "
            f"{format_usd(found['lines_nano'])}."
        )
    if not found["is_equal"]:
        raise typer.Exit(1)


@command(GROUP)
def add(  # noqa: PLR0913 - a cost has that many parts
    usd: Annotated[
        str, typer.Argument(metavar="[USD]", help="What it cost; without, its quantity's price.")
    ] = "",
    *,
    kind: Annotated[
        str, typer.Option(help="network, storage, compute, idle, usage or other.")
    ] = "other",
    quantity: Annotated[
        str, typer.Option(help="How much: GiB sent, GiB-months stored, hours of a replica.")
    ] = "0",
    source: Annotated[str, typer.Option(help="Where it comes from; booked once.")],
    start: Annotated[str, typer.Option(help="From this day or time on.")],
    end: Annotated[str, typer.Option(help="To before this day or time.")],
    tenant: Annotated[str, typer.Option(help="Whose; of all together without.")] = "",
    endpoint: Annotated[str, typer.Option(help="The endpoint.")] = "",
    model: Annotated[str, typer.Option(help="The model.")] = "",
    provider: Annotated[str, typer.Option(help="Who charges it.")] = "",
    note: Annotated[str, typer.Option(help="What it is.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Book a cost that is no call's, such as the network of a month.

    [bold]Examples[/bold]: pilotage cost add 12.40 --source licence/2026-03
    --start 2026-03-01 --end 2026-04-01
    |    pilotage cost add --kind network --quantity 103.5 --source gcp/2026-03
    --start 2026-03-01 --end 2026-04-01
    """
    body = {"kind": kind, "source": source, "cost_usd": usd, "start": start, "end": end} | {
        "quantity": quantity,
        "tenant": tenant,
        "alias": endpoint,
        "model": model,
        "provider": provider,
        "note": note,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/cost-entries", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        days = " to ".join(dict.fromkeys((made["first_day"], made["last_day"])))
        closed = "".join(f" {month} is closed." for month in made["corrects"])
        say(f"{made['id']}: USD {made['cost_usd']} of {made['kind']} on {days}.{closed}")


@command(GROUP)
def entries(
    *,
    kind: Annotated[str | None, typer.Option(help="Only of a kind.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List what is booked beside calls.

    [bold]Example[/bold]: pilotage cost entries --kind network
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/cost-entries", kind=kind)

    items = run(work, project)
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["id"],
            item["kind"],
            show_time(item["start"]),
            item["source"],
            item["alias"],
            item["cost_usd"],
        )
        for item in items
    ]
    columns = ("id", "kind", "from (UTC)", "source", "endpoint", "#USD")
    show_table(columns, rows, "Nothing is booked beside calls.")


@command(GROUP)
def reverse(
    what: Annotated[str, typer.Argument(metavar="ID", help="A cost's or a call's id.")],
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Take a booked cost or a call's charge back, by an entry of its own.

    [bold]Example[/bold]: pilotage cost reverse call_0abc --reason "billed twice"
    """
    place = "cost-entries" if what.startswith("cst_") else "charges"

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post(f"{at(place, what)}:reverse")

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{what} is taken back: USD {made['cost_usd']}.")


@command(GROUP)
def price(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="compute, storage or network.")],
    usd: Annotated[str, typer.Argument(metavar="USD", help="A replica's hour, a GiB-month, GiB.")],
    *,
    endpoint: Annotated[str, typer.Option(help="Only of its replicas; * for all.")] = "*",
    spot: Annotated[str, typer.Option(metavar="USD", help="On machines that may go away.")] = "",
    valid_from: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when on; now without.")
    ] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Set what a replica's hour, storage or network costs from a time on.

    [bold]Example[/bold]: pilotage cost price compute 0.71 --spot 0.21 --endpoint chat
    """
    body = {"kind": kind, "price": usd, "subject": endpoint, "spot_price": spot}

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/resource-prices", body | {"valid_from": valid_from})

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{made['kind']} of {made['subject']}: USD {made['price']}.")


@command(GROUP)
def prices(*, project: Project = "default", as_json: Json = False) -> None:
    """List what resources cost, in the order in which it was set.

    [bold]Example[/bold]: pilotage cost prices
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/resource-prices")

    items = run(work, project)
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["kind"],
            item["subject"],
            item["price"],
            item["spot_price"],
            show_time(item["valid_from"]),
        )
        for item in items
    ]
    empty = "Resources have no prices. Set one: pilotage cost price compute 0.71"
    show_table(("kind", "endpoint", "#USD", "#USD on spot", "from (UTC)"), rows, empty)


def _total(rows: list[dict[str, Any]], kinds: list[str], keys: int) -> tuple[str, ...]:
    sums = [sum(parse_usd(row["by_kind"].get(kind, "0")) for row in rows) for kind in kinds]
    return (
        "total",
        *[""] * (keys - 1),
        f"{sum(row['calls'] for row in rows):,}",
        f"{sum(row['tokens'] for row in rows):,}",
        *map(format_usd, sums),
        format_usd(sum(row["cost_nano"] for row in rows)),
    )


def _amount(measure: str, amount: int) -> str:
    return format_usd(amount) if measure == "cost" else f"{amount:,}"
