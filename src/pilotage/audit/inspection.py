"""Checking the log against everything that should agree with it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pilotage.audit.entries import RevisionEntry, read_entry, write_revision
from pilotage.audit.open_log import place_record
from pilotage.audit.service import PAGE, AuditService
from pilotage.audit.types import AuditReport, Finding
from pilotage.audit.verification import (
    CANNOT_SHOW,
    Checked,
    Flaw,
    hash_file,
    list_outside,
    verify_files_apart,
)
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import Revision, read_revisions


class AuditInspection:
    """The check of an open log."""

    def __init__(self, db: Database, service: AuditService, outside: Sequence[Path]) -> None:
        self._db = db
        self._service = service
        self._outside = outside

    async def verify(self) -> AuditReport:
        """Check files, checkpoints kept elsewhere, and revisions; each finding is a line."""
        log = self._service.log
        while await self._service.append_next():
            pass
        await log.publish()
        findings: list[Finding] = []
        checked = Checked()
        try:
            notes = [note for folder in self._outside for note in _read_notes(folder)]
            checked = await verify_files_apart(
                log.folder, log.name, log.public_key, pruned=0, outside=notes
            )
            findings += [_good("files", line) for line in checked.good]
            if not notes:
                findings.append(_good("checkpoints", "no checkpoint was kept elsewhere yet"))
        except Flaw as flaw:
            findings.append(_bad("files", str(flaw)))
        try:
            findings.append(_good("revisions", await self._compare_revisions(log.size)))
        except Flaw as flaw:
            findings.append(_bad("revisions", str(flaw)))
        return AuditReport(
            name=log.name,
            entries=log.size,
            root=checked.root.hex(),
            is_intact=all(item.is_good for item in findings),
            findings=findings,
            cannot_show=CANNOT_SHOW,
        )

    async def _compare_revisions(self, size: int) -> str:
        """Compare every revision with what the log says of it; raise :class:`Flaw`."""
        compared = 0
        revisions = self._list_revisions()
        async for seq, entry in self._list_revision_entries(size):
            revision = await anext(revisions, None)
            if revision is None or revision.seq > seq:
                raise Flaw(f"revision {seq} is in the log and not in the database")
            if revision.seq < seq:
                raise Flaw(f"revision {revision.seq} is not in the log")
            written = write_revision(revision)
            if written.entry != entry:
                raise Flaw(f"revision {seq} is not in the database what it is in the log")
            if written.record is not None:
                self._check_record(entry)
            compared += 1
        missing = await anext(revisions, None)
        if missing is not None:
            raise Flaw(f"revision {missing.seq} is not in the log")
        return f"{compared} revisions in the database are word for word those of the log"

    async def _list_revisions(self) -> AsyncIterator[Revision]:
        last = 0
        while True:
            async with self._db.read(SYSTEM) as tx:
                page = await read_revisions(tx, last, PAGE)
            for revision in page:
                yield revision
            if len(page) < PAGE:
                return
            last = page[-1].seq

    async def _list_revision_entries(self, size: int) -> AsyncIterator[tuple[int, bytes]]:
        for first in range(0, size, PAGE):
            for entry in await self._service.log.read_from(first, min(PAGE, size - first)):
                try:
                    said = read_entry(entry)
                except ValueError as wrong:
                    raise Flaw(str(wrong)) from None
                if isinstance(said, RevisionEntry):
                    yield said.seq, entry

    def _check_record(self, entry: bytes) -> None:
        said = read_entry(entry)
        kept = said.record if isinstance(said, RevisionEntry) else None
        if kept is None:
            return
        path = place_record(self._service.log.folder, kept.sha256)
        if not path.exists() or hash_file(path) != kept.sha256:
            raise Flaw(f"the record {kept.sha256} beside the log is missing or altered")


def _read_notes(folder: Path) -> list[str]:
    try:
        return list_outside(folder)
    except OSError as failed:
        raise Flaw(f"{folder} cannot be read: {failed.strerror}") from None


def _good(check: str, says: str) -> Finding:
    return Finding(check=check, is_good=True, says=says)


def _bad(check: str, says: str) -> Finding:
    return Finding(check=check, is_good=False, says=says)
