"""What a backend is told to run: for each deployment its replicas, all alike, and how many."""

import msgspec
from msgspec.structs import replace

from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.types import PLAIN_SCALING, Scaling


class ReplicaGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of a deployment, all alike: ``DEPLOYMENT.0``, ``DEPLOYMENT.1`` and so on.

    ``replica`` is what each of them is, its id aside. How many run at a time is for whoever runs
    them to decide, by ``scaling``; none falls asleep before ``awake_until_us``. ``shared_by`` are
    all deployments that they answer for, if more than the one that they are named for.
    """

    deployment_id: str
    replica: ReplicaSpec
    scaling: Scaling = PLAIN_SCALING
    awake_until_us: int = 0
    shared_by: tuple[str, ...] = ()

    @property
    def serves(self) -> tuple[str, ...]:
        """The deployments whose calls its replicas answer."""
        return self.shared_by or (self.deployment_id,)

    def make_spec(self, number: int) -> ReplicaSpec:
        """Return one replica."""
        return replace(self.replica, replica_id=f"{self.deployment_id}.{number}")
