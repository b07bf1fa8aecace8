"""Control-plane routes of the audit log's retention: pruning and legal holds."""

from datetime import datetime

from pilotage.audit.holds import HoldService
from pilotage.audit.retention import Pruner, count_pruned
from pilotage.audit.service import AuditService
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page


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


def retention_routes(service: AuditService, pruner: Pruner, holds: HoldService) -> list[Route]:
    """List the routes of pruning and of legal holds."""

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
        ),
        *_hold_routes(holds),
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
