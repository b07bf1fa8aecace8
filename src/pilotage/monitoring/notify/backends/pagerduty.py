"""PagerDuty's Events API v2. The routing key is in the body, so it never shows in an address."""

from collections.abc import Sequence

from pilotage.monitoring.notify.backends.http_post import HttpPost, encode_body
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.messages import make_pagerduty
from pilotage.monitoring.notify.types import ChannelSpec, Notice


class PagerDutyNotifier:
    """Triggers and resolves incidents."""

    def __init__(self, post: HttpPost, secrets: SecretReader) -> None:
        self._secrets = secrets
        self._post = post

    async def send(self, spec: ChannelSpec, notice: Notice) -> Sequence[str]:
        """Post an event."""
        body = encode_body(make_pagerduty(notice, self._secrets.read(spec.secret)))
        await self._post(spec.url, body, {}, spec.ca_file)
        return ()
