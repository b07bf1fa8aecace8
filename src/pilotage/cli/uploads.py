"""Files on their way to the control plane: hashed here, so that only what is new is sent."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.cli.session import fail_usage, make_bar
from pilotage.core.errors import PilotageError
from pilotage.sdk.control import ControlClient

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PART_BYTES = 1 << 20
MOST_ASKED = 5_000
LEFT_OUT = {".git", ".DS_Store", "__pycache__"}


def list_tree(folder: Path, *, follow_links: bool = False) -> dict[str, Path]:
    """Return the files below a folder by their paths in it, without what version control keeps.

    Ends the command for a link, unless links are to be followed: what a link points to may lie
    anywhere.
    """
    found: dict[str, Path] = {}
    for top, folders, names in os.walk(folder, followlinks=follow_links):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted(names) + [name for name in folders if Path(top, name).is_symlink()]:
            path = Path(top, name)
            if path.is_symlink() and not follow_links:
                fail_usage(
                    f"{path} is a link.",
                    "--follow-links takes what links point to, as in a Hugging Face cache.",
                )
            if name not in LEFT_OUT and path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    if not found:
        fail_usage(f"There are no files in {folder}.")
    return found


async def push_blobs(control: ControlClient, files: Mapping[str, Path]) -> dict[str, str]:
    """Upload the files that the control plane lacks; return the SHA-256 of each by its path.

    What was sent before an interruption is there, and not sent again.
    """
    with make_bar(is_bytes=True) as bar:
        hashes = await hash_files(bar, files)
        missing = await _list_missing(control, sorted(set(hashes.values())))
        waiting = {hashes[path]: files[path] for path in files if hashes[path] in missing}
        total = sum(file.stat().st_size for file in waiting.values())
        task = bar.add_task("uploading", total=total)
        for number, (sha256, file) in enumerate(waiting.items(), 1):
            bar.update(task, description=f"uploading {number} of {len(waiting)}: {file.name}")
            await control.upload("/blobs", _read(bar, task, file), sha256=sha256)
    return hashes


async def hash_files(bar: "Progress", files: Mapping[str, Path]) -> dict[str, str]:
    """Return the hex SHA-256 of files; raise ``invalid_request`` if one cannot be read."""
    task = bar.add_task("reading", total=sum(file.stat().st_size for file in files.values()))
    hashes = {}
    for path, file in files.items():
        digest = hashlib.sha256()
        async for part in _read(bar, task, file):
            digest.update(part)
        hashes[path] = digest.hexdigest()
    bar.remove_task(task)
    return hashes


async def _list_missing(control: ControlClient, hashes: Sequence[str]) -> set[str]:
    missing: set[str] = set()
    for start in range(0, len(hashes), MOST_ASKED):
        asked = {"sha256": hashes[start : start + MOST_ASKED]}
        missing |= set((await control.post("/blobs:missing", asked))["missing"])
    return missing


async def _read(bar: "Progress", task: "TaskID", file: Path) -> AsyncIterator[bytes]:
    """Read a file in parts; Ctrl-C is heard between them."""
    try:
        with file.open("rb") as opened:
            while part := await asyncio.to_thread(opened.read, PART_BYTES):
                bar.advance(task, len(part))
                yield part
    except OSError as failed:
        raise PilotageError(
            "invalid_request", f"{file} cannot be read: {failed.strerror}."
        ) from None
