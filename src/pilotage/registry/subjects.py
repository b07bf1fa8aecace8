"""What an approval of a model version is about: the version as it is now."""

from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind, Subject
from pilotage.kit.db import Tx
from pilotage.registry.service import RegistryService

STAGE_KINDS = (DecisionKind.PROMOTE, DecisionKind.DEMOTE, DecisionKind.ARCHIVE)


class VersionSubjects:
    """Describes versions: what must not change between asking and doing, and who made them.

    Its last change of stage is part of that: for one that comes back to a stage it is asked anew.
    """

    def __init__(self, registry: RegistryService, governance: GovernanceService) -> None:
        self._registry = registry
        self._governance = governance

    async def __call__(self, tx: Tx, name_or_id: str, /) -> Subject:
        """Return a version as a subject of approval; raise ``not_found``."""
        version = await self._registry.get_version(tx, name_or_id)
        moved = await self._governance.decisions.list(
            tx, limit=1, kinds=STAGE_KINDS, subject=version.id, is_newest=True
        )
        state = {
            "stage": version.stage,
            "artifact_sha256": version.artifact_sha256,
            "moved": [decision.id for decision in moved],
        }
        return Subject(
            id=version.id,
            name=version.ref,
            state=state,
            authors=frozenset({version.created_by}),
        )
