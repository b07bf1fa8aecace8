"""Who answers for an arm: a replica of ours, or a provider's API."""

from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.replicas import Replicas
from pilotage.gateway.providers.target import Target
from pilotage.gateway.providers.upstreams import Upstreams
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.snapshots import SnapshotView
from pilotage.gateway.targets import Targets
from pilotage.gateway.transport.upstream import Limits, Pool
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy


class TargetTable:
    """All targets; replicas follow the Targets file, upstreams the Snapshot."""

    def __init__(
        self, limits: Limits, breakers: Breakers, *, egress: EgressPolicy, clock: Clock
    ) -> None:
        self.replicas = Replicas(limits, breakers, clock)
        self._upstreams = Upstreams(limits, egress=egress, clock=clock)

    def pick(self, arm: ArmEntry, call: Call) -> Target | None:
        """Return the target of a call, None if a replica has to be waited for.

        Raises ``no_replica`` or ``upstream_unreachable``.
        """
        return self._upstreams.pick(arm) if arm.upstream_id else self.replicas.pick(arm, call)

    async def wait(self, arm: ArmEntry, call: Call) -> Target:
        """Return a replica as soon as one is ready; raise ``no_replica``, ``upstream_cold``."""
        return await self.replicas.wait(arm, call)

    def is_cold(self, arm: ArmEntry) -> bool:
        """Say whether an arm sleeps or has a cold replica; upstreams are always warm."""
        return not arm.upstream_id and self.replicas.is_cold(arm.id)

    def apply(self, targets: Targets) -> None:
        """Take over which replicas are ready."""
        self.replicas.apply(targets)

    def sync(self, view: SnapshotView) -> None:
        """Take over the upstreams of a Snapshot."""
        self._upstreams.apply(view.upstreams)

    def list_pools(self) -> list[Pool]:
        """Return the connections of every target that takes calls."""
        return [*self.replicas.list_pools(), *self._upstreams.list_pools()]

    def close(self) -> None:
        """Close every connection."""
        self.replicas.close()
        self._upstreams.close()
