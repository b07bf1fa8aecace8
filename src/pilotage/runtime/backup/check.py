"""Verifying what was restored: the audit log against everything that should agree with it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from pilotage.audit.inspection import AuditInspection
from pilotage.audit.open_log import name_log, open_log
from pilotage.audit.service import AuditService
from pilotage.audit.tiles import ENTRIES, place_tile
from pilotage.audit.tree import TILE_BITS
from pilotage.audit.types import Finding
from pilotage.audit.verification import Flaw, list_outside, verify_files_apart
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.runtime.auditing import list_outside as list_outside_folders
from pilotage.runtime.auditing import open_audit_signer
from pilotage.runtime.backup.archive import Manifest
from pilotage.runtime.installation import open_database

AUDIT_KEY = "audit.key"


async def verify_restored(
    settings: Settings, clock: Clock, manifest: Manifest
) -> Sequence[Finding]:
    """Check the audit log of a data folder that no server has; each finding is a line.

    With its signing key the log is compared with the database too; without it only its files can
    be, with the checkpoint they had and with those that were kept elsewhere.
    """
    folder = DataFolder(settings.data_path)
    outside = list_outside_folders(settings, folder)
    if not (folder.keys / AUDIT_KEY).exists():
        return await _verify_files(folder, outside, manifest)
    db = open_database(settings, folder, clock)
    try:
        async with open_log(folder.audit, open_audit_signer(folder)) as log:
            report = await AuditInspection(db, AuditService(db, log), outside).verify()
    except PilotageError as broken:
        return [Finding(check="log", is_good=False, says=broken.detail)]
    finally:
        await db.close()
    return report.findings


async def _verify_files(
    folder: DataFolder, outside: Sequence[Path], manifest: Manifest
) -> list[Finding]:
    public_key = bytes.fromhex((folder.keys / AUDIT_KEY).with_suffix(".pub").read_text())
    name = name_log(public_key)
    notes = [note for place in outside if place.is_dir() for note in list_outside(place)]
    pruned = await asyncio.to_thread(_count_pruned, folder.audit, manifest.log_size)
    try:
        checked = await verify_files_apart(
            folder.audit, name, public_key, pruned=pruned, outside=notes
        )
    except Flaw as flaw:
        return [Finding(check="files", is_good=False, says=str(flaw))]
    good = [*checked.good, "without its signing key it was not compared with the database"]
    return [Finding(check="files", is_good=True, says=line) for line in good]


def _count_pruned(folder: Path, size: int) -> int:
    """Return of how many entries at the beginning the texts are gone, by policy."""
    bundle = 0
    while bundle < size >> TILE_BITS and not (folder / place_tile(ENTRIES, bundle)).exists():
        bundle += 1
    return bundle << TILE_BITS
