"""Checking the log against everything that should agree with it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pilotage.audit.calls import read_lines
from pilotage.audit.entries import (
    CallsEntry,
    Entry,
    RevisionEntry,
    read_block,
    read_entry,
    write_revision,
)
from pilotage.audit.open_log import place_record
from pilotage.audit.retention import count_pruned
from pilotage.audit.service import PAGE, AuditService, Settled
from pilotage.audit.types import AuditReport, Finding
from pilotage.audit.verification import (
    CANNOT_SHOW,
    Checked,
    Flaw,
    compare_checkpoint,
    hash_file,
    list_outside,
    verify_files_apart,
)
from pilotage.core.errors import PilotageError
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import Revision, read_revisions


class AuditInspection:
    """The check of an open log."""

    def __init__(self, db: Database, service: AuditService, outside: Sequence[Path]) -> None:
        self._db = db
        self._service = service
        self._outside = outside
        self._pruned = 0  # entries whose texts are gone by policy

    async def verify(self) -> AuditReport:
        """Check files, checkpoints kept elsewhere, and revisions; each finding is a line."""
        log = self._service.log
        findings: list[Finding] = []
        try:
            settled = await self._service.settle()
        except PilotageError as broken:
            findings.append(_bad("log", broken.detail.rstrip(".")))
            settled = Settled(log.size, 0)
        await log.publish()
        checked = Checked()
        async with self._db.read(SYSTEM) as tx:
            self._pruned = await count_pruned(tx, log)
        notes: list[str] = []
        for folder in self._outside:
            try:
                notes += list_outside(folder)
            except OSError as failed:
                line = f"{folder} cannot be read ({failed.strerror}): nothing is compared with it"
                findings.append(_bad("checkpoints", line))
        try:
            checked = await verify_files_apart(
                log.folder, log.name, log.public_key, pruned=self._pruned, outside=notes
            )
            findings += [_good("files", line) for line in checked.good]
            if self._pruned:
                line = f"the first {self._pruned} entries have only their hashes, by policy"
                findings.append(_good("files", line))
            if not notes:
                findings.append(_good("checkpoints", "no checkpoint was kept elsewhere yet"))
        except Flaw as flaw:
            findings.append(_bad("files", str(flaw)))
        for name, compare in (
            ("revisions", self._compare_revisions),
            ("calls", self._check_blocks),
        ):
            try:
                findings.append(_good(name, await compare(settled)))
            except Flaw as flaw:
                findings.append(_bad(name, str(flaw)))
        return AuditReport(
            name=log.name,
            entries=checked.size or settled.size,
            root=checked.root.hex(),
            is_intact=all(item.is_good for item in findings),
            findings=findings,
            cannot_show=CANNOT_SHOW,
        )

    async def compare(self, note: str) -> Finding:
        """Compare the log as it is now with a checkpoint that was kept elsewhere."""
        log = self._service.log
        await log.publish()
        try:
            says = await asyncio.to_thread(
                compare_checkpoint, log.folder, log.name, log.public_key, note
            )
        except Flaw as flaw:
            return _bad("checkpoints", str(flaw))
        return _good("checkpoints", says)

    async def _compare_revisions(self, settled: Settled) -> str:
        """Compare every revision with what the log says of it; raise :class:`Flaw`."""
        compared = 0
        revisions: AsyncIterator[Revision] | None = None
        async for _, entry, said in self._list_entries(settled.size):
            if not isinstance(said, RevisionEntry):
                continue
            seq = said.seq
            if revisions is None:
                revisions = self._list_revisions(seq - 1 if self._pruned else 0)
            revision = await anext(revisions, None)
            if revision is None or revision.seq > seq:
                raise Flaw(f"revision {seq} is in the log and not in the database")
            if revision.seq < seq:
                raise Flaw(f"revision {revision.seq} is not in the log")
            written = write_revision(revision)
            if written.entry != entry:
                raise Flaw(f"revision {seq} is not in the database what it is in the log")
            if said.record is not None:
                self._check_record(said.record.sha256)
            compared += 1
        missing = await anext(revisions or self._list_revisions(0), None)
        if missing is not None and missing.seq <= settled.last_seq:
            raise Flaw(f"revision {missing.seq} is not in the log")
        return f"{compared} revisions in the database are word for word those of the log"

    async def _list_revisions(self, last: int) -> AsyncIterator[Revision]:
        while True:
            async with self._db.read(SYSTEM) as tx:
                page = await read_revisions(tx, last, PAGE)
            for revision in page:
                yield revision
            if len(page) < PAGE:
                return
            last = page[-1].seq

    async def _check_blocks(self, settled: Settled) -> str:
        """Recompute every block of calls; raise :class:`Flaw` where a file is not what it was."""
        calls = 0
        async for position, _, said in self._list_entries(settled.size):
            if isinstance(said, CallsEntry):
                block = read_block(position, said)
                try:
                    lines = await asyncio.to_thread(read_lines, self._service.log.folder, block)
                except PilotageError as broken:
                    raise Flaw(broken.detail.rstrip(".")) from None
                calls += len(lines)
        return f"{calls} calls in sealed blocks are the ones that were sealed"

    async def _list_entries(self, size: int) -> AsyncIterator[tuple[int, bytes, Entry]]:
        for first in range(self._pruned, size, PAGE):
            try:
                entries = await self._service.log.read_from(first, min(PAGE, size - first))
            except PilotageError as broken:
                raise Flaw(broken.detail.rstrip(".")) from None
            for position, entry in enumerate(entries, first):
                try:
                    yield position, entry, read_entry(entry)
                except ValueError as wrong:
                    raise Flaw(str(wrong)) from None

    def _check_record(self, sha256: str) -> None:
        path = place_record(self._service.log.folder, sha256)
        if not path.exists() or hash_file(path) != sha256:
            raise Flaw(f"the record {sha256} beside the log is missing or altered")


def _good(check: str, says: str) -> Finding:
    return Finding(check=check, is_good=True, says=says)


def _bad(check: str, says: str) -> Finding:
    return Finding(check=check, is_good=False, says=says)
