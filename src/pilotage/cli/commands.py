"""How commands are declared: Typer's, with a help that is shown before anything else happens.

Typer converts every argument through pydantic, the one of ``--help`` too. Help is asked for often
and needs no conversion, so these classes answer it first: a third of the time.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

Function = TypeVar("Function", bound=Callable[..., Any])
HELP = "--help"


class Command(TyperCommand):
    """A command that answers ``--help`` first."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the arguments, unless help is asked for."""
        if HELP in args[: args.index("--")] if "--" in args else HELP in args:
            _show_help(ctx)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands that answers ``--help``, and being called without anything, first."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the arguments, unless help is asked for."""
        if not args:
            _show_help(ctx, code=2)
        if args[0] == HELP:
            _show_help(ctx)
        return super().parse_args(ctx, args)


def make_group(name: str, text: str) -> typer.Typer:
    """Return a group of commands; ``text`` is its help."""
    return typer.Typer(name=name, help=text, cls=Group, rich_markup_mode="rich")


def command(group: typer.Typer, name: str | None = None) -> Callable[[Function], Function]:
    """Make a function a command of a group."""
    return group.command(name, cls=Command)


def _show_help(ctx: typer.Context, code: int = 0) -> None:
    typer.echo(ctx.get_help(), nl=False)
    raise typer.Exit(code)
