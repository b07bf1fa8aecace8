"""Post a JSON document to an address that somebody configured, within the egress policy.

The host is resolved once and the connection goes to the address that was judged; redirects are not
followed, no proxy of the environment is used, little of the reply is read.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy
from pilotage.monitoring.notify.backends.certificates import make_context
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.spec_rules import check_address, is_reference

MAX_REPLY = 2_000
_PATIENCE_S = 60.0  # whoever calls has a shorter one
_CREDENTIAL = re.compile(r"https?://\S+")


class HttpPost:
    """Posts to webhooks."""

    def __init__(self, egress: EgressPolicy, clock: Clock, secrets: SecretReader) -> None:
        self._egress = egress
        self._secrets = secrets
        self._clock = clock

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], ca_file: str = ""
    ) -> None:
        """Post a JSON body; ``url`` may be a reference.

        Raise ``unavailable`` for whatever is no reply of success, ``egress_denied``, and
        ``invalid_config`` for a reference that leads nowhere.
        """
        is_secret = is_reference(url)
        address = httpx.URL(check_secret_address(self._secrets.read(url)) if is_secret else url)
        try:
            status, said, retry_after = await self._post(address, body, headers, ca_file)
        except (httpx.HTTPError, OSError) as failed:
            raise PilotageError("unavailable", _explain(address, failed)) from None
        if not 200 <= status < 300:
            raise PilotageError(
                "unavailable",
                f"{address.host} answered {status}{f': {said}' if said else ''}",
                retry_after_s=self._read_retry_after(retry_after),
            )

    async def _post(
        self, url: httpx.URL, body: bytes, headers: Mapping[str, str], ca_file: str
    ) -> tuple[int, str, str]:
        """Return the status, the beginning of the body and Retry-After of the reply."""
        port = url.port or (443 if url.scheme == "https" else 80)
        address = (await self._egress.resolve(url.host, port))[0]
        # Reading the system's authorities takes 30 ms; plain http needs none.
        context = make_context(ca_file) if url.scheme == "https" else False
        said = bytearray()
        async with (
            httpx.AsyncClient(trust_env=False, timeout=_PATIENCE_S, verify=context) as client,
            client.stream(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={
                    **headers,
                    "host": url.netloc.decode(),
                    "content-type": "application/json",
                    "user-agent": "pilotage",
                    "accept-encoding": "identity",
                },
                extensions={"sni_hostname": url.host},
            ) as reply,
        ):
            async for part in reply.aiter_raw():
                said += part
                if len(said) >= MAX_REPLY:
                    break
        text = "".join(
            letter for letter in said[:300].decode(errors="replace") if letter.isprintable()
        )
        return reply.status_code, text, reply.headers.get("retry-after", "")

    def _read_retry_after(self, text: str) -> float | None:
        """Return the seconds that a Retry-After (RFC 9110, 10.2.3) asks for, if it does."""
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, moment.timestamp() - self._clock.now_us() / 1e6)


def check_secret_address(text: str) -> str:
    """Return an address that a reference led to, as it is; raise ``invalid_config``.

    The error shows nothing of it.
    """
    plain = text.partition("?")[0]
    try:
        check_address(plain, carries_secret=True)
    except PilotageError:
        raise PilotageError(
            "invalid_config",
            "The reference of the channel's url leads to no https:// address.",
            hint="Put the whole address there, without quotation marks.",
        ) from None
    return text


def encode_body(body: object) -> bytes:
    """Return the bytes of a JSON document."""
    return msgspec.json.encode(body)


def _read_text(said: bytes) -> str:
    text = said[:300].decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable())


def _explain(url: httpx.URL, failed: Exception) -> str:
    """Say what went wrong; never more of the address than its host."""
    why = _CREDENTIAL.sub("the address", str(failed)) or type(failed).__name__
    return f"{url.host} could not be reached: {why[:300]}"
