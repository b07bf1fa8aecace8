"""What endpoints need from outside: somebody who runs replicas."""

from collections.abc import Sequence
from typing import Protocol

from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.types import ReplicaStatus


class Fleet(Protocol):
    """Runs the replicas it is told to and says what it sees of them."""

    @property
    def is_present(self) -> bool:
        """Whether replicas can run now (a command without a server runs none)."""
        ...

    @property
    def has_reported(self) -> bool:
        """Whether anything was seen yet: before, no status does not mean that no replica runs."""
        ...

    async def set_desired(self, replicas: Sequence[ReplicaSpec]) -> None:
        """Say which replicas shall run; all others shall not. Asking twice changes nothing."""
        ...

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what was last seen."""
        ...
