"""Counters in this process: for one gateway, and for tests."""

from pilotage.gateway.counters.rules import Books, exchange, forget_expired
from pilotage.gateway.counters.types import Answer, Ask
from pilotage.kit.clock import Clock

_TIDY_EVERY_MS = 60_000


class MemoryStore:
    """The books in memory; they are rebuilt from the spool of their only owner at each start."""

    is_shared = False

    def __init__(self, clock: Clock) -> None:
        self.books = Books()
        self._clock = clock
        self._tidied_ms = 0

    async def exchange(self, ask: Ask) -> Answer:
        """Post what an owner says and return the answer."""
        now_ms = self._clock.now_us() // 1000
        if now_ms - self._tidied_ms >= _TIDY_EVERY_MS:
            self._tidied_ms = now_ms
            forget_expired(self.books, now_ms)
        return exchange(self.books, ask, now_ms)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
