"""Slack's incoming webhooks. Their address is all it takes to post, so it is a secret."""

from pilotage.monitoring.notify.backends.http_post import HttpPost, encode_body
from pilotage.monitoring.notify.messages import make_slack
from pilotage.monitoring.notify.types import ARRIVED, Arrival, ChannelSpec, Notice


class SlackNotifier:
    """Posts notices to Slack."""

    def __init__(self, post: HttpPost) -> None:
        self._post = post

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Post a notice."""
        await self._post(spec, notice, encode_body(make_slack(notice.message)), {})
        return ARRIVED
