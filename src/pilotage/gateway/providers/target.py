"""What the gateway asks of whoever answers calls: a replica of ours or a provider's API."""

from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call
from pilotage.gateway.transport.upstream import Pool


class Target(Protocol):
    """One address that answers calls; ``wire`` names what it speaks: openai or anthropic.

    ``id`` is the one of an upstream or of a replica. ``adapters`` are what it can put on its model,
    in the order of the numbers it knows them by. ``is_retired``: it takes no new calls.
    """

    id: str
    wire: str
    pool: Pool
    adapters: tuple[str, ...]
    is_retired: bool

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

    def pick(self, arm: ArmEntry, call: Call) -> Target | None:
        """Return the target that shall take a call, None if one has to be waited for.

        Raises ``no_replica`` where none can be had.
        """
        ...

    async def wait(self, arm: ArmEntry, call: Call) -> Target:
        """Return the target that shall take a call as soon as there is one."""
        ...
