"""``pilotage query``: single calls in SQL."""

import csv
import sys
from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, Project, fail_usage, note, run, show_json, show_table
from pilotage.core.duration import parse_duration_us
from pilotage.sdk.control import ControlClient


def query(  # noqa: PLR0913 - what narrows a question, and what an answer may take
    sql: Annotated[str, typer.Argument(help="One SELECT about the view calls.")],
    *,
    tenant: Annotated[str, typer.Option(help="Show only the calls of this tenant.")] = "",
    since: Annotated[str, typer.Option(help="From this day or time on (UTC).")] = "",
    until: Annotated[str, typer.Option(help="Before this day or time (UTC).")] = "",
    limit: Annotated[int, typer.Option(help="Rows to show at most.")] = 100,
    timeout: Annotated[str, typer.Option(help="Longest time it may take, like 10s.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV instead of a table.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Ask for single calls in SQL (DuckDB's); [bold]DESCRIBE calls[/bold] lists the columns.

    [bold]Example[/bold]: pilotage query "SELECT model, sum(cost_usd) FROM calls GROUP BY 1"
    """
    body: dict[str, object] = {
        "sql": sql,
        "tenant": tenant,
        "since": since,
        "until": until,
        "limit": limit,
    }
    if timeout:
        try:
            body["timeout_s"] = parse_duration_us(timeout) / 1e6
        except ValueError as wrong:
            fail_usage(f"--timeout: {wrong}.")

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/queries", body)

    found = run(work, project)
    columns = [column["name"] for column in found["columns"]]
    if as_json:
        show_json(found)
    elif as_csv:
        csv.writer(sys.stdout).writerows([columns, *found["rows"]])
    else:
        marks = ["#" if _is_number(column["type"]) else "" for column in found["columns"]]
        names = [mark + name for mark, name in zip(marks, columns, strict=True)]
        show_table(names, found["rows"], "No calls fit.")
    if found["is_cut"] and not as_json:
        note(f"There are more than {len(found['rows'])} rows: see --limit.")
    if found["missing"] and not as_json:
        note(f"{found['missing']} files of calls are missing or damaged: the answer is not whole.")


def _is_number(kind: str) -> bool:
    return kind.endswith("INT") or kind.startswith(("INTEGER", "DECIMAL", "DOUBLE", "FLOAT"))
