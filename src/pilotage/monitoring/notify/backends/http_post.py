"""Post a JSON document to an address that somebody configured, within the egress policy.

The host is resolved once and the connection goes to an address that was judged; redirects are not
followed, no proxy of the environment is used, little of the reply is read. What is said at an
address inside the house is not shown: whoever sets a channel up may not be meant to read it.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import NamedTuple

import httpx
import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy, is_public
from pilotage.monitoring.notify.backends.certificates import make_context
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.ports import RefusedError
from pilotage.monitoring.notify.spec_rules import check_address, is_reference
from pilotage.monitoring.notify.types import ChannelSpec, Notice

MAX_REPLY = 2_000
# Whoever calls limits the whole; a dead one of several addresses is left sooner.
_PATIENCE = httpx.Timeout(60.0, connect=3.0)
_ABOUT_THE_NOTICE = frozenset({400, 413, 422})
_CREDENTIAL = re.compile(r"https?://\S+")


class HttpPost:
    """Posts to webhooks."""

    def __init__(self, egress: EgressPolicy, clock: Clock, secrets: SecretReader) -> None:
        self._egress = egress
        self._secrets = secrets
        self._clock = clock

    async def __call__(
        self,
        spec: ChannelSpec,
        notice: Notice,
        body: bytes,
        headers: Mapping[str, str],
        check_host: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Post a JSON body to a channel's url, which may be a reference.

        ``check_host`` raises for a host that is not to have it. Raise ``unavailable`` for whatever
        is no reply of success (RefusedError if that is about the notice), ``egress_denied``, and
        ``invalid_config`` for a url that leads nowhere.
        """
        url = await self._find_url(spec, notice)
        check_host(url.host)
        # Reading the system's authorities takes 30 ms; plain http needs none.
        context = (
            await make_context(self._secrets, spec.ca_file, notice.project_id)
            if url.scheme == "https"
            else None
        )
        try:
            reply = await self._reach(url, body, headers, context)
        except (httpx.HTTPError, OSError) as failed:
            raise PilotageError("unavailable", _explain(url, failed)) from None
        if not 200 <= reply.status < 300:
            kind = RefusedError if reply.status in _ABOUT_THE_NOTICE else PilotageError
            raise kind(
                "unavailable",
                say_status(url.host, reply),
                retry_after_s=self._read_retry_after(reply.retry_after),
            )

    async def _find_url(self, spec: ChannelSpec, notice: Notice) -> httpx.URL:
        text = spec.url
        if is_reference(text):
            text = check_secret_address(await self._secrets.read(text, notice.project_id))
        return httpx.URL(text)

    async def _reach(
        self,
        url: httpx.URL,
        body: bytes,
        headers: Mapping[str, str],
        context: ssl.SSLContext | None,
    ) -> "Reply":
        """Post to the first address of a host that answers."""
        port = url.port or (443 if url.scheme == "https" else 80)
        *others, last = await self._egress.resolve(url.host, port)
        for address in others:
            try:
                return await _post(url, address, body, headers, context)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        try:
            return await _post(url, last, body, headers, context)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._egress.forget(url.host, port)
            raise

    def _read_retry_after(self, text: str) -> float | None:
        """Return the seconds that a Retry-After (RFC 9110, 10.2.3) asks for, if it does."""
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        try:
            moment_s = parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return None
        return max(0.0, moment_s - self._clock.now_us() / 1e6)


class Reply(NamedTuple):
    """What an address answered."""

    status: int
    said: str  # the beginning of the body, where it may be shown
    retry_after: str


async def _post(
    url: httpx.URL,
    address: str,
    body: bytes,
    headers: Mapping[str, str],
    context: ssl.SSLContext | None,
) -> Reply:
    said = bytearray()
    async with (
        httpx.AsyncClient(trust_env=False, timeout=_PATIENCE, verify=context or False) as client,
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
    text = said[:300].decode(errors="replace") if is_public(ip_address(address)) else ""
    return Reply(
        status=reply.status_code,
        said="".join(letter for letter in text if letter.isprintable()),
        retry_after=reply.headers.get("retry-after", ""),
    )


def say_status(host: str, reply: Reply) -> str:
    """Say what a host answered."""
    return f"{host} answered {reply.status}{f': {reply.said}' if reply.said else ''}"


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


def _explain(url: httpx.URL, failed: Exception) -> str:
    """Say what went wrong; never more of the address than its host."""
    why = _CREDENTIAL.sub("the address", str(failed)) or type(failed).__name__
    return f"{url.host} could not be reached: {why[:300]}"
