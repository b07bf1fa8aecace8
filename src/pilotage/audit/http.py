"""Control-plane routes of the audit log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from pilotage.audit.calls import CallProofs
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.service import AuditService
from pilotage.audit.types import AuditReport, Proof
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.kit.clock import parse_time


class AuditEntryView(View):
    """One entry: who did what, when and why, and its place in the log."""

    position: int
    kind: str
    revision_seq: int | None
    at: datetime
    project_id: str | None
    event: str
    object_id: str
    rev: int
    actor: str
    reason: str


class WholeEntryView(AuditEntryView):
    """An entry, and ``entry``: the log's own words."""

    entry: Any


class CallPartView(View):
    """A call's line among those of a sealed block, and its path to the block's root."""

    line: str
    index: int
    calls: int
    path: list[str]


class ProofView(View):
    """That an entry is in the log; hashes are hex, ``entry`` is the text that was hashed.

    The leaf is SHA-256 of a zero byte and ``entry``; ``path`` leads from it, lowest first, to the
    root in ``checkpoint``, as RFC 6962 says. For a call, the entry is that of its block.
    """

    log: str
    public_key: str
    entry: str
    index: int
    size: int
    path: list[str]
    checkpoint: str
    call: CallPartView | None = None


class ExportView(View):
    """Entries in the log's own words; with ``paths``, each proved against ``checkpoint``.

    ``next`` is the position to go on behind, as ``after``; null at the end.
    """

    log: str
    public_key: str
    size: int
    checkpoint: str
    positions: list[int]
    entries: list[str]
    paths: list[list[str]] | None
    next: int | None


class CompareBody(Body):
    """A checkpoint of this log that was kept elsewhere: the text of its file."""

    checkpoint: str


class FindingView(View):
    """One thing that was checked, and what was found."""

    check: str
    is_good: bool
    says: str


class AuditReportView(View):
    """What checking the log found, and what no check of a log can find."""

    name: str
    entries: int
    root: str
    is_intact: bool
    findings: list[FindingView]
    cannot_show: list[str]


class CheckpointView(View):
    """A signed checkpoint; keep it elsewhere, and a later check can be compared with it."""

    log: str
    public_key: str
    size: int
    checkpoint: str


def audit_routes(service: AuditService, inspection: AuditInspection) -> list[Route]:
    """List the routes of the audit log."""
    return [
        *_entry_routes(service),
        *_export_routes(service),
        *_proof_routes(service),
        *_check_routes(service, inspection),
    ]


def _entry_routes(service: AuditService) -> list[Route]:
    async def list_entries(  # noqa: PLR0913, PLR0917 - the server passes them by name
        call: ApiCall,
        event: str = "",
        object_id: str | None = None,
        actor: str | None = None,
        project_id: str | None = None,
        text: str = "",
        since: str | None = None,
        until: str | None = None,
        limit: int = 50,
        after: int = -1,
        newest: bool = False,  # noqa: FBT001, FBT002
    ) -> Page[AuditEntryView]:
        """List entries in order; ``event`` is the beginning of an event's name.

        ``text`` is part of a reason, ``since`` and ``until`` are times. ``newest`` asks for the
        last ones instead of the first: a single page.
        """
        async with call.read() as tx:
            found = await service.search(
                tx,
                after=after + 1,
                limit=limit if newest else limit + 1,
                event_prefix=event,
                object_id=object_id,
                actor=actor,
                project_id=project_id,
                text=text,
                since_us=_read_time(since, "since"),
                until_us=_read_time(until, "until"),
                is_newest=newest,
            )
            return make_page(found, limit, AuditEntryView.of, "position")

    async def get_entry(call: ApiCall, position: int) -> WholeEntryView:
        """Show an entry in the log's own words."""
        async with call.read() as tx:
            indexed = await service.get_entry(tx, position)
        proof_free = await service.read_entry(position)
        return WholeEntryView.of(indexed, entry=msgspec.json.decode(proof_free))

    return [
        Route(
            method="GET",
            path="/audit/entries",
            permission="audit.log.read",
            handler=list_entries,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/audit/entries/{position}",
            permission="audit.log.read",
            handler=get_entry,
            is_global=True,
        ),
    ]


def _export_routes(service: AuditService) -> list[Route]:
    async def export(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        event: str = "",
        since: str | None = None,
        until: str | None = None,
        proofs: bool = False,  # noqa: FBT001, FBT002
        limit: int = 50,
        after: int = -1,
    ) -> ExportView:
        """Return entries in the log's own words, in order; with ``proofs``, each with its path."""
        async with call.read() as tx:
            found = await service.search(
                tx,
                after=after + 1,
                limit=limit + 1,
                event_prefix=event,
                since_us=_read_time(since, "since"),
                until_us=_read_time(until, "until"),
            )
        positions = [item.position for item in found[:limit]]
        note = await service.log.publish()
        proved = await service.prove_all(positions) if proofs else []
        if proved:
            note = proved[0].checkpoint
            texts = [proof.entry for proof in proved]
        else:
            texts = await service.read_entries(positions)
        return ExportView(
            log=service.log.name,
            public_key=service.log.public_key.hex(),
            size=int(note.split("\n")[1]),
            checkpoint=note,
            positions=positions,
            entries=[text.decode() for text in texts],
            paths=[_show_path(proof.path) for proof in proved] if proofs else None,
            next=positions[-1] if len(found) > limit else None,
        )

    return [
        Route(
            method="GET",
            path="/audit/export",
            permission="audit.log.read",
            handler=export,
            is_global=True,
        )
    ]


def _proof_routes(service: AuditService) -> list[Route]:
    def show(proof: Proof) -> ProofView:
        return ProofView(
            log=service.log.name,
            public_key=service.log.public_key.hex(),
            entry=proof.entry.decode(),
            index=proof.index,
            size=proof.size,
            path=_show_path(proof.path),
            checkpoint=proof.checkpoint,
        )

    async def prove(
        call: ApiCall,
        position: int | None = None,
        revision: int | None = None,
        object_id: str | None = None,
        call_id: str | None = None,
    ) -> ProofView:
        """Prove that an entry is in the log.

        It is named by its position, its revision, an object (its newest change), or a call.
        """
        if [position, revision, object_id, call_id].count(None) != 3:
            raise PilotageError(
                "invalid_request",
                "Name one of position, revision, object_id and call_id.",
                param="position",
            )
        if position is not None:
            return show(await service.prove(position))
        async with call.read() as tx:
            if revision is not None:
                return show(await service.prove_revision(tx, revision))
            if object_id is not None:
                return show(await service.prove_object(tx, object_id))
            found = await CallProofs(service).prove(tx, call_id or "")
        part = CallPartView(
            line=found.line.decode(),
            index=found.index,
            calls=found.calls,
            path=_show_path(found.path),
        )
        return show(found.block).model_copy(update={"call": part})

    return [
        Route(
            method="GET",
            path="/audit/proof",
            permission="audit.log.prove",
            handler=prove,
            is_global=True,
        )
    ]


def _check_routes(service: AuditService, inspection: AuditInspection) -> list[Route]:
    async def verify(call: ApiCall) -> AuditReportView:  # noqa: ARG001 - every handler takes it
        """Recompute the whole log, and compare it with everything that should agree with it."""
        return _show_report(await inspection.verify())

    async def compare(call: ApiCall, body: CompareBody) -> FindingView:  # noqa: ARG001
        """Compare the log with a checkpoint of it that was kept elsewhere."""
        return FindingView.of(await inspection.compare(body.checkpoint))

    async def publish(call: ApiCall) -> CheckpointView:  # noqa: ARG001
        """Sign a checkpoint of this moment."""
        note = await service.log.publish()
        return CheckpointView(
            log=service.log.name,
            public_key=service.log.public_key.hex(),
            size=int(note.split("\n")[1]),
            checkpoint=note,
        )

    return [
        Route(
            method="POST",
            path="/audit:verify",
            permission="audit.log.verify",
            handler=verify,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/audit:compare",
            permission="audit.log.verify",
            handler=compare,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/audit:checkpoint",
            permission="audit.log.prove",
            handler=publish,
            is_global=True,
        ),
    ]


def _show_report(report: AuditReport) -> AuditReportView:
    return AuditReportView.of(report, findings=[FindingView.of(item) for item in report.findings])


def _show_path(path: Sequence[bytes]) -> list[str]:
    return [step.hex() for step in path]


def _read_time(text: str | None, name: str) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{name}: {wrong}.", param=name) from None
