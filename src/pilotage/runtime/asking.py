"""What the gateways of this machine ask of its replicas, from the files that their slots write."""

from collections.abc import Collection, Iterable
from pathlib import Path

from pilotage.endpoints.scaling_rules import Asked
from pilotage.gateway.demand import Demand, DemandFolder, DeploymentDemand
from pilotage.kit.clock import Clock
from pilotage.kit.spool_reader import is_held, list_spools

_NOTHING = DeploymentDemand()


class Asking:
    """The demand of all slots, as of the last look."""

    def __init__(self, run: Path, spools: Path, clock: Clock) -> None:
        self._folder = DemandFolder(run)
        self._spools = spools
        self._clock = clock
        self._said: dict[str, Demand] = {}

    def look(self) -> None:
        """Read what was said since."""
        self._said = self._folder.read(self._clock.now_us())

    def sum_up(self, deployment_ids: Iterable[str]) -> Asked:
        """Return what is asked of some deployments together."""
        found = [
            said.deployments.get(deployment_id, _NOTHING)
            for said in self._said.values()
            for deployment_id in deployment_ids
        ]
        return Asked(
            in_flight=sum(item.in_flight for item in found),
            waiting=sum(item.waiting for item in found),
            oldest_wait_ms=max((item.oldest_wait_ms for item in found), default=0),
            calls=sum(item.calls for item in found),
        )

    def has_left(self, targets: Collection[str], targets_n: int) -> bool:
        """Say whether no call is at some targets, and none comes: every living slot has said so.

        ``targets_n`` is a Targets file without them. A slot that is silent may have calls there.
        """
        for folder in list_spools(self._spools):
            said = self._said.get(folder.name)
            if said is None or said.targets_n < targets_n:
                is_clear = False
            else:
                is_clear = not any(said.replicas.get(target) for target in targets)
            if not is_clear and is_held(folder):
                return False
        return True
