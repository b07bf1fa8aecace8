"""What delivering needs: one way for each kind of channel."""

from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.monitoring.notify.types import Arrival, ChannelSpec, Notice


class RefusedError(PilotageError):
    """The other side does not take this notice as it is; it may take another."""


class Notifier(Protocol):
    """Speaks to channels of one kind."""

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Deliver a notice; return which recipients do not have it, none if all have.

        Raise a PilotageError that says why it could not be delivered: ``unavailable``,
        ``egress_denied``, ``invalid_config``; ``retry_after_s`` where the other side asks for time.
        Whoever calls limits the time.
        """
        ...
