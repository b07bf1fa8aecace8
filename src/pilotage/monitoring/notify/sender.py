"""Sends one notice to its channel, by the way of the channel's kind."""

import asyncio
import logging
from collections.abc import Mapping

from pilotage.core.errors import PilotageError
from pilotage.kit.channel_settings import ChannelSettings
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy
from pilotage.monitoring.notify.backends.email import EmailNotifier
from pilotage.monitoring.notify.backends.http_post import HttpPost
from pilotage.monitoring.notify.backends.log import LogNotifier
from pilotage.monitoring.notify.backends.pagerduty import PagerDutyNotifier
from pilotage.monitoring.notify.backends.secrets import NameProject, SecretReader
from pilotage.monitoring.notify.backends.slack import SlackNotifier
from pilotage.monitoring.notify.backends.webhook import WebhookNotifier
from pilotage.monitoring.notify.ports import Notifier
from pilotage.monitoring.notify.types import Arrival, ChannelKind, ChannelSpec, Notice

LIMIT_S = 10.0  # of one attempt, from the look-up of the name to the end of the reply
_LOG = logging.getLogger("pilotage.notices")


def make_notifiers(
    settings: ChannelSettings, egress: EgressPolicy, clock: Clock, name_project: NameProject
) -> dict[ChannelKind, Notifier]:
    """Return the ways to speak to each kind of channel."""
    secrets = SecretReader(settings.folder, name_project)
    post = HttpPost(egress, clock, secrets)
    return {
        ChannelKind.LOG: LogNotifier(),
        ChannelKind.WEBHOOK: WebhookNotifier(post, clock, secrets),
        ChannelKind.SLACK: SlackNotifier(post),
        ChannelKind.PAGERDUTY: PagerDutyNotifier(post, secrets, settings.hosts_of_pagerduty),
        ChannelKind.EMAIL: EmailNotifier(egress, secrets),
    }


class Sender:
    """Sends one notice to its channel, within a time limit."""

    def __init__(self, notifiers: Mapping[ChannelKind, Notifier], limit_s: float = LIMIT_S) -> None:
        self._notifiers = notifiers
        self.limit_s = limit_s

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Send a notice; return the recipients that do not have it. Raise only PilotageError.

        Whatever an address makes a library raise is a failure of this attempt, and recorded.
        """
        try:
            async with asyncio.timeout(self.limit_s):
                return await self._notifiers[spec.kind].send(spec, notice)
        except PilotageError:
            raise
        except TimeoutError:
            raise PilotageError(
                "unavailable", f"There was no answer within {self.limit_s:g} s."
            ) from None
        except Exception as failed:
            _LOG.exception("%s could not be sent to %s", notice.id, notice.channel)
            raise PilotageError(
                "internal_error", f"It could not be sent: {type(failed).__name__}."
            ) from failed
