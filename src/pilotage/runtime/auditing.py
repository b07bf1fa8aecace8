"""How the audit log is wired: who appends, who seals, checks and prunes, and its routes."""

import logging
from pathlib import Path

from pilotage.audit.calls import CallSealer, make_call_sealer_worker
from pilotage.audit.checkpoints import CheckpointPublisher, make_checkpoint_worker
from pilotage.audit.holds import HoldService
from pilotage.audit.http import audit_routes
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.open_log import OpenLog, name_log
from pilotage.audit.retention import Pruner, make_pruner_worker
from pilotage.audit.retention_http import retention_routes
from pilotage.audit.service import AuditService
from pilotage.audit.types import AuditReport, Finding
from pilotage.audit.verification import (
    CANNOT_SHOW,
    Checked,
    Flaw,
    count_missing,
    verify_files,
)
from pilotage.audit.verification import list_outside as read_outside
from pilotage.audit.worker import make_audit_worker, make_signing_worker
from pilotage.core.errors import PilotageError
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.crypto import Signer, open_signer
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database
from pilotage.kit.worker import Wakeup, Worker

_LOG = logging.getLogger("pilotage.audit")


class Auditing:
    """The audit log with everything that works on it."""

    def __init__(
        self, settings: Settings, folder: DataFolder, clock: Clock, db: Database, log: OpenLog
    ) -> None:
        self.service = AuditService(db, log)
        self.holds = HoldService(clock)
        self._sealer = CallSealer(self.service, folder.spool, clock)
        outside = list_outside(settings, folder)
        self._inspection = AuditInspection(db, self.service, outside)
        self._checkpoints = CheckpointPublisher(log, outside, clock)
        self._checkpoint_every_s = duration_s(settings.audit.checkpoint_every)
        keep_us = round(duration_s(settings.audit.keep) * 1e6)
        self._pruner = Pruner(db, self.service, self.holds, keep_us)
        if settings.audit.on_failure == "closed":
            db.before_commit.append(self.service.check_writable)

    def sealed_until(self, spool: Path) -> int:
        """Return the last record of a spool that the log needs no more."""
        return self._sealer.sealed_until(spool)

    def list_routes(self) -> list[Route]:
        """List the routes of the log and of legal holds."""
        return [
            *audit_routes(self.service, self._inspection),
            *retention_routes(self.service, self._pruner, self.holds),
        ]

    def make_workers(self, wakeup: Wakeup) -> list[Worker]:
        """Return the workers; ring ``wakeup`` when revisions were written."""
        return [
            make_audit_worker(self.service, wakeup),
            make_signing_worker(self.service.log),
            make_call_sealer_worker(self._sealer),
            make_pruner_worker(self._pruner),
            make_checkpoint_worker(self._checkpoints, self._checkpoint_every_s),
        ]

    async def settle(self) -> None:
        """Do what the workers would do next, once, and close every file."""
        try:
            while await self.service.append_next():
                pass
            await self._sealer.seal_all()
            await self.service.log.publish()
            await self._checkpoints.step()
        except (PilotageError, OSError) as failed:
            _LOG.error("the audit log goes on at the next start: %s", failed)
        self._sealer.close()


def open_audit_signer(folder: DataFolder) -> Signer:
    """Open (or make) the key that signs the audit log's checkpoints."""
    return open_signer(folder.keys / "audit.key")


def list_outside(settings: Settings, folder: DataFolder) -> list[Path]:
    """Return the folders that checkpoints of the audit log are put into."""
    named = [name.strip() for name in settings.audit.checkpoints.split(",")]
    return [Path(name).expanduser() for name in named if name] or [folder.checkpoints]


def inspect_files(settings: Settings, folder: DataFolder, why: str) -> AuditReport:
    """Check the files of a log that cannot be opened; ``why`` is what opening it has said.

    Nothing is compared with a database here, and bundles that are missing at the beginning count
    as pruned.
    """
    public_key = open_audit_signer(folder).public
    name = name_log(public_key)
    findings = [Finding(check="log", is_good=False, says=why)]
    checked = Checked()
    try:
        notes = [note for place in list_outside(settings, folder) for note in read_outside(place)]
        checked = verify_files(
            folder.audit, name, public_key, pruned=count_missing(folder.audit), outside=notes
        )
        findings += [Finding(check="files", is_good=True, says=line) for line in checked.good]
    except (Flaw, OSError) as flaw:
        findings.append(Finding(check="files", is_good=False, says=str(flaw)))
    return AuditReport(
        name=name,
        entries=checked.size,
        root=checked.root.hex(),
        is_intact=False,
        findings=findings,
        cannot_show=CANNOT_SHOW,
    )
