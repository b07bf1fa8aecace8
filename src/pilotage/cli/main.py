"""``pilotage``: every command, and the one place where errors become exit codes."""

import sys

import typer

import pilotage
from pilotage.cli import init, session, up
from pilotage.core.errors import PilotageError

app = typer.Typer(
    name="pilotage",
    help="One gateway for every model call, one release path for every model change.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(init.init)


@app.command()
def version() -> None:
    """Show the version."""
    sys.stdout.write(f"{pilotage.__version__}\n")


def main() -> None:
    """Run the command line; errors end with one clear line, Ctrl-C with code 130."""
    try:
        app()
    except PilotageError as failed:
        sys.exit(session.explain(failed))
    except KeyboardInterrupt:
        sys.exit(130)
