"""What every command shares: the control client, output for people or as JSON, errors as a line."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote

import msgspec
import typer
from rich.console import Console

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_alias, check_name
from pilotage.kit.config import Settings, load_settings
from pilotage.sdk.control import ControlClient, Watch, open_control

if TYPE_CHECKING:
    from rich.progress import Progress

PIPE_WIDTH = 1000  # where nobody looks, a row is a line
OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
USAGE_ERROR = 2
FAILURE = 1

Result = TypeVar("Result")
Json = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
Project = Annotated[str, typer.Option("--project", help="The project.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Where to; standard output without."),
]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept in the audit log.")]


def run(
    work: Callable[[ControlClient], Awaitable[Result]], project: str = "default", reason: str = ""
) -> Result:
    """Run one command against the control plane and return what it returns."""
    return asyncio.run(_with_control(load_settings(), work, project, reason))


async def _with_control(
    settings: Settings,
    work: Callable[[ControlClient], Awaitable[Result]],
    project: str,
    reason: str,
) -> Result:
    async with open_control(settings, project, reason) as control:
        result = await work(control)
        for decision in control.decisions:
            note(f"decision {decision}")
        return result


async def collect(control: ControlClient, path: str, **query: object) -> list[dict[str, Any]]:
    """Return every item of a list."""
    return [item async for item in control.list(path, **query)]


def at(*parts: str) -> str:
    """Return a path of the API; raise ``invalid_request`` for a part that can be no name."""
    return "/" + "/".join(_quote(part) for part in parts)


def at_endpoint(name: str, *parts: str) -> str:
    """Return a path of the API below an endpoint; its name and a deployment's may have slashes."""
    return "/".join(["/endpoints", quote(check_alias(name), safe="/:"), *map(_quote_path, parts)])


def _quote_path(part: str) -> str:
    if {"", ".", ".."} & set(part.split("/")):  # it would be another path
        check_name(part)
    return quote(part, safe="/:@")


def _quote(part: str) -> str:
    if "/" in part or part in {"", ".", ".."}:  # it would be another path
        check_name(part)
    return quote(part, safe="@")


def show_json(value: object) -> None:
    """Write a value as JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str, *, has_total: bool = False
) -> None:
    """Write rows as a table, or say that there are none and what to do.

    Columns whose name begins with ``#`` hold numbers. ``has_total`` sets the last row apart.
    """
    if not rows:
        OUT.print(empty, markup=False)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = column.startswith("#")
        table.add_column(
            column.removeprefix("#"), justify="right" if is_number else "left", overflow="fold"
        )
    for number, row in enumerate(rows, 1):
        cells = ["" if value is None else str(value) for value in row]
        is_total = has_total and number == len(rows)
        table.add_row(*map(_plain, cells), style="bold" if is_total else None)
    OUT.print(table)


def show_fields(fields: dict[str, object]) -> None:
    """Write the fields of one object, a line each."""
    width = max(map(len, fields))
    for name, value in fields.items():
        OUT.print(f"{name:<{width}}  {'' if value is None else value}".rstrip(), markup=False)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def show_time(moment: str | None) -> str:
    """Return a time of the API as people read it: UTC, to the second."""
    return "" if moment is None else moment[:19].replace("T", " ")


def show_bytes(size: int) -> str:
    """Return a size as people read it."""
    from rich.filesize import decimal

    return decimal(size)


def say(text: str) -> None:
    """Write a line for people on stdout."""
    OUT.print(text, markup=False)


def note(text: str) -> None:
    """Write a line for people on stderr, beside the result."""
    ERR.print(text, markup=False)


def explain(error: PilotageError) -> int:
    """Write an error as one clear line (its hint on a second one); return the exit code."""
    ERR.print("error:", style="red", end=" ")
    ERR.print(error.detail, markup=False)
    if error.hint:
        ERR.print(f"  {error.hint}", markup=False)
    return USAGE_ERROR if error.code == "invalid_config" else FAILURE


def fail_usage(detail: str, hint: str = "") -> NoReturn:
    """End with a line about how the command was called, and exit code 2."""
    explain(PilotageError("invalid_request", detail, hint=hint))
    raise typer.Exit(USAGE_ERROR)


class OperationBar:
    """A progress bar for an operation; silent where nobody looks."""

    def __init__(self, title: str, *, is_bytes: bool = False) -> None:
        self._title = title
        self._bar = make_bar(is_bytes=is_bytes)
        self._task = self._bar.add_task(title, total=None)

    def __enter__(self) -> Watch:
        self._bar.start()
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _watch(self, operation: dict[str, Any]) -> None:
        total = operation["total"] if operation["total"] > 0 else None
        text = f"{self._title}: {operation['phase']}"
        self._bar.update(self._task, description=text, completed=operation["done"], total=total)


def make_bar(*, is_bytes: bool) -> "Progress":
    """Return a progress bar on stderr that is silent where nobody looks."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    sizes: list[ProgressColumn] = [TaskProgressColumn()]
    if is_bytes:
        sizes = [DownloadColumn(), TransferSpeedColumn()]
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *sizes,
        console=ERR,
        disable=not ERR.is_terminal,
        transient=True,
    )
