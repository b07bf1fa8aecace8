"""What governance needs from the slices above it: what a subject is, and how to change it."""

from collections.abc import Mapping
from typing import Any, Protocol

from pilotage.governance.types import ScheduledRelease, Subject
from pilotage.kit.db import Tx


class DescribeSubject(Protocol):
    """Says what an approval of one action would be about."""

    async def __call__(self, tx: Tx, name_or_id: str, /) -> Subject:
        """Return the subject as it is now; raise ``not_found``."""
        ...


class ScheduledAction(Protocol):
    """A change that can be planned ahead."""

    @property
    def permission(self) -> str:
        """What the requester must be allowed, now and when it is made."""
        ...

    async def check(self, tx: Tx, subject: str, arguments: Mapping[str, Any]) -> Subject:
        """Return what would be changed; raise for a subject or arguments that cannot be.

        Gates, approvals and freezes are not for this moment: they are checked when it is made.
        """
        ...

    async def run(self, tx: Tx, release: ScheduledRelease) -> None:
        """Make the change, with every check of the door people use."""
        ...
