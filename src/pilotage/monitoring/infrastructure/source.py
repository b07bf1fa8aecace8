"""Metrics of replicas, for rules and for other programs: what was read last."""

from collections.abc import Sequence

from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.infrastructure.rules import put_together
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.types import Gauge

_GAUGES = (Gauge.REPLICAS, Gauge.READY, Gauge.CPU, Gauge.MEMORY, Gauge.GPU)


class InfrastructureSource:
    """Answers what replicas are used to now; of what was not read for a while, nothing."""

    def __init__(self, service: InfrastructureService, names: Names) -> None:
        self.names = frozenset(gauge.value for gauge in _GAUGES)
        self._service = service
        self._names = names

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        now = self._service.get_now(at_us)
        await self._names.learn(tx, {key.version_id for key in now})
        found: Found = {}
        for one in wanted:
            of_project = found.setdefault(one, {})
            for (project_id, *values), value in put_together(now, Gauge(one.name), one.by).items():
                labels = self._names.say_all(one.by, values)
                of_project.setdefault(project_id, {})[labels] = value
        return found
