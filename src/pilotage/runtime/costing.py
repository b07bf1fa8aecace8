"""Costs: how their services are wired, their routes and their workers."""

from collections.abc import Callable

from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.replicas import ReplicaWatch
from pilotage.endpoints.store import name_upstreams
from pilotage.finops.budgets.http import budget_routes
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.chargeback.http import chargeback_raw_routes, chargeback_routes
from pilotage.finops.chargeback.service import ChargebackService
from pilotage.finops.costs.http import cost_routes
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.worker import CostKeeper
from pilotage.finops.insights.http import insight_routes
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.months.service import Months
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database
from pilotage.kit.worker import Worker
from pilotage.registry.service import RegistryService


class Costing:
    """Costs, budgets and chargeback of an installation."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        identity: IdentityService,
        finops: FinopsService,
        registry: RegistryService,
        fleet: Fleet,
        close_after_us: int,
        is_level: Callable[[], bool],
    ) -> None:
        self.service = CostService(clock)
        self.budgets = BudgetService(clock, self.service, identity.find_payer_id)
        self.insights = CostInsights(finops)
        self._finops = finops
        self._identity = identity
        months = Months(finops, identity, close_after_us)
        self._chargeback = ChargebackService(
            self.service, self.insights, months, identity, name_upstreams
        )
        replicas = ReplicaCosts(clock, self.service)
        self.watch = ReplicaWatch(db, clock, fleet, replicas)
        self._keeper = CostKeeper(
            db,
            clock,
            replicas=replicas,
            months=months,
            budgets=self.budgets,
            measure_storage=registry.artifacts.measure,
            is_level=is_level,
        )

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            *cost_routes(self.service, self._finops, self._identity),
            *insight_routes(self.insights),
            *budget_routes(self.budgets),
            *chargeback_routes(self._chargeback),
        ]

    def list_raw_routes(self) -> list[RawRoute]:
        """List the routes that send files."""
        return chargeback_raw_routes(self._chargeback)

    def make_worker(self) -> Worker:
        """Return the worker that books what is no call's."""
        return self._keeper.make_worker()
