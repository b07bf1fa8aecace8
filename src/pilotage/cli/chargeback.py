"""``pilotage chargeback``: a month's costs as a file of FOCUS rows; an invoice beside them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    Project,
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

GROUP = make_group("chargeback", "Chargeback: costs as FOCUS rows, and a provider's invoice.")
FORMATS = ("csv", "parquet")
Month = Annotated[str, typer.Argument(metavar="MONTH", help="Such as 2026-03.")]


@command(GROUP)
def export(
    month: Month,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv or .parquet.")],
    *,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Only of a tenant; shadow for copies of calls, none for what is of no tenant."
        ),
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write a month's costs as rows of FOCUS 1.2, which add up to the ledger exactly.

    [bold]Examples[/bold]: pilotage chargeback export 2026-03 march.csv
    |    pilotage chargeback export 2026-03 acme.parquet --tenant acme
    """
    form = file.suffix.removeprefix(".")
    if form not in FORMATS:
        fail_usage(f"{file} says no format.", "Name it .csv or .parquet.")

    async def work(control: ControlClient) -> tuple[bytes, bool]:
        closed = await collect(control, "/chargeback")
        content = await control.download(
            at("chargeback", month), format=form, tenant=tenant, project=project
        )
        return content, any(month <= item["month"] for item in closed)

    content, is_closed = run(work, project)
    file.write_bytes(content)
    if as_json:
        known = {"file": str(file), "bytes": len(content), "month": month}
        show_json(known | {"is_closed": is_closed})
    else:
        state = "which is closed" if is_closed else "which is open and may still change"
        say(f"{file}: the costs of {month}, {state}, {len(content):,} bytes.")


@command(GROUP)
def months(*, project: Project = "default", as_json: Json = False) -> None:
    """List the months that are closed: they and all before do not change any more.

    [bold]Example[/bold]: pilotage chargeback months
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/chargeback")

    items = run(work, project)
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item["month"],
            show_time(item["closed_at"]),
            item["calls_usd"],
            item["entries_usd"],
            item["total_usd"],
        )
        for item in items
    ]
    columns = ("month", "closed (UTC)", "#USD of calls", "#USD of all else", "#USD")
    show_table(columns, rows, "No month is closed yet.")


@command(GROUP)
def reconcile(
    month: Month,
    invoice: Annotated[Path, typer.Argument(metavar="INVOICE", help="The provider's CSV file.")],
    *,
    provider: Annotated[str, typer.Option(help="openai, anthropic or vertex.")],
    every: Annotated[bool, typer.Option("--all", help="Lines that agree as well.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Compare a provider's invoice with what was recorded, line by line.

    [bold]Example[/bold]: pilotage chargeback reconcile 2026-03 openai.csv --provider openai
    """
    content = invoice.read_bytes()

    async def send() -> AsyncIterator[bytes]:
        yield content

    async def work(control: ControlClient) -> dict[str, Any]:
        path = f"{at('chargeback', month)}:reconcile"
        return await control.upload(path, send(), provider=provider)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    lines = [item for item in found["items"] if every or item["match"] != "same"]
    rows = [
        (
            item["period"],
            item["model"] or "(none)",
            item["token_class"],
            item["invoiced"],
            item["recorded"],
            item["difference"],
            item["match"].replace("_", " "),
        )
        for item in lines
    ]
    rows.append(("total", "", "", found["invoiced"], found["recorded"], found["difference"], ""))
    columns = ("period", "model", "tokens", "#invoiced", "#recorded", "#difference", "")
    show_table(columns, rows, "", has_total=True)
    if found["outside_lines"]:
        said = "1 line of another month is"
        if found["outside_lines"] > 1:
            said = f"{found['outside_lines']:,} lines of other months are"
        note(f"{said} not compared, USD {found['outside']}.")
