"""What delivering needs: one way for each kind of channel."""

from collections.abc import Sequence
from typing import Protocol

from pilotage.monitoring.notify.types import ChannelSpec, Notice


class Notifier(Protocol):
    """Speaks to channels of one kind."""

    async def send(self, spec: ChannelSpec, notice: Notice) -> Sequence[str]:
        """Deliver a notice; return the recipients that do not have it yet, none if all have.

        Raise a PilotageError that says why it could not be delivered: ``unavailable``,
        ``egress_denied``, ``invalid_config``; ``retry_after_s`` where the other side asks for time.
        Whoever calls limits the time.
        """
        ...
