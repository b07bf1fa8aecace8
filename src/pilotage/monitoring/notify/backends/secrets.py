"""What channels may name of this machine: variables made for them, and files of their project.

Whoever sets a channel up chooses what it names and where that is sent. So it names nothing but
what the operator put there for channels: a variable whose name says so, or a file in the folder of
the setting ``channels.files``, in the project's own subfolder.
"""

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from pilotage.core.addresses import NOTICE_PREFIX, check_notice_secret
from pilotage.core.errors import PilotageError
from pilotage.kit.config import resolve_secret

MAX_FILE = 64 * 1024
_SENDABLE = re.compile(r"[\x20-\x7e]{1,2000}")
NameProject = Callable[[str], Awaitable[str]]
"""Returns the name of a project by its id."""


class SecretReader:
    """Reads secrets and certificates; ``folder`` has those of channels, None has nothing."""

    def __init__(self, folder: Path | None, name_project: NameProject) -> None:
        self._folder = folder
        self._name_project = name_project

    async def read(self, reference: str, project_id: str) -> str:
        """Return what a channel's reference names, one line.

        Raise ``invalid_config`` for what a project's channels may not name, or is not there; the
        error never shows what was read.
        """
        check_notice_secret(reference)
        kind, _, path = reference.partition(":")
        if kind == "env":
            secret = resolve_secret(reference)
        else:
            secret = (await self.read_file(path, project_id)).decode(errors="replace").strip()
        if not _SENDABLE.fullmatch(secret):
            raise PilotageError(
                "invalid_config", f"The secret {reference} is not one line of ASCII."
            )
        return secret

    async def read_file(self, path: str, project_id: str) -> bytes:
        """Return the content of a file that a project's channels may name.

        Raise ``invalid_config`` for any other, and for what is no small file.
        """
        if self._folder is None:
            raise PilotageError(
                "invalid_config",
                f"{path} may not be named: the setting channels.files names no folder.",
                hint=f"Set it, or put a secret into a variable {NOTICE_PREFIX}NAME.",
            )
        own = self._folder / await self._name_project(project_id)
        try:
            return await asyncio.to_thread(_read_within, own, path)
        except OSError as failed:
            raise PilotageError(
                "invalid_config", f"{path} cannot be read: {failed.strerror}."
            ) from None


def _read_within(folder: Path, name: str) -> bytes:
    """Return the content of a file below a folder; raise OSError or ``invalid_config``.

    What is no plain file is not waited for: it may be a pipe, a terminal, or have no end.
    """
    path = Path(os.path.realpath(name))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise PilotageError(
            "invalid_config",
            f"{name} may not be named by a channel of this project.",
            hint=f"Put it into {folder}.",
        )
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise PilotageError("invalid_config", f"{name} is no plain file.")
        with open(file, "rb", closefd=False) as content:
            found = content.read(MAX_FILE + 1)
    finally:
        os.close(file)
    if len(found) > MAX_FILE:
        raise PilotageError("invalid_config", f"{name} is larger than {MAX_FILE // 1024} KiB.")
    return found
