"""How answers are judged: measures and feedback counted with the calls, references, the routes."""

from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database
from pilotage.kit.worker import Worker
from pilotage.monitoring.drift.http import drift_routes
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.worker import MeasureSink, make_reference_worker
from pilotage.monitoring.quality.http import quality_routes
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.worker import FeedbackSink, make_feedback_worker
from pilotage.monitoring.rollups.worker import CallSink


class Judging:
    """Drift and quality with everything that works on them."""

    def __init__(
        self, db: Database, clock: Clock, *, finops: FinopsService, identity: IdentityService
    ) -> None:
        self.drift = DriftService(clock)
        self.quality = QualityService(finops, self.drift)
        self._db = db
        self._clock = clock
        self._identity = identity

    def make_sinks(self) -> list[CallSink]:
        """Return what listens to the calls as they are counted."""
        return [MeasureSink(self.drift), FeedbackSink(self.quality)]

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [*drift_routes(self.drift), *quality_routes(self.quality, self._identity)]

    def make_workers(self) -> list[Worker]:
        """Return the workers."""
        return [
            make_reference_worker(self._db, self.drift),
            make_feedback_worker(self._db, self.quality, self._clock),
        ]
