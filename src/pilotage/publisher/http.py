"""Control-plane routes of the publisher."""

from datetime import datetime

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Route, View
from pilotage.publisher.service import PublisherService


class UnpublishedView(View):
    """An endpoint that clients cannot use, and why."""

    project_id: str
    name: str
    reason: str


class LeftOutView(View):
    """A deployment that calls of its endpoint cannot reach, although others can be, and why."""

    project_id: str
    endpoint: str
    deployment: str
    reason: str


class SnapshotView(View):
    """The current Snapshot: what gateways should serve, and what was left out of it.

    It holds every change up to revision ``covers``. ``left_out`` are deployments of endpoints that
    are published.
    """

    n: int
    created_at: datetime
    expires_at: datetime
    covers: int
    unpublished: list[UnpublishedView]
    left_out: list[LeftOutView]


def publisher_routes(service: PublisherService) -> list[Route]:
    """List the routes of the publisher."""

    async def get_snapshot(call: ApiCall) -> SnapshotView:  # noqa: ARG001 - every handler takes it
        """Show the current Snapshot and the endpoints that are not in it."""
        current = service.current
        if current is None:
            raise PilotageError("not_found", "No Snapshot has been published yet.")
        return SnapshotView.of(
            current,
            unpublished=[UnpublishedView.of(item) for item in service.unpublished],
            left_out=[LeftOutView.of(item) for item in service.left_out],
        )

    return [
        Route(
            method="GET",
            path="/snapshot",
            permission="publisher.snapshot.read",
            handler=get_snapshot,
            is_global=True,
        )
    ]
