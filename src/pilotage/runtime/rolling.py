"""How rollouts are wired: who measures them, who looks at them, their routes."""

from pilotage.endpoints.service import EndpointService
from pilotage.governance.service import GovernanceService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database
from pilotage.kit.worker import Wakeup, Worker
from pilotage.registry.service import RegistryService
from pilotage.rollouts.http import rollout_routes
from pilotage.rollouts.ports import Sources
from pilotage.rollouts.service import RolloutService
from pilotage.rollouts.steering import Steering
from pilotage.rollouts.worker import RolloutRunner


class Rolling:
    """Rollouts with everything that works on them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        governance: GovernanceService,
        registry: RegistryService,
        endpoints: EndpointService,
        sources: Sources,
        holder: str,
    ) -> None:
        self.service = RolloutService(clock, governance, registry, endpoints, sources)
        self.steering = Steering(self.service, governance, endpoints)
        self._runner = RolloutRunner(db, self.service, endpoints, holder)

    def list_routes(self) -> list[Route]:
        """List the routes of rollouts."""
        return rollout_routes(self.service, self.steering)

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker that looks at rollouts."""
        return self._runner.make_worker(wakeup)
