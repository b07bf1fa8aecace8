"""What people call the ids that calls are counted by."""

from collections.abc import Iterable, Sequence

from pilotage.core.condition.types import Labels
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.registry.service import RegistryService

LOOK_EVERY_S = 10.0


class Names:
    """Names of projects, tenants and model versions; what has none any more keeps its id."""

    def __init__(self, identity: IdentityService, registry: RegistryService, clock: Clock) -> None:
        self.projects: dict[str, str] = {}
        self._identity = identity
        self._registry = registry
        self._clock = clock
        self._tenants: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._looked_s: dict[str | None, float] = {}

    async def learn(self, tx: Tx, version_ids: Iterable[str] = ()) -> None:
        """Look up what is new; projects and tenants every ten seconds."""
        scope, now_s = tx.actor.project_id, self._clock.monotonic_s()
        if now_s - self._looked_s.get(scope, -LOOK_EVERY_S) >= LOOK_EVERY_S:
            projects = {item.id: item.name for item in await self._identity.list_projects(tx)}
            tenants = {item.id: item.name for item in await self._identity.list_tenants(tx)}
            if scope is None:
                self.projects, self._tenants = {}, {}
            self.projects |= projects
            self._tenants |= tenants
            self._versions.clear()
            self._looked_s[scope] = now_s
        new = sorted({one for one in version_ids if one} - self._versions.keys())
        if new:
            known = {item.id: item.ref for item in await self._registry.list_by_ids(tx, new)}
            self._versions |= {one: known.get(one, one) for one in new}

    def list_projects(self, tx: Tx) -> list[str]:
        """Return the ids of the projects that a transaction sees, once they were looked up."""
        own = tx.actor.project_id
        return list(self.projects) if own is None else [own]

    def say_all(self, labels: Sequence[str], ids: Sequence[str]) -> Labels:
        """Return labels with their values as people write them."""
        return tuple(
            (label, self._say(label, value)) for label, value in zip(labels, ids, strict=True)
        )

    def _say(self, label: str, value: str) -> str:
        if label == "tenant":
            return self._tenants.get(value, value)
        if label == "version":
            return self._versions.get(value, value)
        return value
