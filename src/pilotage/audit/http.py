"""Control-plane routes of the audit log."""

from datetime import datetime
from typing import Any

import msgspec

from pilotage.audit.calls import CallProofs
from pilotage.audit.holds import HoldService
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.retention import Pruner, count_pruned
from pilotage.audit.service import AuditService
from pilotage.audit.types import AuditReport, Proof
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
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


class PrunedView(View):
    """How many entries have lost their texts by policy, in all and just now."""

    pruned: int
    removed: int


class HoldBody(Body):
    """A legal hold to place; nothing is pruned and no tenant erased while it is in force."""

    name: str
    reason: str


class HoldView(RevisedView):
    """A legal hold; it is in force until it is released."""

    name: str
    reason: str
    created_at: datetime
    created_by: str
    released_at: datetime | None
    released_by: str


def audit_routes(
    service: AuditService, inspection: AuditInspection, pruner: Pruner, holds: HoldService
) -> list[Route]:
    """List the routes of the audit log."""
    return [
        *_entry_routes(service),
        *_proof_routes(service, inspection),
        *_retention_routes(service, pruner),
        *_hold_routes(holds),
    ]


def _retention_routes(service: AuditService, pruner: Pruner) -> list[Route]:
    async def prune(call: ApiCall) -> PrunedView:
        """Remove the texts of entries that are older than the policy keeps them."""
        removed = await pruner.prune(call.actor)
        async with call.read() as tx:
            return PrunedView(pruned=await count_pruned(tx, service.log), removed=removed)

    return [
        Route(
            method="POST",
            path="/audit:prune",
            permission="audit.log.prune",
            handler=prune,
            is_global=True,
        )
    ]


def _hold_routes(holds: HoldService) -> list[Route]:
    async def create_hold(call: ApiCall, body: HoldBody) -> HoldView:
        """Place a legal hold."""
        async with call.write() as tx:
            return HoldView.of(await holds.create_hold(tx, body.name, body.reason))

    async def list_holds(call: ApiCall, limit: int = 50, after: str = "") -> Page[HoldView]:
        """List legal holds by name, released ones too."""
        async with call.read() as tx:
            found = await holds.list_holds(tx, after, limit + 1)
            return make_page(found, limit, HoldView.of, "name")

    async def get_hold(call: ApiCall, hold: str) -> HoldView:
        """Show a legal hold."""
        async with call.read() as tx:
            return HoldView.of(await holds.get_hold(tx, hold))

    async def release_hold(call: ApiCall, hold: str) -> HoldView:
        """Release a legal hold for ever; say why in ``x-pilotage-reason``."""
        async with call.write() as tx:
            return HoldView.of(await holds.release_hold(tx, hold))

    return [
        Route(
            method="POST",
            path="/audit/holds",
            permission="audit.holds.create",
            handler=create_hold,
            status=201,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/audit/holds",
            permission="audit.holds.read",
            handler=list_holds,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/audit/holds/{hold}",
            permission="audit.holds.read",
            handler=get_hold,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/audit/holds/{hold}:release",
            permission="audit.holds.release",
            handler=release_hold,
            is_global=True,
        ),
    ]


def _entry_routes(service: AuditService) -> list[Route]:
    async def list_entries(  # noqa: PLR0913, PLR0917 - the server passes them by name
        call: ApiCall,
        event: str = "",
        object_id: str | None = None,
        actor: str | None = None,
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


def _proof_routes(service: AuditService, inspection: AuditInspection) -> list[Route]:
    def show(proof: Proof) -> ProofView:
        return ProofView(
            log=service.log.name,
            public_key=service.log.public_key.hex(),
            entry=proof.entry.decode(),
            index=proof.index,
            size=proof.size,
            path=[step.hex() for step in proof.path],
            checkpoint=proof.checkpoint,
        )

    async def prove(
        call: ApiCall,
        position: int | None = None,
        revision: int | None = None,
        call_id: str | None = None,
    ) -> ProofView:
        """Prove that an entry is in the log: by its position, its revision, or a call in it."""
        if [position, revision, call_id].count(None) != 2:
            raise PilotageError(
                "invalid_request", "Name one of position, revision and call_id.", param="position"
            )
        if position is not None:
            return show(await service.prove(position))
        async with call.read() as tx:
            if revision is not None:
                return show(await service.prove_revision(tx, revision))
            found = await CallProofs(service).prove(tx, call_id or "")
        path = [step.hex() for step in found.path]
        part = CallPartView(
            line=found.line.decode(), index=found.index, calls=found.calls, path=path
        )
        return show(found.block).model_copy(update={"call": part})

    async def verify(call: ApiCall) -> AuditReportView:  # noqa: ARG001 - every handler takes it
        """Recompute the whole log, and compare it with everything that should agree with it."""
        return _show_report(await inspection.verify())

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
            method="GET",
            path="/audit/proof",
            permission="audit.log.prove",
            handler=prove,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/audit:verify",
            permission="audit.log.verify",
            handler=verify,
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


def _read_time(text: str | None, name: str) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{name}: {wrong}.", param=name) from None
