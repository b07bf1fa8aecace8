"""PagerDuty's Events API v2. The routing key is in the body, so it never shows in an address."""

from collections.abc import Collection

from pilotage.core.errors import PilotageError
from pilotage.monitoring.notify.backends.http_post import HttpPost, encode_body
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.messages import make_pagerduty
from pilotage.monitoring.notify.types import ARRIVED, Arrival, ChannelSpec, Notice

OWN = "pagerduty.com"


class PagerDutyNotifier:
    """Triggers and resolves incidents; ``hosts`` may take its events besides its own."""

    def __init__(self, post: HttpPost, secrets: SecretReader, hosts: Collection[str] = ()) -> None:
        self._secrets = secrets
        self._post = post
        self._hosts = hosts

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Post an event; the end of some is none while others of the incident fire silenced."""
        if not notice.message.is_firing and notice.message.muted:
            return ARRIVED
        key = await self._secrets.read(spec.secret, notice.project_id)
        body = encode_body(make_pagerduty(notice, key))
        await self._post(spec, notice, body, {}, self._check_host)
        return ARRIVED

    def _check_host(self, host: str) -> None:
        """Raise ``invalid_config`` for a host that may not have a routing key."""
        if host != OWN and not host.endswith(f".{OWN}") and host not in self._hosts:
            raise PilotageError(
                "invalid_config",
                f"{host} is no host of PagerDuty: it gets no routing key.",
                hint="Whoever runs this installation lists others: channels.pagerduty_hosts.",
            )
