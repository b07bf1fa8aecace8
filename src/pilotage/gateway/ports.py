"""What the gateway needs from outside, where more than one thing can give it."""

from typing import Protocol

from pilotage.gateway.counters.types import Answer, Ask


class StoreAwayError(Exception):
    """A store did not answer in time or cannot be reached; the message says what happened."""


class CounterStore(Protocol):
    """Where gateways agree on limits: one exchange says and asks everything at once.

    Every implementation decides as :mod:`pilotage.gateway.counters.rules` does.
    """

    is_shared: bool

    async def exchange(self, ask: Ask) -> Answer:
        """Post what an owner says and return the answer; raise StoreAwayError if there is none."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...
