"""Who answers for an arm: a replica of ours, or a provider's API."""

from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.providers.replicas import Replicas
from pilotage.gateway.providers.target import Target
from pilotage.gateway.providers.upstreams import Upstreams
from pilotage.gateway.snapshots import SnapshotView
from pilotage.gateway.targets import Targets
from pilotage.gateway.transport.upstream import Limits, Pool
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy


class TargetTable:
    """All targets; replicas follow the Targets file, upstreams the Snapshot."""

    def __init__(self, limits: Limits, *, egress: EgressPolicy, clock: Clock) -> None:
        self._replicas = Replicas(limits)
        self._upstreams = Upstreams(limits, egress=egress, clock=clock)

    def pick(self, arm: ArmEntry) -> Target:
        """Return the target of the next call; raise ``no_replica``, ``upstream_unreachable``."""
        return self._upstreams.pick(arm) if arm.upstream_id else self._replicas.pick(arm)

    def apply(self, targets: Targets) -> None:
        """Take over which replicas are ready."""
        self._replicas.apply(targets)

    def sync(self, view: SnapshotView) -> None:
        """Take over the upstreams of a Snapshot."""
        self._upstreams.apply(view.upstreams)

    def list_pools(self) -> list[Pool]:
        """Return the connections of every target that takes calls."""
        return [*self._replicas.list_pools(), *self._upstreams.list_pools()]

    def close(self) -> None:
        """Close every connection."""
        self._replicas.close()
        self._upstreams.close()
