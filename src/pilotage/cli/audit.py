"""``pilotage audit``: who changed what, when and why, and whether the record is whole."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    FAILURE,
    Json,
    collect,
    note,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

GROUP = make_group("audit", "The audit log: every change and every call, in a tree of hashes.")


@command(GROUP, "list")
def list_entries(  # noqa: PLR0913 - a search has that many parts
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=500, help="How many of the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    event: Annotated[str, typer.Option(help="Only events that begin so.")] = "",
    object_id: Annotated[
        str | None, typer.Option("--object", help="Only of an object, by id.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what somebody did, by id.")] = None,
    text: Annotated[str, typer.Option(help="Only with these words in the reason.")] = "",
    since: Annotated[str | None, typer.Option(help="Only from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    as_json: Json = False,
) -> None:
    """List the newest entries, the newest last.

    [bold]Examples[/bold]: pilotage audit list --event endpoints. -n 5
    |    pilotage audit list --text "incident 12" --since 2026-11-01
    """
    query = {
        "event": event,
        "object_id": object_id,
        "actor": actor,
        "text": text,
        "since": since,
        "until": until,
    }

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        if everything:
            return await collect(control, "/audit/entries", **query)
        page = await control.get("/audit/entries", newest=True, limit=count, **query)
        return list(page["items"])

    entries = run(work)
    if as_json:
        show_json(entries)
        return
    rows = [
        (
            item["position"],
            show_time(item["at"]),
            item["event"],
            item["object_id"],
            item["actor"],
            item["reason"],
        )
        for item in entries
    ]
    empty = "There are no such entries. See all: pilotage audit list --all"
    show_table(("#position", "time (UTC)", "event", "object", "by", "reason"), rows, empty)


@command(GROUP)
def show(
    position: Annotated[int, typer.Argument(help="The entry's place in the log.")],
    *,
    as_json: Json = False,  # noqa: ARG001 - an entry is JSON
) -> None:
    """Show an entry in the log's own words, with the object before and after.

    [bold]Example[/bold]: pilotage audit show 12
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(f"/audit/entries/{position}")

    show_json(run(work))


@command(GROUP)
def verify(*, as_json: Json = False) -> None:
    """Recompute the whole log, and compare it with all that should agree; exit code 1 if not.

    [bold]Example[/bold]: pilotage audit verify --json
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/audit:verify")

    report = run(work)
    if as_json:
        show_json(report)
    else:
        for finding in report["findings"]:
            say(f"{'ok ' if finding['is_good'] else 'BAD'}  {finding['says']}")
        whole = "intact" if report["is_intact"] else "NOT what it was"
        say(f"{report['entries']} entries, {whole}. Root: {report['root']}")
        note("No check of a log can show:")
        for line in report["cannot_show"]:
            note(f"- {line}")
    if not report["is_intact"]:
        raise typer.Exit(FAILURE)


@command(GROUP)
def checkpoint(
    *,
    out: Annotated[Path | None, typer.Option(help="Write it to a file.")] = None,
    as_json: Json = False,
) -> None:
    """Sign what the log is now; keep it elsewhere, and no later change can hide from it.

    [bold]Example[/bold]: pilotage audit checkpoint --out /mnt/other/today.checkpoint
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/audit:checkpoint")

    made = run(work)
    if out is not None:
        _write(out, made["checkpoint"])
    if as_json:
        show_json(made)
    elif out is None:
        say(made["checkpoint"].rstrip("\n"))
    else:
        say(f"{out}: {made['size']} entries")


@command(GROUP)
def prove(
    position: Annotated[int, typer.Argument(help="The entry's place in the log.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write it to a file.")] = None,
) -> None:
    """Prove that an entry is in the log; anybody can check the proof without this installation.

    [bold]Example[/bold]: pilotage audit prove 12 --out proof.json
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/audit/proof", position=position)

    proof = run(work)
    if out is None:
        show_json(proof)
        return
    _write(out, msgspec.json.format(msgspec.json.encode(proof)).decode() + "\n")
    say(f"{out}: entry {proof['index']} of {proof['size']}")


@command(GROUP)
def check(
    file: Annotated[Path, typer.Argument(help="What 'prove' has written.")],
    *,
    key: Annotated[
        str, typer.Option(help="The log's public key in hex; without it, the file's own is taken.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a proof offline, without a server or a data folder; exit code 1 if it does not hold.

    [bold]Example[/bold]: pilotage audit check proof.json --key 5f0c...
    """
    from pilotage.audit.proofs import check_file

    try:
        found = check_file(file.read_bytes(), key)
    except OSError as failed:
        raise PilotageError(
            "invalid_request", f"{file} cannot be read: {failed.strerror}."
        ) from None
    if as_json:
        show_json({"holds": not found.problem, "problem": found.problem, "entry": found.entry})
    elif found.problem:
        say(f"{file}: does NOT hold: {found.problem}")
    else:
        say(f"{file}: entry {found.position} is in the log {found.log} of {found.size} entries")
        show_json(found.entry)
        if not key:
            note("The key was the file's own: compare it with one that you have from elsewhere.")
    if found.problem:
        raise typer.Exit(FAILURE)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as failed:
        raise PilotageError(
            "invalid_request", f"{path} cannot be written: {failed.strerror}."
        ) from None
