"""Looking into files that nobody has vouched for, from the safe side of a process border."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.process import end
from pilotage.registry.artifacts.types import Inspection

_HINT = (
    "Give whole files: GGUF of version 2 or 3 as llama.cpp's converters write it, or safetensors, "
    "alone or in the folder of a model with its config.json and tokenizer."
)
Found = TypeVar("Found")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the machine reading files may take."""

    memory_bytes: int = 512 << 20
    cpu_s: int = 10
    wall_s: float = 30.0


class Surveyed(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in files, and why those that are pickles are (by path)."""

    inspection: Inspection
    pickles: dict[str, str]


async def inspect_file(path: Path, limits: Limits | None = None) -> Surveyed:
    """Return what a model file says of itself; raise ``invalid_artifact`` that says what is wrong.

    The file is parsed in a child process with an empty environment and limits on memory, CPU and
    written files, so a hostile one can spoil nothing but its own inspection.
    """
    return await _inspect({"": path}, path.name, limits or Limits())


async def inspect_tree(files: Mapping[str, Path], limits: Limits | None = None) -> Surveyed:
    """Return what the files of a tree say together, as :func:`inspect_file` does of one."""
    allowed = limits or Limits(cpu_s=10 + len(files) // 100, wall_s=60.0)
    return await _inspect(files, "The tree", allowed)


async def _inspect(files: Mapping[str, Path], name: str, limits: Limits) -> Surveyed:
    asked = {path: str(file.absolute()) for path, file in files.items()}
    try:
        return await ask_child("model", asked, Surveyed, limits)
    except ValueError as why:
        raise PilotageError(
            "invalid_artifact", f"{name} is not a model that can be read: {why}.", hint=_HINT
        ) from None


async def ask_child(kind: str, asked: object, answer: type[Found], limits: Limits) -> Found:
    """Return what a child process finds in files; raise ValueError that says why it does not."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "pilotage.registry.inspect_child"),
        *(kind, str(limits.memory_bytes), str(limits.cpu_s)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={},
        cwd="/",
    )
    try:
        async with asyncio.timeout(limits.wall_s):
            written, _ = await child.communicate(msgspec.json.encode(asked))
    except TimeoutError:
        raise ValueError(f"reading it took longer than {limits.wall_s:g} s") from None
    finally:
        await end(child)
    return _read_answer(written, child.returncode or 0, answer, limits)


class _Answer(msgspec.Struct, frozen=True):
    found: msgspec.Raw = msgspec.Raw()
    refused: str | None = None


def _read_answer(written: bytes, return_code: int, answer: type[Found], limits: Limits) -> Found:
    if return_code in (-signal.SIGXCPU, -signal.SIGKILL):
        memory = f"{limits.memory_bytes >> 20} MiB of memory"
        raise ValueError(f"reading it took more than {limits.cpu_s} s of CPU or {memory}")
    try:
        said = msgspec.json.decode(written, type=_Answer)
        if said.refused is None:
            return msgspec.json.decode(said.found, type=answer)
    except msgspec.DecodeError:
        raise ValueError(f"the process that read it broke down (exit code {return_code})") from None
    raise ValueError(said.refused)
