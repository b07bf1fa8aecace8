"""How alerts are wired: where their numbers come from, who is told, their routes, their worker."""

from collections.abc import Callable, Sequence

from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.costs.service import CostService
from pilotage.finops.insights.service import CostInsights
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database
from pilotage.kit.worker import Worker
from pilotage.monitoring.alerts.http import alert_routes
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.objectives import ObjectiveSource
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.slos_http import slo_routes
from pilotage.monitoring.alerts.spending import BudgetSource, CostSource, SpikeSource
from pilotage.monitoring.alerts.traffic import TrafficSource
from pilotage.monitoring.alerts.values import Source, ValueSource
from pilotage.monitoring.alerts.windows import Windows
from pilotage.monitoring.alerts.worker import AlertKeeper
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.source import DriftSource
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.source import InfrastructureSource
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.source import QualitySource
from pilotage.monitoring.rollups.service import RollupService
from pilotage.registry.service import RegistryService


class Alerting:
    """Alert rules with the numbers that they look at; ``values`` and ``names`` serve others, too.

    ``is_current`` says whether the rollups have counted all that there was a moment ago.
    """

    def __init__(  # noqa: PLR0913 - whatever alerts are told of, and by whom
        self,
        db: Database,
        clock: Clock,
        *,
        identity: IdentityService,
        registry: RegistryService,
        rollups: RollupService,
        infrastructure: InfrastructureService,
        costs: CostService,
        budgets: BudgetService,
        insights: CostInsights,
        drift: DriftService,
        quality: QualityService,
        notices: NotifyService,
        is_current: Callable[[], bool],
        sources: Sequence[Source] = (),
    ) -> None:
        self.service = AlertService(clock)
        self.names = Names(identity, registry, clock)
        windows = Windows(rollups, clock)
        self.values = ValueSource(
            [
                TrafficSource(windows, self.names),
                ObjectiveSource(windows),
                InfrastructureSource(infrastructure, self.names),
                CostSource(costs, self.names, clock),
                BudgetSource(budgets, self.names, clock),
                SpikeSource(insights, self.names, clock),
                DriftSource(drift, self.names),
                QualitySource(quality, self.names),
                *sources,
            ]
        )
        self.keeper = AlertKeeper(
            db, self.service, self.values, notices, clock, is_current=is_current
        )
        self._identity = identity
        self._rollups = rollups

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            *alert_routes(self.service, self.keeper, self._identity),
            *slo_routes(self.service, self._rollups),
        ]

    def make_worker(self) -> Worker:
        """Return the worker that looks at all rules."""
        return self.keeper.make_worker()
