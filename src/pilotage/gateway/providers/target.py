"""What the gateway asks of whoever answers calls: a replica of ours or a provider's API."""

from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call
from pilotage.gateway.transport.upstream import Pool


class Target(Protocol):
    """One address that answers calls; ``wire`` names what it speaks: openai or anthropic."""

    wire: str
    pool: Pool

    def enter(self) -> None:
        """Count a call in."""
        ...

    def leave(self) -> None:
        """Count a call out."""
        ...

    async def make_head(self, path: bytes, call: Call) -> bytes:
        """Return the request line and header lines of a POST, without content-length.

        ``path`` is below the target's base path, such as ``/chat/completions``. Waits only while a
        credential is fetched that is not there yet.
        """
        ...

    async def renew_head(self, path: bytes, call: Call) -> bytes | None:
        """Return a head with a fresh credential after a 401; None if there is no fresher one."""
        ...

    def translate_error(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> PilotageError:
        """Return our error for the target's: its 400 about the request stays one."""
        ...


class Targets(Protocol):
    """Who answers for an arm."""

    def pick(self, arm: ArmEntry) -> Target:
        """Return the target that shall take the next call; raise ``no_replica``."""
        ...
