"""What replays need: calls that were kept, and somebody who asks single deployments."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pilotage.kit.db import Tx
from pilotage.rollouts.replay.types import Answer, Kept


class Samples(Protocol):
    """Calls that were kept, pseudonymised."""

    async def read(self, tx: Tx, alias: str, since_us: int, limit: int) -> Kept:
        """Return the newest calls of an endpoint, in the order of their ids; note who read them."""
        ...


class Asking(Protocol):
    """Asks one deployment of an endpoint after the other, whatever traffic they get."""

    def bound(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> int | None:
        """Return the most that a request may cost, in nano-USD.

        None if the deployment may not have the tenant's calls. Raises ``not_found`` if it cannot be
        asked at all.
        """
        ...

    async def ask(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> Answer:
        """Return what a deployment answers; a ``seed`` is left out where it cannot be said."""
        ...


class Answers(Protocol):
    """Opens whatever asks."""

    def open(self) -> AbstractAsyncContextManager[Asking]:
        """Return what asks while the block lasts; raise ``not_ready`` if nothing can be asked."""
        ...
