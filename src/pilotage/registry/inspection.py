"""Looking into a model file that nobody has vouched for, from the safe side of a process border."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.registry.gguf import GgufInfo

_HINT = "Give a whole GGUF file of version 2 or 3, as llama.cpp's converters write it."


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the machine reading a file may take."""

    memory_bytes: int = 512 << 20
    cpu_s: int = 10
    wall_s: float = 30.0


async def inspect_file(path: Path, limits: Limits | None = None) -> GgufInfo:
    """Return what a model file says of itself; raise ``invalid_artifact`` that says what is wrong.

    The file is parsed in a child process with an empty environment and limits on memory, CPU and
    written files, so a hostile one can spoil nothing but its own inspection.
    """
    allowed = limits or Limits()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "pilotage.registry.inspect_child"),
        *(str(allowed.memory_bytes), str(allowed.cpu_s), str(path.absolute())),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env={},
        cwd="/",
    )
    try:
        async with asyncio.timeout(allowed.wall_s):
            written, _ = await child.communicate()
    except TimeoutError:
        raise _refuse(path, f"reading it took longer than {allowed.wall_s:g} s") from None
    finally:
        await _end(child)
    return _read_answer(path, written, child.returncode or 0, allowed)


class _Answer(msgspec.Struct, frozen=True):
    info: GgufInfo | None = None
    refused: str | None = None


def _read_answer(path: Path, written: bytes, return_code: int, allowed: Limits) -> GgufInfo:
    if return_code in (-signal.SIGXCPU, -signal.SIGKILL):
        memory = f"{allowed.memory_bytes >> 20} MiB of memory"
        raise _refuse(path, f"reading it took more than {allowed.cpu_s} s of CPU or {memory}")
    try:
        answer = msgspec.json.decode(written, type=_Answer)
    except msgspec.DecodeError:
        raise _refuse(
            path, f"the process that read it broke down (exit code {return_code})"
        ) from None
    if answer.info is None:
        raise _refuse(path, answer.refused or "it was refused")
    return answer.info


def _refuse(path: Path, why: str) -> PilotageError:
    return PilotageError(
        "invalid_artifact", f"{path.name} is not a model that can be read: {why}.", hint=_HINT
    )


async def _end(child: Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
