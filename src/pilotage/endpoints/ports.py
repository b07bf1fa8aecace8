"""What endpoints need from outside: somebody who runs replicas, as many as calls need."""

from collections.abc import Sequence
from typing import Protocol

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.types import Load, ReplicaStatus


class Fleet(Protocol):
    """Runs the replicas it is told to, as many as their settings and calls say, and tells of them.

    It wakes a sleeping deployment up when somebody calls, lets running calls finish before it stops
    a replica, and starts one that has ended again, more and more rarely.
    """

    @property
    def is_present(self) -> bool:
        """Whether replicas can run now (a command without a server runs none)."""
        ...

    @property
    def has_reported(self) -> bool:
        """Whether anything was seen yet: before, no status does not mean that no replica runs."""
        ...

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Say of which deployments replicas shall run, and of no others.

        Asking twice changes nothing. Replicas that shall be different from now on are replaced:
        the former ones stop when the new ones are ready.
        """
        ...

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what was last seen of each replica that there is."""
        ...

    def list_loads(self) -> Sequence[Load]:
        """Return what was last asked of each deployment, and how many replicas it shall have."""
        ...
