"""Changes of stage that can be planned ahead."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.governance.types import ScheduledRelease, Subject
from pilotage.kit.db import Tx
from pilotage.registry.promotions import Promotions
from pilotage.registry.service import RegistryService
from pilotage.registry.stages import read_stage
from pilotage.registry.types import Stage


class _Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stage: str


class ScheduledPromotion:
    """Move a version to a stage: ``{"stage": "production"}``."""

    permission = "registry.versions.promote"

    def __init__(self, registry: RegistryService, promotions: Promotions) -> None:
        self._registry = registry
        self._promotions = promotions

    async def check(self, tx: Tx, subject: str, arguments: Mapping[str, Any]) -> Subject:
        """Return the version; raise for one that is not there, or no stage."""
        version = await self._registry.get_version(tx, subject)
        _read(arguments)
        return Subject(id=version.id, name=version.ref, state={"stage": version.stage})

    async def run(self, tx: Tx, release: ScheduledRelease) -> None:
        """Move the version, as the route for people does."""
        await self._promotions.promote(tx, release.subject_id, _read(release.arguments))


def _read(arguments: Mapping[str, Any]) -> Stage:
    try:
        return read_stage(msgspec.convert(arguments, _Arguments).stage)
    except msgspec.ValidationError as wrong:
        raise PilotageError(
            "invalid_request",
            f"That is no stage: {wrong}",
            hint='Write {"stage": "production"}.',
            param="arguments",
        ) from None
