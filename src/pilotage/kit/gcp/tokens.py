"""Bearer tokens for Google's APIs: always at hand, fetched by one thread, never by two at once.

A token lives about an hour. While it is fresh it is served at once; when it is stale it is served
while one refresh runs beside; when it is invalid everybody waits for that one refresh.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import NamedTuple, Protocol

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.gcp")

STALE_US = 225_000_000  # what is left of a token when google-auth calls it stale
INVALID_US = 10_000_000  # a token that expires on its way is of no use
RETRY_S = 5.0  # between refreshes of a stale token
FAILED_S = 1.0  # how long a failure counts for all who ask
FORCE_S = 10.0  # between refreshes that a 401 asked for
LIMIT_S = 10.0


class Token(NamedTuple):
    """A token and the wall time at which it expires; 0 is never."""

    text: str
    expires_at_us: int


class TokenState(Enum):
    """Whether a token may be used, and whether another should be fetched."""

    FRESH = "fresh"
    STALE = "stale"
    INVALID = "invalid"


class TokenSource(Protocol):
    """Fetches tokens, in a thread."""

    def fetch(self) -> Token:
        """Return a new token, waiting for it; raise NoToken."""
        ...

    def abort(self) -> None:
        """Make a fetch that runs fail now; called from another thread."""
        ...

    def close(self) -> None:
        """Make a fetch that runs fail now, and all that follow; called from another thread."""
        ...


class NoToken(Exception):  # noqa: N818 - what the token service said
    """There is no token to be had; the text says why and is for the log.

    ``hint`` is what to do about it, where that is known.
    """

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


class TokenProvider:
    """The token of one credential; belongs to one event loop. Whoever makes one closes it.

    ``name`` says in errors whose credential it is, without showing it.
    """

    def __init__(
        self, source: TokenSource, name: str, clock: Clock, *, limit_s: float = LIMIT_S
    ) -> None:
        self._source = source
        self._name = name
        self._clock = clock
        self._limit_s = limit_s
        self._thread: ThreadPoolExecutor | None = None
        self._flight: asyncio.Future[Token] | None = None
        self._token: Token | None = None
        self._fetched_s = float("-inf")
        self._failed_s = float("-inf")
        self._failure: NoToken | None = None
        self._is_closed = False

    @property
    def state(self) -> TokenState:
        """What the token at hand is worth now."""
        if self._token is None:
            return TokenState.INVALID
        if not self._token.expires_at_us:
            return TokenState.FRESH
        left_us = self._token.expires_at_us - self._clock.now_us()
        if left_us > STALE_US:
            return TokenState.FRESH
        return TokenState.STALE if left_us > INVALID_US else TokenState.INVALID

    async def get(self) -> str:
        """Return a token; raise ``upstream_auth`` if there is none to be had in time."""
        state = self.state
        if state is TokenState.INVALID or self._token is None:
            return await self._wait()
        if state is TokenState.STALE and self._flight is None and self._may_refresh():
            self._start()
        return self._token.text

    async def renew(self) -> str | None:
        """Return another token than the one that was refused, None if there is no other.

        Many whose token was refused cause one refresh, and a token that is younger than some
        seconds is itself the other one.
        """
        refused = self._token.text if self._token else ""
        if self._flight is None and self._clock.monotonic_s() - self._fetched_s < FORCE_S:
            return refused or None
        try:
            token = await self._wait()
        except PilotageError:
            return None
        return token if token != refused else None

    def close(self) -> None:
        """End what runs; nothing is fetched any more."""
        self._is_closed = True
        self._source.close()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _may_refresh(self) -> bool:
        last_s = max(self._fetched_s, self._failed_s)
        return not self._is_closed and self._clock.monotonic_s() - last_s >= RETRY_S

    async def _wait(self) -> str:
        """Return the token of the refresh that runs, beginning one if none does."""
        flight = self._flight
        if flight is None:
            now_s = self._clock.monotonic_s()
            if self._is_closed or (self._failure and now_s - self._failed_s < FAILED_S):
                raise self._refuse()
            flight = self._start()
        done, _ = await asyncio.wait([flight], timeout=self._limit_s + 1)
        if not done or flight.cancelled() or flight.exception() is not None:
            raise self._refuse()
        return flight.result().text

    def _start(self) -> asyncio.Future[Token]:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="google-token")
        flight = self._flight = loop.run_in_executor(self._thread, self._source.fetch)
        timer = loop.call_later(self._limit_s, self._source.abort)

        def land(landed: asyncio.Future[Token]) -> None:
            timer.cancel()
            self._adopt(landed)

        flight.add_done_callback(land)
        return flight

    def _adopt(self, flight: asyncio.Future[Token]) -> None:
        self._flight = None
        if flight.cancelled():
            return
        failed = flight.exception()
        if failed is None:
            self._token, self._failure = flight.result(), None
            self._fetched_s = self._clock.monotonic_s()
            return
        self._failed_s = self._clock.monotonic_s()
        self._failure = failed if isinstance(failed, NoToken) else NoToken(repr(failed))
        _LOG.warning("no token from Google for %s: %s", self._name, self._failure)

    def _refuse(self) -> PilotageError:
        return PilotageError(
            "upstream_auth",
            f"There is no token from Google for {self._name}.",
            hint=self._failure.hint if self._failure else "",
        )
