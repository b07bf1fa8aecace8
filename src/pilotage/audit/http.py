"""Control-plane routes of the audit log."""

from datetime import datetime
from typing import Any

import msgspec

from pilotage.audit.service import AuditService
from pilotage.audit.types import AuditEntry
from pilotage.kit.api import ApiCall, Page, Route, View, make_page


class AuditEntryView(View):
    """One entry: who did what, when and why, and its place in the chain."""

    position: int
    revision_seq: int
    at: datetime
    project_id: str | None
    event: str
    object_id: str
    rev: int
    actor: str
    reason: str
    before: Any | None
    after: Any
    previous_hash: str
    hash: str


class AuditReportView(View):
    """What checking the log found; note ``head_hash`` elsewhere to compare it later."""

    entries: int
    head_hash: str
    is_intact: bool
    first_bad_position: int | None
    problem: str


def audit_routes(service: AuditService) -> list[Route]:
    """List the routes of the audit log."""

    async def list_entries(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        event: str = "",
        object_id: str | None = None,
        actor: str | None = None,
        limit: int = 50,
        after: int = 0,
        newest: bool = False,  # noqa: FBT001, FBT002
    ) -> Page[AuditEntryView]:
        """List entries in order; ``event`` is the beginning of an event's name.

        ``newest`` asks for the last ones instead of the first: a single page.
        """
        wanted = limit if newest else limit + 1
        async with call.read() as tx:
            found = await service.list_entries(
                tx, after, wanted, event, object_id, actor, is_newest=newest
            )
            return make_page(found, limit, _show, "position")

    async def verify(call: ApiCall) -> AuditReportView:
        """Recompute the whole log and compare it with the revisions."""
        async with call.read() as tx:
            return AuditReportView.of(await service.verify(tx))

    return [
        Route(
            method="GET",
            path="/audit/entries",
            permission="audit.log.read",
            handler=list_entries,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/audit:verify",
            permission="audit.log.verify",
            handler=verify,
            is_global=True,
        ),
    ]


def _show(entry: AuditEntry) -> AuditEntryView:
    before = None if entry.before is None else msgspec.json.decode(entry.before)
    return AuditEntryView.of(entry, before=before, after=msgspec.json.decode(entry.after))
