"""``pilotage models push``: a file, a folder or a zip archive becomes a version of a model."""

import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.models import create_version, upload
from pilotage.cli.session import (
    Json,
    Project,
    Reason,
    at,
    fail_usage,
    make_bar,
    run,
    say,
    show_json,
)
from pilotage.cli.uploads import hash_files, list_tree, push_blobs
from pilotage.core.names import check_name
from pilotage.core.semver import parse_semver
from pilotage.sdk.control import ControlClient


def push(  # noqa: PLR0913 - an option each
    ref: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version to make.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, a folder or a .zip.")],
    *,
    license: Annotated[  # noqa: A002 - what everybody calls it
        str | None, typer.Option(help="Default: what the files say.")
    ] = None,
    description: Annotated[str, typer.Option(help="What is special about this version.")] = "",
    parent: Annotated[
        str, typer.Option(metavar="NAME@VERSION", help="What it was tuned on; adapters need it.")
    ] = "",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Take what links in the folder point to.")
    ] = False,
    allow_pickles: Annotated[
        bool, typer.Option("--allow-pickles", help="Let pickles in; needs --reason and a role.")
    ] = False,
    project: Project = "default",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Push a model: GGUF or safetensors, alone or in the folder of a model.

    Files that are there already are not sent again, so a push that was interrupted goes on where it
    was. Everything is inspected before it is registered; pickles are refused.

    [bold]Examples[/bold]: pilotage models push chat@1.0.0 ./my-model
    |    pilotage models push chat@1.1.0 model.gguf
    """
    name, version = _split(ref)
    if not path.exists():
        fail_usage(f"{path} is not there.")
    more = {"license": license, "description": description, "parent": parent}

    async def work(control: ControlClient) -> dict[str, Any]:
        artifact = await _push(control, path, follow_links=follow_links, allowed=allow_pickles)
        return await create_version(control, name, version, artifact["sha256"], more)

    made = run(work, project, reason)
    if as_json:
        show_json(made)
    elif made["is_new"]:
        say(f"{made['ref']} is made of {made['artifact_sha256'][:12]}.")
        say(f"Look at it: pilotage models show {made['ref']}")
    else:
        say(f"{made['ref']} is this very content already; nothing has changed.")


async def _push(
    control: ControlClient, path: Path, *, follow_links: bool, allowed: bool
) -> dict[str, Any]:
    query = {"allow_pickles": allowed or None}
    if path.is_dir():
        files = await push_blobs(control, list_tree(path, follow_links=follow_links))
        body = {"files": files, "allow_pickles": allowed}
        return await control.post("/artifacts:tree", body)
    if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        return await upload(control, path, unpack="zip", **query)
    with make_bar(is_bytes=True) as bar:
        sha256 = (await hash_files(bar, {"": path}))[""]
    return await control.find(at("artifacts", sha256)) or await upload(control, path, **query)


def _split(ref: str) -> tuple[str, str]:
    name, at_sign, version = ref.partition("@")
    if not at_sign:
        fail_usage(f"{ref} names no version.", f"Write NAME@VERSION, for example {ref}@1.0.0")
    try:
        return check_name(name), str(parse_semver(version))
    except ValueError as wrong:
        fail_usage(f"{ref}: {wrong}.")
