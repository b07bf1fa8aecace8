"""Changes of traffic that can be planned ahead."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.endpoints.rules import compile_split
from pilotage.endpoints.service import EndpointService
from pilotage.governance.types import ScheduledRelease, Subject
from pilotage.kit.db import Tx


class _Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    split: dict[str, Decimal]


class ScheduledSplit:
    """Move the traffic of an endpoint: ``{"split": {"MODEL@VERSION": PERCENT}}``."""

    permission = "endpoints.traffic.split"

    def __init__(self, endpoints: EndpointService) -> None:
        self._endpoints = endpoints

    async def check(self, tx: Tx, subject: str, arguments: Mapping[str, Any]) -> Subject:
        """Return the endpoint; raise for one that is not there, or no split of its deployments."""
        endpoint = await self._endpoints.get_endpoint(tx, subject)
        compile_split(_read(arguments), await self._endpoints.list_deployments(tx, endpoint))
        return Subject(id=endpoint.id, name=endpoint.name, state={"split": endpoint.split})

    async def run(self, tx: Tx, release: ScheduledRelease) -> None:
        """Move the traffic, as the route for people does."""
        await self._endpoints.split(tx, release.subject_id, _read(release.arguments))


def _read(arguments: Mapping[str, Any]) -> dict[str, Decimal]:
    try:
        return msgspec.convert(arguments, _Arguments, strict=False).split
    except msgspec.ValidationError as wrong:
        raise PilotageError(
            "invalid_request",
            f"That is no split of traffic: {wrong}",
            hint='Write {"split": {"MODEL@VERSION": 100}}.',
            param="arguments",
        ) from None
