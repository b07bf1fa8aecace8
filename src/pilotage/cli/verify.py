"""``pilotage verify``: check what Pilotage has signed, without a server or a data folder."""

from pathlib import Path
from typing import Annotated

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import FAILURE, Json, fail_usage, note, say, show_json

GROUP = make_group("verify", "Check signed files anywhere, without a server.")
KEY_LETTERS = 64


@GROUP.callback()
def verify() -> None:
    """Check signed files anywhere, without a server."""


@command(GROUP)
def bundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle of a decision.")],
    *,
    key: Annotated[
        str | None,
        typer.Option(metavar="PUB", help="The audit log's public key: a .pub file, or in hex."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the bundle of a decision; exit code 1 and the reason if it was changed.

    Without --key it shows only that nobody without the key in the bundle has changed it.

    [bold]Example[/bold]: pilotage verify bundle decision.json --key audit.pub
    """
    from pilotage.runtime.bundles import verify_bundle  # the log's code is for this command alone

    checks = verify_bundle(_read(file), None if key is None else _read_key(key))
    is_good = all(check.is_good for check in checks)
    if as_json:
        shown = [
            {"check": check.name, "is_good": check.is_good, "said": check.said} for check in checks
        ]
        show_json({"is_good": is_good, "checks": shown})
    else:
        for check in checks:
            say(f"{'ok    ' if check.is_good else 'WRONG '} {check.name}: {check.said}")
        if is_good and key is None:
            note("Compare the key with one that you trust: --key keys/audit.pub")
    if not is_good:
        raise typer.Exit(FAILURE)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as wrong:
        fail_usage(f"{file} cannot be read: {wrong.strerror}.")


def _read_key(text: str) -> bytes:
    path = Path(text)
    written = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else text
    try:
        found = bytes.fromhex(written.strip())
    except ValueError:
        found = b""
    if len(found) != KEY_LETTERS // 2:
        fail_usage(
            f"{text[:80]!r} is neither a file with a public key nor one in hex.",
            "It is keys/audit.pub in the data folder of whoever made the bundle.",
        )
    return found
