"""``pilotage``: every command, and the one place where errors become exit codes."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import pilotage

USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors end with one clear line, Ctrl-C with code 130."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["version"]:  # asked by scripts, often: without loading what parses commands
        sys.stdout.write(f"{pilotage.__version__}\n")
        sys.exit()
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    from pilotage.cli.app import make_app
    from pilotage.cli.session import explain
    from pilotage.core.errors import PilotageError

    try:
        code: object = make_app()(words, prog_name="pilotage", standalone_mode=False)
    except PilotageError as failed:
        return explain(failed)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as failed:
        if failed.filename is None:  # of no file that somebody named
            raise
        return explain(PilotageError("invalid_request", f"{failed.filename}: {failed.strerror}."))
    except Exception as broken:
        message = getattr(broken, "format_message", None)
        if message is None:
            raise
        return _explain_usage(broken, message())
    return code if isinstance(code, int) else 0


def _explain_usage(wrong: Any, message: str) -> int:  # noqa: ANN401 - Typer keeps its type private
    """Write what is wrong with the command as one line, and where to read about it."""
    from pilotage.cli.session import explain
    from pilotage.core.errors import PilotageError

    context = getattr(wrong, "ctx", None)
    path = context.command_path if context else "pilotage"
    line = " ".join(message.split())
    explain(PilotageError("invalid_request", line, hint=f"See: {path} --help"))
    return USAGE_ERROR


if __name__ == "__main__":
    main()
