"""``pilotage audit``: who changed what, when and why, and whether the record is whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    FAILURE,
    Json,
    Out,
    at,
    collect,
    make_bar,
    note,
    run,
    say,
    show_json,
    show_table,
    show_time,
)
from pilotage.core.errors import PilotageError
from pilotage.kit.config import load_settings
from pilotage.sdk.control import ControlClient

GROUP = make_group("audit", "The audit log: every change and every call, in a tree of hashes.")


Event = Annotated[str, typer.Option(help="Only events that begin so.")]
Since = Annotated[str | None, typer.Option(help="Only from this time on.")]
Until = Annotated[str | None, typer.Option(help="Only before this time.")]


@command(GROUP, "list")
def list_entries(
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=500, help="How many of the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    event: Event = "",
    as_json: Json = False,
) -> None:
    """List the newest entries, the newest last.

    [bold]Example[/bold]: pilotage audit list --event endpoints. -n 5
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        if everything:
            return await collect(control, "/audit/entries", event=event)
        page = await control.get("/audit/entries", newest=True, limit=count, event=event)
        return list(page["items"])

    _show_entries(run(work), as_json=as_json)


@command(GROUP)
def search(
    text: Annotated[str, typer.Argument(help="Words in the reason.")] = "",
    *,
    event: Event = "",
    object_id: Annotated[
        str | None, typer.Option("--object", help="Only of an object, by id.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what somebody did, by id.")] = None,
    project: Annotated[str | None, typer.Option(help="Only in a project, by name.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Search all entries, the newest last.

    [bold]Examples[/bold]: pilotage audit search "incident 12" --since 2026-11-01
    |    pilotage audit search --object dep_0198f2 --actor prn_0198f1
    """
    query = {"text": text, "event": event, "object_id": object_id, "actor": actor}

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        within = (await control.get(at("projects", project)))["id"] if project else None
        more = {"project_id": within, "since": since, "until": until}
        return await collect(control, "/audit/entries", **query, **more)

    _show_entries(run(work), as_json=as_json)


@command(GROUP)
def export(
    out: Annotated[Path, typer.Argument(help="The file to write, one entry a line.")],
    *,
    proofs: Annotated[bool, typer.Option("--proofs", help="Each line is a proof.")] = False,
    event: Event = "",
    since: Since = None,
    until: Until = None,
) -> None:
    """Write entries to a file as JSON lines, in the log's own words; 'check' reads proofs.

    [bold]Example[/bold]: pilotage audit export october.jsonl --since 2026-10-01 --proofs
    """
    query = {"event": event, "since": since, "until": until, "proofs": proofs}

    async def work(control: ControlClient) -> int:
        written = 0
        place: dict[str, object] = {}
        with make_bar(is_bytes=False) as bar, out.open("wb") as file:
            task = bar.add_task("audit log", total=None)
            while place.get("after", 0) is not None:
                page = await control.get("/audit/export", limit=500, **query, **place)
                file.writelines(_write_lines(page))
                written += len(page["positions"])
                bar.update(task, completed=written)
                place["after"] = page["next"]
        return written

    say(f"{out}: {run(work)} entries")


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
def verify(
    *,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept elsewhere; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute the whole log, and compare it with all that should agree; exit code 1 if not.

    [bold]Example[/bold]: pilotage audit verify --checkpoint /mnt/other/00000000000000001024
    """
    kept = [(path, _read(path).decode("utf-8", "replace")) for path in checkpoint or ()]

    async def work(control: ControlClient) -> dict[str, Any]:
        report = await control.post("/audit:verify")
        for path, text in kept:
            finding = await control.post("/audit:compare", {"checkpoint": text})
            report["findings"].append(finding | {"says": f"{path}: {finding['says']}"})
            report["is_intact"] &= finding["is_good"]
        return report

    try:
        report = run(work)
    except PilotageError as broken:
        if broken.code != "audit_broken":
            raise
        report = _inspect_files(broken.detail.rstrip("."))
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


def _inspect_files(why: str) -> dict[str, Any]:
    """Check what there is of a log that no control plane opens."""
    from pilotage.kit.data_folder import DataFolder
    from pilotage.runtime.auditing import inspect_files

    settings = load_settings()
    report = inspect_files(settings, DataFolder(settings.data_path), why)
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


@command(GROUP)
def checkpoint(
    *,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Sign what the log is now; keep it elsewhere, and no later change can hide from it.

    [bold]Example[/bold]: pilotage audit checkpoint --out /mnt/other/today.checkpoint
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/audit:checkpoint")

    made = run(work)
    if out is not None:
        out.write_text(made["checkpoint"])
    if as_json:
        show_json(made)
    elif out is None:
        say(made["checkpoint"].rstrip("\n"))
    else:
        say(f"{out}: {made['size']} entries")


@command(GROUP)
def prove(
    what: Annotated[
        str, typer.Argument(help="An entry's place, a call's id, or any other object's.")
    ],
    *,
    is_revision: Annotated[
        bool, typer.Option("--revision", help="The number is a revision's.")
    ] = False,
    out: Out = None,
) -> None:
    """Prove that an entry is in the log; anybody can check the proof without this installation.

    Of an object (a decision, say) its newest change is proved; of a call its line and its block.

    [bold]Examples[/bold]: pilotage audit prove 12 --out proof.json
    |    pilotage audit prove call_0198f2 --out call.json
    """
    if what.isdecimal():
        name = "revision" if is_revision else "position"
    else:
        name = "call_id" if what.startswith("call_") else "object_id"

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/audit/proof", **{name: what})

    proof = run(work)
    if out is None:
        show_json(proof)
        return
    out.write_text(msgspec.json.format(msgspec.json.encode(proof)).decode() + "\n")
    say(f"{out}: entry {proof['index']} of {proof['size']}")


@command(GROUP)
def check(
    file: Annotated[Path, typer.Argument(help="What 'prove' or 'export --proofs' has written.")],
    *,
    key: Annotated[
        str, typer.Option(help="The log's public key in hex; without it, the file's own is taken.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check proofs offline, without a server or a data folder; exit code 1 if one does not hold.

    [bold]Example[/bold]: pilotage audit check proof.json --key 5f0c...
    """
    from pilotage.runtime.proofs import check_proofs

    checked = check_proofs(_read(file), key)
    wrong = next((found for found in checked if found.problem), None)
    shown = wrong or checked[-1]
    if as_json:
        show_json({"holds": not wrong, "problem": shown.problem, "entry": shown.entry})
    elif wrong:
        say(f"{file}: proof {checked.index(wrong) + 1} does NOT hold: {wrong.problem}")
    elif len(checked) > 1:
        say(f"{file}: {len(checked)} entries are in the log {shown.log} of {shown.size} entries")
    else:
        say(f"{file}: entry {shown.position} is in the log {shown.log} of {shown.size} entries")
        show_json(shown.entry)
    if not key and not wrong:
        note("The key was the file's own: compare it with one that you have from elsewhere.")
    if wrong:
        raise typer.Exit(FAILURE)


def _show_entries(entries: list[dict[str, Any]], *, as_json: bool) -> None:
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


def _write_lines(page: dict[str, Any]) -> Iterator[bytes]:
    """Yield the lines of a page: proofs as ``check`` reads them, or entries with their places."""
    shared = {name: page[name] for name in ("log", "public_key", "size", "checkpoint")}
    if page["paths"] is None:
        for position, entry in zip(page["positions"], page["entries"], strict=True):
            said = msgspec.Raw(entry.encode())
            yield msgspec.json.encode({"position": position, "entry": said}) + b"\n"
        return
    rows = zip(page["positions"], page["entries"], page["paths"], strict=True)
    for position, entry, path in rows:
        proof = {"index": position, "entry": entry, "path": path}
        yield msgspec.json.encode(shared | proof) + b"\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failed:
        raise PilotageError(
            "invalid_request", f"{path} cannot be read: {failed.strerror}."
        ) from None
