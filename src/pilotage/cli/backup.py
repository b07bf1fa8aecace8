"""``pilotage backup`` and ``pilotage restore``: everything of an installation in one file."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from pilotage.cli.session import (
    FAILURE,
    Json,
    OperationBar,
    Reason,
    fail_usage,
    note,
    run,
    say,
    show_bytes,
    show_json,
    show_time,
)
from pilotage.core.errors import PilotageError
from pilotage.kit.config import load_settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.files import sync_folder
from pilotage.sdk.control import ControlClient

if TYPE_CHECKING:  # imported when it runs: it brings the database along
    from pilotage.runtime.backup.archive import Manifest

PassphraseFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Read the passphrase from a file.")
]


def backup(
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE|FOLDER", help="Where the archive goes.")
    ] = None,
    *,
    exclude_models: Annotated[
        bool, typer.Option("--exclude-models", help="Leave the files of models out.")
    ] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Put keys and credentials in, encrypted.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check an archive and make none.")
    ] = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Put everything of this installation into one file, while it runs or not.

    [bold]Examples[/bold]: pilotage backup /mnt/backups --with-keys
    |    pilotage backup --verify /mnt/backups/pilotage-20261121T101500Z-8sjuo0.tar
    """
    if verify is not None:
        _show_manifest(verify, as_json=as_json)
        return
    if target is None:
        fail_usage("Where to?", "Name a file or a folder: pilotage backup /mnt/backups")
    _check_target(target)
    passphrase = _read_passphrase(passphrase_file, is_new=True) if with_keys else ""
    body = {"exclude_models": exclude_models, "passphrase": passphrase}

    async def work(control: ControlClient) -> dict[str, Any]:
        with OperationBar("backup", is_bytes=True) as watch:
            return await control.finish(await control.post("/backups", body), watch)

    made = run(work, reason=reason)
    folder = DataFolder(load_settings().data_path)
    place = target / made["file"] if target.is_dir() else target
    _move(folder.backups / made["file"], place)
    made["file"] = str(place)
    if as_json:
        show_json(made)
        return
    say(f"{place}: {show_bytes(made['size_bytes'])}, {made['rows']:,} rows, {made['files']} files.")
    say(f"sha256 {made['sha256']}")
    if not with_keys:
        note("It holds no keys: without them nothing that is sealed in it opens. See --with-keys.")


def restore(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of pilotage backup.")],
    *,
    into: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The data folder to make; empty or not there.")
    ],
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Leave the archive's keys in it.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Put a backup back into an empty folder and an empty database, and verify its audit log.

    The database is the one that the settings name; Postgres may become SQLite and the other way.

    [bold]Example[/bold]: pilotage restore pilotage-20261121T101500Z-8sjuo0.tar --into /srv/pilotage
    """
    from pilotage.kit.clock import SystemClock
    from pilotage.kit.operations import Progress
    from pilotage.runtime.backup.archive import verify_archive
    from pilotage.runtime.backup.check import verify_restored
    from pilotage.runtime.backup.restore import restore_backup

    settings = msgspec.structs.replace(load_settings(), data_dir=str(into.absolute()))
    has_keys = verify_archive(archive).has_keys and not without_keys
    passphrase = _read_passphrase(passphrase_file, is_new=False) if has_keys else ""
    clock = SystemClock()

    async def work() -> tuple["Manifest", list[Any]]:
        manifest = await restore_backup(archive, settings, clock, passphrase, Progress())
        return manifest, list(await verify_restored(settings, clock, manifest))

    manifest, findings = asyncio.run(work())
    is_intact = all(item.is_good for item in findings)
    if as_json:
        show_json({"backup": manifest.id, "is_intact": is_intact, "findings": findings})
    else:
        for item in findings:
            say(f"{'good' if item.is_good else 'BAD':<4}  {item.check}: {item.says}")
        say(f"{into} holds {manifest.id}. Start it: PILOTAGE_DATA_DIR={into} pilotage up")
        if not has_keys:
            note(f"It has no keys. Put them into {into / 'keys'} before you start it.")
    if not is_intact:
        raise typer.Exit(FAILURE)


def _show_manifest(path: Path, *, as_json: bool) -> None:
    from pilotage.kit.clock import rfc3339
    from pilotage.runtime.backup.archive import verify_archive

    manifest = verify_archive(path)
    content = msgspec.to_builtins(manifest)
    size = sum(entry.size for entry in manifest.files.values())
    content |= {"files": len(manifest.files), "size_bytes": size, "is_whole": True}
    if as_json:
        show_json(content)
        return
    rows = sum(manifest.tables.values())
    say(f"{path} is whole: {len(manifest.files)} files, {rows:,} rows, schema {manifest.schema},")
    say(
        f"made {show_time(rfc3339(manifest.made_at_us))} (UTC), audit log of {manifest.log_size:,} "
        f"entries, {'with' if manifest.has_keys else 'without'} keys, "
        f"{'with' if manifest.has_models else 'without'} models."
    )


def _check_target(target: Path) -> None:
    if target.is_file() or not (target if target.is_dir() else target.absolute().parent).is_dir():
        what = "is there already" if target.is_file() else "is in no folder that there is"
        fail_usage(f"{target} {what}.", "Name a new file, or a folder.")


def _read_passphrase(path: Path | None, *, is_new: bool) -> str:
    if path is None:
        return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new))
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        fail_usage(f"The passphrase cannot be read from {path}.", "Name a file of your own.")
    if not text:
        fail_usage(f"The passphrase in {path} is empty.")
    return text


def _move(source: Path, place: Path) -> None:
    """Move an archive, to another disk too; there it is whole or absent."""
    temporary = place.with_name(f".{place.name}.moving")
    try:
        try:
            os.link(source, place)
        except OSError:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o600)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(place)
        sync_folder(place.absolute().parent)
    except OSError as failed:
        temporary.unlink(missing_ok=True)
        raise PilotageError(
            "unavailable",
            f"The archive cannot be put into {place}: {failed.strerror or failed}.",
            hint=f"It is in {source}.",
        ) from None
    source.unlink()
