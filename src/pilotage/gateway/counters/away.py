"""The store of a process that may not count: another process counts in its own memory."""

from pilotage.gateway.counters.types import Answer, Ask
from pilotage.gateway.ports import StoreAwayError


class AwayStore:
    """Never answers, so that every limit does as it declares for the loss of its store."""

    is_shared = True

    async def exchange(self, ask: Ask) -> Answer:
        """Raise StoreAwayError."""
        del ask
        raise StoreAwayError(
            "limits are counted in another process; set counters.url to share them"
        )

    def close(self) -> None:
        """Do nothing: nothing was opened."""
