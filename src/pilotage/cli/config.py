"""``pilotage config``: the settings of the processes, and where they come from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import Json, say, show_json, show_table
from pilotage.kit.config import LoadedSettings, get_value, list_settings, read_settings
from pilotage.kit.config import resolve_secret as check_secret

GROUP = make_group("config", "Settings: pilotage.yaml and PILOTAGE_* variables.")
File = Annotated[
    Path | None, typer.Option("--file", help="The file; default: PILOTAGE_CONFIG or pilotage.yaml.")
]


@command(GROUP)
def check(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list every setting there is.")
    ] = False,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Check file and variables; exit code 2, and one line that names the fix, if they are wrong.

    [bold]Examples[/bold]: pilotage config check    |    pilotage config check --all
    """
    loaded = read_settings(file)
    if loaded.settings.database.password:
        check_secret(loaded.settings.database.password)
    if as_json:
        show_json({"is_valid": True} | _summarise(loaded) | (_document() if everything else {}))
        return
    count = len(loaded.origins)
    say(f"The settings are valid: {count} set, the others at their defaults ({_name(loaded)}).")
    if everything:
        rows = [
            (doc.name, doc.variable, doc.type, doc.default, doc.description)
            for doc in list_settings()
        ]
        show_table(("setting", "variable", "type", "default", "meaning"), rows, "")


@command(GROUP, "show")
def show_settings(*, file: File = None, as_json: Json = False) -> None:
    """Show every setting and where it comes from; secrets as the references they are.

    [bold]Example[/bold]: pilotage config show
    """
    loaded = read_settings(file)
    rows = [
        (doc.name, get_value(loaded.settings, doc.name), loaded.origins.get(doc.name, "default"))
        for doc in list_settings()
    ]
    if as_json:
        settings = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        show_json({"settings": settings} | _summarise(loaded))
    else:
        show_table(("setting", "value", "origin"), rows, "")


def _summarise(loaded: LoadedSettings) -> dict[str, Any]:
    return {
        "file": None if loaded.file is None else str(loaded.file),
        "data_path": str(loaded.settings.data_path),
    }


def _document() -> dict[str, Any]:
    return {"settings": list_settings()}


def _name(loaded: LoadedSettings) -> str:
    return "no file was read" if loaded.file is None else str(loaded.file)
