"""What the supervisor hands to its processes (on stdin), and what they say first (on stdout)."""

import sys
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """To a child: the settings, its inherited descriptors and who its parent is.

    ``slot`` is the gateway's own; ``channel_fd`` the control process's pipe to the supervisor.
    """

    settings: Settings
    data_path: str
    parent_pid: int
    listen_fd: int
    channel_fd: int = -1
    slot: str = ""
    public_key: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="started"):
    """From a child: it listens."""


class NotStarted(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="not_started"):
    """From a child: it cannot start, and starting it again would not help."""

    code: str
    detail: str
    hint: str


def read_handover() -> Handover:
    """Return what the supervisor wrote to this process."""
    return msgspec.json.decode(sys.stdin.buffer.readline(), type=Handover)


def say(event: Started | NotStarted) -> None:
    """Tell the supervisor; one that is gone hears nothing, and this process ends with it."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        return


def say_failure(error: PilotageError) -> None:
    """Tell the supervisor why this process cannot start."""
    say(NotStarted(code=error.code, detail=error.detail, hint=error.hint))


def read_event(line: bytes) -> Started | NotStarted | None:
    """Read what a child said; None for a child that ended without a word."""
    try:
        return msgspec.json.decode(line, type=Started | NotStarted)
    except msgspec.DecodeError:
        return None


def log_path(folder: Path, name: str) -> Path:
    """Return the log file of a process."""
    return folder / f"{name}.log"
