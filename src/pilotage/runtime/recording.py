"""How single calls are kept and asked for: their segments, who merges and drops them, queries."""

from pilotage.audit.holds import HoldService
from pilotage.finops.users import Users
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database
from pilotage.kit.worker import Worker
from pilotage.monitoring.calls.http import query_routes
from pilotage.monitoring.calls.queries import CallQueries
from pilotage.monitoring.calls.service import CallSegments
from pilotage.monitoring.calls.types import QueryLimits
from pilotage.monitoring.calls.worker import SegmentKeeper, make_segment_worker


class Recording:
    """The rows of single calls with everything that works on them; ``segments`` is a sink."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        clock: Clock,
        db: Database,
        *,
        users: Users,
        holds: HoldService,
    ) -> None:
        self.segments = CallSegments(db, folder.calls, clock, label_users=users.keep)
        keep_us = round(duration_s(settings.calls.keep) * 1e6)
        limits = QueryLimits(
            timeout_s=duration_s(settings.calls.query_timeout),
            memory_mb=settings.calls.query_memory_mb,
        )
        self._queries = CallQueries(folder.calls, clock, limits, keep_us, is_held=holds.is_held)
        self._keeper = SegmentKeeper(self.segments, clock, keep_us, holds.is_held)

    def list_routes(self, identity: IdentityService) -> list[Route]:
        """List the routes of queries."""
        return query_routes(self._queries, identity)

    def make_worker(self) -> Worker:
        """Return the worker that merges segments and drops old ones."""
        return make_segment_worker(self._keeper)

    async def close(self) -> None:
        """Give back what writing segments holds."""
        await self.segments.close()
