"""Fetch a small JSON document from an address that somebody configured, within the egress policy.

The host is resolved once and the connection goes to the address that was judged; redirects are not
followed, no proxy of the environment is used, and time and size are bounded.
"""

import asyncio
from typing import Any

import httpx
import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.egress import EgressPolicy

FETCH_LIMIT_S = 5.0
MAX_BYTES = 1 << 20


class JsonFetch:
    """Gets documents over https; over http from this machine only."""

    def __init__(self, egress: EgressPolicy, *, limit_s: float = FETCH_LIMIT_S) -> None:
        self._egress = egress
        self._limit_s = limit_s

    async def __call__(self, url: str) -> Any:  # noqa: ANN401 - JSON of any kind
        """Return a document; raise ``egress_denied``, or ``unavailable`` for what is no reply."""
        try:
            async with asyncio.timeout(self._limit_s):
                return msgspec.json.decode(await self._read(httpx.URL(url)))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, msgspec.DecodeError) as failed:
            why = str(failed) or type(failed).__name__
            raise PilotageError("unavailable", f"{url} cannot be read: {why}.") from failed

    async def _read(self, url: httpx.URL) -> bytes:
        port = url.port or (443 if url.scheme == "https" else 80)
        address = (await self._egress.resolve(url.host, port))[0]
        body = bytearray()
        async with (
            httpx.AsyncClient(trust_env=False, timeout=self._limit_s) as client,
            client.stream(
                "GET",
                url.copy_with(host=address),
                headers={"host": url.netloc.decode(), "accept": "application/json"},
                extensions={"sni_hostname": url.host},
            ) as reply,
        ):
            if reply.status_code != httpx.codes.OK:
                raise httpx.HTTPError(f"status {reply.status_code}")
            async for part in reply.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise httpx.HTTPError(f"more than {MAX_BYTES} bytes")
        return bytes(body)
