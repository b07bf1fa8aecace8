"""What an approval of a model version is about: the version as it is now."""

from pilotage.governance.types import Subject
from pilotage.kit.db import Tx
from pilotage.registry.service import RegistryService


class VersionSubjects:
    """Describes versions: what must not change between asking and doing, and who made them."""

    def __init__(self, registry: RegistryService) -> None:
        self._registry = registry

    async def __call__(self, tx: Tx, name_or_id: str, /) -> Subject:
        """Return a version as a subject of approval; raise ``not_found``."""
        version = await self._registry.get_version(tx, name_or_id)
        state = {"stage": version.stage, "artifact_sha256": version.artifact_sha256}
        return Subject(
            id=version.id,
            name=version.ref,
            state=state,
            authors=frozenset({version.created_by}),
        )
