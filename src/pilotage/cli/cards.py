"""``pilotage models card``: what people say of a version, as one page of Markdown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.evidence import Version, path_of
from pilotage.cli.session import Json, Project, Reason, fail_usage, run, say, show_json
from pilotage.sdk.control import ControlClient

TITLES = {
    "intended_use": "Intended use",
    "limits": "Limits",
    "training_data": "Training data",
    "evaluation": "Evaluation",
    "ethical_notes": "Ethical notes",
    "contacts": "Contacts",
}


def card(
    ref: Version,
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a page that --edit reads.")
    ] = False,
    edit: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Replace the card by this page.")
    ] = None,
    rev: Annotated[int | None, typer.Option(min=1, help="An earlier revision.")] = None,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Show a version's model card, or replace it by a page with the same headings.

    [bold]Examples[/bold]: pilotage models card chat@1.0.0 --markdown > card.md
    |    pilotage models card chat@1.0.0 --edit card.md
    """
    path = path_of(ref, "card")
    fields = None if edit is None else parse_page(_read(edit))

    async def work(control: ControlClient) -> dict[str, Any]:
        old = await control.get(path, **({} if rev is None else {"rev": rev}))
        return old if fields is None else await control.put(path, fields, old["rev"])

    shown = run(work, project, reason)
    if as_json:
        show_json(shown)
    elif markdown or edit is None:
        say("\n".join(write_page(shown)).rstrip())
    else:
        missing = [title for name, title in TITLES.items() if not shown[name]]
        rest = f"; still to say: {', '.join(missing)}" if missing else ", and complete"
        say(f"The card of {shown['ref']} is at revision {shown['rev']}{rest}.")


def write_page(shown: dict[str, Any]) -> Iterator[str]:
    """Write a card as Markdown, a heading for each field."""
    yield f"# Model card of {shown['ref']}"
    for name, title in TITLES.items():
        yield f"\n## {title}\n"
        yield shown[name]


def parse_page(text: str) -> dict[str, str]:
    """Read a page as :func:`write_page` writes it; an unknown heading is a misuse."""
    names = {title.casefold(): name for name, title in TITLES.items()}
    fields: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ").strip()
            name = names.get(title.casefold())
            if name is None:
                fail_usage(
                    f"{title!r} is no part of a card.", f"Use: {', '.join(TITLES.values())}."
                )
            lines = fields.setdefault(name, [])
        elif lines is not None:
            lines.append(line)
    return {name: "\n".join(found).strip() for name, found in fields.items()}


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as failed:
        fail_usage(f"{file} cannot be read: {failed}.")
