"""``pilotage datasets``: what models are trained and measured on, in versions that never change."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.commands import command, make_group
from pilotage.cli.session import (
    Json,
    OperationBar,
    Project,
    Reason,
    at,
    collect,
    fail_usage,
    make_bar,
    run,
    say,
    show_bytes,
    show_fields,
    show_json,
    show_table,
    show_time,
)
from pilotage.cli.uploads import list_tree, push_blobs
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

GROUP = make_group("datasets", "Datasets, their versions, and what keeps them.")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="The dataset.")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="The dataset, or a version.")]
Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version, or a release.")]
Files = list[Path] | None


@command(GROUP)
def create(
    name: Name,
    *,
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    by_date: Annotated[
        bool, typer.Option("--by-date", help="Number versions by date, not 1.2.3.")
    ] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create a dataset.

    [bold]Example[/bold]: pilotage datasets create questions --owner team-risk --tag eval
    """
    body = {
        "name": name,
        "description": description,
        "owner": owner,
        "tags": tag or [],
        "numbering": "date" if by_date else "semver",
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.post("/datasets", body)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    else:
        say(f"{name} is created. Push a version: pilotage datasets push {name}@VERSION --train F")


@command(GROUP)
def push(  # noqa: PLR0913 - what is said of a version: an option each
    ref: Version,
    *,
    train: Annotated[Files, typer.Option(help="A file or folder; several times.")] = None,
    validation: Annotated[Files, typer.Option(help="The same for validation.")] = None,
    test: Annotated[Files, typer.Option(help="The same for tests.")] = None,
    licence: Annotated[str, typer.Option(help="An SPDX id.")] = "",
    source: Annotated[str, typer.Option(help="Where the records come from.")] = "",
    description: Annotated[str, typer.Option(help="What is special about this version.")] = "",
    keep_until: Annotated[str, typer.Option(help="A date: kept until, deleted after.")] = "",
    pii: Annotated[
        str, typer.Option(help="none, masked, tokenised, contains or unknown.")
    ] = "unknown",
    scanned_by: Annotated[str, typer.Option(help="What looked for personal data.")] = "",
    finding: Annotated[list[str] | None, typer.Option(help="KIND=COUNT, several times.")] = None,
    derived_from: Annotated[str, typer.Option(help="The version that it was made of.")] = "",
    allow_leaks: Annotated[str, typer.Option(help="Why a record may be in two splits.")] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Push a version: JSON Lines, CSV or Parquet, by split. Every record is read and compared.

    [bold]Example[/bold]: pilotage datasets push questions@1.0.0 --train a.jsonl --test b.jsonl
    """
    name, version = _split(ref)
    given = {"train": train, "validation": validation, "test": test}
    splits = {split: _list_files(paths) for split, paths in given.items() if paths}
    if not splits:
        fail_usage("There is nothing to push.", "Name files: --train FILE --test FILE")
    body: dict[str, Any] = {
        "version": version,
        "format": _name_format(splits),
        "license": licence,
        "source": source,
        "description": description,
        "keep_until": keep_until or None,
        "pii": pii,
        "pii_scanned_by": scanned_by,
        "pii_findings": _count_findings(finding or []),
        "derived_from": derived_from,
        "leak_reason": allow_leaks,
    }

    async def work(control: ControlClient) -> dict[str, Any]:
        if await control.find(at("datasets", name)) is None:
            await control.post("/datasets", {"name": name})
        flat = {
            f"{split}/{path}": f for split, files in splits.items() for path, f in files.items()
        }
        hashes = await push_blobs(control, flat)
        body["files"] = {
            split: {path: hashes[f"{split}/{path}"] for path in files}
            for split, files in splits.items()
        }
        started = await control.post(at("datasets", name, "versions"), body)
        with OperationBar(f"checking {ref}") as watch:
            await control.finish(started, watch)
        return await control.get(at("datasets", name, "versions", version))

    made = run(work, project, reason)
    if as_json:
        show_json(made)
        return
    counts = ", ".join(f"{split['records']} {split['name']}" for split in made["splits"])
    say(f"{made['ref']} has {made['records']} records: {counts}.")
    say(_tell_checks(made))


@command(GROUP, "list")
def list_datasets(*, project: Project = "default", as_json: Json = False) -> None:
    """List datasets.

    [bold]Example[/bold]: pilotage datasets list --json
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, "/datasets")

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows = [
        (item["name"], item["owner"], " ".join(item["tags"]), item["description"]) for item in found
    ]
    empty = "There are no datasets. Push one: pilotage datasets push NAME@1.0.0 --train FILE"
    show_table(("name", "owner", "tags", "description"), rows, empty)


@command(GROUP)
def show(ref: Ref, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a dataset and its versions, or what is known of a version.

    [bold]Examples[/bold]: pilotage datasets show questions
    |    pilotage datasets show questions@1.0.0
    """
    name, is_version, version = ref.partition("@")

    async def work(control: ControlClient) -> dict[str, Any]:
        if is_version:
            return await control.get(at("datasets", name, "versions", version))
        found = await control.get(at("datasets", name))
        versions = await collect(control, at("datasets", name, "versions"))
        releases = await collect(control, at("datasets", name, "releases"))
        return found | {"versions": versions, "releases": releases}

    shown = run(work, project)
    if as_json:
        show_json(shown)
    elif is_version:
        _show_version(shown)
    else:
        _show_dataset(shown)


@command(GROUP)
def diff(
    ref: Version,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another version of it.")],
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Say what is different in another version of a dataset.

    [bold]Example[/bold]: pilotage datasets diff questions@1.0.0 1.1.0
    """
    name, version = _split(ref)
    path = at("datasets", name, "versions", f"{version}:diff")

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get(path, other=other.rpartition("@")[2])

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    rows: list[tuple[object, ...]] = []
    for word in ("added", "removed", "changed"):
        rows += [(word, file, "") for file in found[word]]
    rows += [
        ("records", split, f"{before} -> {after}")
        for split, (before, after) in found["records"].items()
        if before != after
    ]
    rows += [
        ("field", field, f"{' or '.join(before) or 'none'} -> {' or '.join(after) or 'none'}")
        for field, (before, after) in found["fields"].items()
    ]
    show_table(("what", "where", "how"), rows, "They are the same.")


@command(GROUP)
def export(
    ref: Version,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder to make.")],
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write the files of a version into a new folder, a folder for each split.

    [bold]Example[/bold]: pilotage datasets export questions@1.0.0 ./questions
    """
    name, version = _split(ref)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail_usage(f"{folder} is there already, and not empty.")
    path = at("datasets", name, "versions", version)

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        files = await collect(control, f"{path}/files")
        with make_bar(is_bytes=True) as bar:
            task = bar.add_task("fetching", total=sum(file["size"] for file in files))
            for file in files:
                await _fetch(control, f"{path}/content", file, folder)
                bar.advance(task, file["size"])
        return files

    files = run(work, project)
    if as_json:
        show_json({"folder": str(folder), "files": files})
    else:
        say(f"{len(files)} files of {ref} are in {folder}.")


@command(GROUP)
def retain(
    ref: Version,
    *,
    keep_until: Annotated[str, typer.Option(help="A date: kept until, deleted after.")] = "",
    hold: Annotated[str, typer.Option(help="Why it is held: nobody deletes it then.")] = "",
    let_go: Annotated[bool, typer.Option("--let-go", help="End the hold.")] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Say until when a version is kept; hold it beyond that (a legal hold), or let it go.

    [bold]Examples[/bold]: pilotage datasets retain questions@1.0.0 --keep-until 2033-01-01
    |    pilotage datasets retain questions@1.0.0 --hold "case 4711"
    """
    name, version = _split(ref)
    path = at("datasets", name, "versions", version)

    async def work(control: ControlClient) -> dict[str, Any]:
        now = await control.get(path)
        body = {
            "keep_until": keep_until or now["keep_until"],
            "hold_reason": "" if let_go else hold or now["hold_reason"],
        }
        return await control.put(path, body, now["rev"])

    kept = run(work, project, reason)
    if as_json:
        show_json(kept)
    else:
        held = f"held: {kept['hold_reason']}" if kept["hold_reason"] else "not held"
        say(f"{kept['ref']} is kept until {show_time(kept['keep_until']) or 'deleted'}, {held}.")


@command(GROUP)
def release(
    ref: Version,
    tag: Annotated[str, typer.Argument(metavar="RELEASE", help="The name that points to it.")],
    *,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make a release point to a version: NAME@RELEASE means that version from now on.

    [bold]Example[/bold]: pilotage datasets release questions@1.0.0 golden
    """
    name, version = _split(ref)
    path = at("datasets", name, "releases", tag)

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.put(path, {"version": version})

    moved = run(work, project, reason)
    if as_json:
        show_json(moved)
    else:
        say(f"{name}@{tag} is {name}@{moved['version']}.")


@command(GROUP)
def delete(
    ref: Ref, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a version, or a dataset with all of them; refused for what is kept, held or used.

    [bold]Examples[/bold]: pilotage datasets delete questions@1.0.0
    |    pilotage datasets delete questions
    """
    name, is_version, version = ref.partition("@")
    path = at("datasets", name, "versions", version) if is_version else at("datasets", name)

    async def work(control: ControlClient) -> None:
        await control.delete(path)

    run(work, project, reason)
    if as_json:
        show_json({"deleted": ref})
    else:
        say(f"{ref} is deleted.")


async def _fetch(control: ControlClient, path: str, file: Mapping[str, Any], folder: Path) -> None:
    """Fetch a file; it appears under its name once its bytes are those that were promised."""
    target = folder.joinpath(file["split"], *file["path"].split("/"))
    if not target.resolve().is_relative_to(folder.resolve()):
        raise PilotageError("internal_error", f"{file['place']} is no path of a dataset.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as opened:
            async for part in control.stream(path, place=file["place"]):
                digest.update(part)
                opened.write(part)
        if digest.hexdigest() != file["sha256"]:
            raise PilotageError("unavailable", f"{file['place']} did not arrive whole: try again.")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _split(ref: str) -> tuple[str, str]:
    name, at_sign, version = ref.partition("@")
    if not at_sign or not version:
        fail_usage(f"{ref} names no version.", f"Write NAME@VERSION, for example {name}@1.0.0")
    return name, version


def _list_files(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            fail_usage(f"{path} is not there.")
        files = list_tree(path) if path.is_dir() else {path.name: path}
        twice = sorted(files.keys() & found.keys())
        if twice:
            fail_usage(f"Two files of a split would be called {twice[0]}.")
        found |= files
    return found


def _name_format(splits: Mapping[str, Mapping[str, Path]]) -> str:
    suffixes = {file.suffix.lower() for files in splits.values() for file in files.values()}
    formats = {SUFFIXES.get(suffix, "") for suffix in suffixes}
    if len(formats) != 1 or "" in formats:
        told = ", ".join(sorted(suffixes))
        fail_usage(f"These are no files of one format: {told}.", "Use .jsonl, .csv or .parquet.")
    return formats.pop()


def _count_findings(found: list[str]) -> dict[str, int]:
    counts = {}
    for text in found:
        kind, _, count = text.partition("=")
        if not count.isdecimal():
            fail_usage(f"{text!r} is no finding.", "Write KIND=COUNT, for example email=12")
        counts[kind] = int(count)
    return counts


def _tell_checks(version: Mapping[str, Any]) -> str:
    if version["leaks"] is None:
        return "Its records were counted, not compared: that needs JSON Lines or CSV."
    leaks = ", ".join(f"{count} in {pair}" for pair, count in version["leaks"].items()) or "none"
    return f"Records that repeat: {version['duplicates']}. In two splits: {leaks}."


def _show_dataset(shown: dict[str, Any]) -> None:
    names = ("name", "description", "owner", "numbering", "id")
    show_fields({name: shown[name] for name in names} | {"tags": " ".join(shown["tags"])})
    pointing: dict[str, list[str]] = {}
    for item in shown["releases"]:
        pointing.setdefault(item["version"], []).append(item["name"])
    rows = [
        (
            item["ref"],
            item["records"],
            show_bytes(item["size_bytes"]),
            item["pii"],
            show_time(item["created_at"]),
            " ".join(pointing.get(item["version"], [])),
        )
        for item in shown["versions"]
    ]
    columns = ("version", "#records", "#size", "pii", "created (UTC)", "releases")
    show_table(columns, rows, "There are no versions.")


def _show_version(shown: dict[str, Any]) -> None:
    findings = ", ".join(f"{count} {kind}" for kind, count in shown["pii_findings"].items())
    scanned = f", scanned by {shown['pii_scanned_by']}" if shown["pii_scanned_by"] else ""
    show_fields(
        {
            "version": shown["ref"],
            "id": shown["id"],
            "description": shown["description"],
            "format": shown["format"],
            "records": f"{shown['records']:,}",
            "size": show_bytes(shown["size_bytes"]),
            "checks": _tell_checks(shown),
            "leaks allowed": shown["leak_reason"] or "no",
            "licence": shown["license"],
            "source": shown["source"],
            "personal data": f"{shown['pii']}{scanned}{f': {findings}' if findings else ''}",
            "kept until": show_time(shown["keep_until"]) or "deleted",
            "held": shown["hold_reason"] or "no",
            "kept by": shown["blocked_by"] or "nothing",
            "manifest": shown["manifest_sha256"],
            "created": f"{show_time(shown['created_at'])} UTC by {shown['created_by']}",
        }
    )
    rows = [(item["name"], item["files"], item["records"]) for item in shown["splits"]]
    show_table(("split", "#files", "#records"), rows, "")
    fields = [(name, " or ".join(sorted(types))) for name, types in shown["schema_summary"].items()]
    show_table(("field", "types"), fields, "")
