"""The verbs of the audit log. Never commits: whoever opened the transaction does.

The log is the revisions again, one entry each, chained by SHA-256. That shows any change, removal,
insertion or reordering in the log, or in the revisions behind it, by somebody who does not rebuild
the rest. What this form cannot show, and nobody should claim of it:

- somebody who can write the database can rewrite the revisions and compute the whole chain anew, or
  cut the newest entries and their revisions off: there is no external checkpoint yet. Only a head
  hash that was noted elsewhere exposes that;
- whether what a revision said was true, or whether something happened that wrote no revision.
"""

from collections.abc import Sequence

from pilotage.audit import store
from pilotage.audit.rules import find_difference, find_flaw, make_entry
from pilotage.audit.types import GENESIS, AuditEntry, AuditReport, Content
from pilotage.core.errors import PilotageError
from pilotage.kit.db import Tx
from pilotage.kit.outbox import Revision, advance_cursor, get_cursor, read_revisions

CONSUMER = "audit"
PAGE = 1_000


class AuditService:
    """Appends, reads and checks the log."""

    async def append_next(self, tx: Tx, limit: int = PAGE) -> bool:
        """Append the revisions behind the cursor; return whether there may be more.

        Needs a transaction of the whole installation. Raises ``conflict`` if another process
        appended the same ones.
        """
        cursor = await get_cursor(tx, CONSUMER)
        revisions = await read_revisions(tx, cursor, limit)
        if not revisions:
            return False
        last = await store.find_last(tx)
        entries: list[AuditEntry] = []
        for revision in revisions:
            last = make_entry(_content(revision), last)
            entries.append(last)
        if not await advance_cursor(tx, CONSUMER, cursor, revisions[-1].seq):
            raise PilotageError("conflict", "The audit log was appended to by another process.")
        await store.insert_entries(tx, entries)
        return len(revisions) == limit

    async def verify(self, tx: Tx) -> AuditReport:
        """Recompute the whole log and compare it with the revisions; stops at the first flaw.

        Needs a transaction of the whole installation. Reads a page at a time.
        """
        end, cursor = await store.find_extent(tx, CONSUMER)
        last: AuditEntry | None = None
        last_seq = 0
        while True:
            position = last.position if last else 0
            entries = await store.list_entries(tx, position, PAGE)
            entries = [entry for entry in entries if entry.position <= end]
            revisions = await read_revisions(tx, last_seq, PAGE)
            revisions = [revision for revision in revisions if revision.seq <= cursor]
            if not entries and not revisions:
                return _report(last, "")
            for index in range(max(len(entries), len(revisions))):
                entry = entries[index] if index < len(entries) else None
                revision = revisions[index] if index < len(revisions) else None
                problem = _compare(entry, revision, last)
                if problem or entry is None or revision is None:
                    return _report(last, problem)
                last, last_seq = entry, revision.seq

    async def list_entries(
        self,
        tx: Tx,
        after: int = 0,
        limit: int = 50,
        event_prefix: str = "",
        object_id: str | None = None,
        actor: str | None = None,
        *,
        is_newest: bool = False,
    ) -> Sequence[AuditEntry]:
        """Return the first entries behind a position, or the newest of them, in order."""
        return await store.list_entries(
            tx, after, limit, event_prefix, object_id, actor, is_newest=is_newest
        )


def _compare(entry: AuditEntry | None, revision: Revision | None, last: AuditEntry | None) -> str:
    if entry is None:
        seq = revision.seq if revision else 0
        return f"revision {seq} has no entry"
    flaw = find_flaw(entry, last)
    if flaw:
        return flaw
    if revision is None:
        return f"entry {entry.position} holds revision {entry.revision_seq}, which is not there"
    return find_difference(entry, _content(revision))


def _report(last: AuditEntry | None, problem: str) -> AuditReport:
    entries = last.position if last else 0
    return AuditReport(
        entries=entries,
        head_hash=last.hash if last else GENESIS,
        is_intact=not problem,
        first_bad_position=entries + 1 if problem else None,
        problem=problem,
    )


def _content(revision: Revision) -> Content:
    return Content(
        revision_seq=revision.seq,
        at_us=revision.at_us,
        project_id=revision.project_id,
        event=revision.event,
        object_id=revision.object_id,
        rev=revision.rev,
        actor=revision.actor,
        reason=revision.reason,
        before=revision.before,
        after=revision.after,
    )
