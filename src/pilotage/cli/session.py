"""What every command shares: settings, the control client, output for people or as JSON, errors as one line."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings, load_settings
from pilotage.sdk.control import ControlClient, Watch, open_control

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
USAGE_ERROR = 2
FAILURE = 1

Result = TypeVar("Result")
Json = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
Project = Annotated[str, typer.Option("--project", help="The project.")]


def run(work: Callable[[ControlClient], Awaitable[Result]], project: str = "default") -> Result:
    """Run one command against the control plane and return what it returns."""
    return asyncio.run(_with_control(load_settings(), work, project))


async def _with_control(
    settings: Settings, work: Callable[[ControlClient], Awaitable[Result]], project: str
) -> Result:
    async with open_control(settings, project) as control:
        return await work(control)


def show_json(value: object) -> None:
    """Write a value as JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def show_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str
) -> None:
    """Write rows as a table, or say that there are none and what to do."""
    if not rows:
        OUT.print(empty)
        return
    table = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    OUT.print(table)


def explain(error: PilotageError) -> int:
    """Write an error as one clear line (its hint on a second one); return the exit code."""
    ERR.print(
        f"[red]error:[/red] {error.detail}" if ERR.is_terminal else f"error: {error.detail}",
        markup=ERR.is_terminal,
    )
    if error.hint:
        ERR.print(f"  {error.hint}", markup=False)
    return USAGE_ERROR if error.code == "invalid_config" else FAILURE


class OperationBar:
    """A progress bar for an operation; silent where nobody looks."""

    def __init__(self, title: str, *, is_bytes: bool = False) -> None:
        sizes = DownloadColumn() if is_bytes else TaskProgressColumn()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            sizes,
            console=ERR,
            disable=not ERR.is_terminal,
        )
        self._title = title
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> Watch:
        self._progress.start()
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _watch(self, operation: dict[str, Any]) -> None:
        total = operation["total"] if operation["total"] > 0 else None
        text = f"{self._title}: {operation['phase']}"
        self._progress.update(
            self._task, description=text, completed=operation["done"], total=total
        )
