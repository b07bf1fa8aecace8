"""Webhooks: a POST that is signed, as the Standard Webhooks specification has it.

The signature is HMAC-SHA256 of ``ID.TIMESTAMP.BODY``, sent as ``webhook-signature: v1,BASE64``
beside ``webhook-id`` and ``webhook-timestamp`` (https://www.standardwebhooks.com). The id is the
same in every attempt, so that a receiver knows what it has already.
"""

import base64
import binascii
import hashlib
import hmac

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.monitoring.notify.backends.http_post import HttpPost, encode_body
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.messages import make_webhook
from pilotage.monitoring.notify.types import ARRIVED, Arrival, ChannelSpec, Notice

PREFIX = "whsec_"


class WebhookNotifier:
    """Posts notices to programs."""

    def __init__(self, post: HttpPost, clock: Clock, secrets: SecretReader) -> None:
        self._secrets = secrets
        self._post = post
        self._clock = clock

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Post a notice, signed."""
        body = encode_body(make_webhook(notice))
        timestamp = self._clock.now_us() // 1_000_000
        key = read_key(await self._secrets.read(spec.secret, notice.project_id))
        await self._post(
            spec,
            notice,
            body,
            {
                "webhook-id": notice.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": sign(key, notice.id, timestamp, body),
            },
        )
        return ARRIVED


def sign(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def read_key(secret: str) -> bytes:
    """Return the key of a secret: ``whsec_`` and base64, or any other text as it is.

    Raise ``invalid_config`` for what is no base64.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise PilotageError(
            "invalid_config",
            "What the webhook is signed with begins with whsec_ but goes on with no base64.",
        )
    return key
