"""Providers' APIs as targets: where they are, how they are reached, what they are shown of us.

An upstream that cannot be used as it is written fails the calls that need it, and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry, UpstreamEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.credentials import (
    Credential,
    NoSecret,
    Secret,
    is_reference,
    read_secret,
)
from pilotage.gateway.providers.errors import translate_error
from pilotage.gateway.transport.dial import GuardedDial, Proxy, parse_proxy
from pilotage.gateway.transport.tls import TlsContexts
from pilotage.gateway.transport.upstream import Limits, Pool
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy

ANTHROPIC_VERSION = "2023-06-01"

OpenTokens = Callable[[UpstreamEntry], Credential]
"""Makes the tokens of a Vertex upstream."""


class Address(NamedTuple):
    """A base URL in parts; ``authority`` is host and port as a request says them."""

    host: str
    port: int
    is_tls: bool
    authority: str
    path: str


class Upstream:
    """One provider's API as the chain uses it."""

    __slots__ = (
        "_clock", "_credential", "_fixed", "_heads", "_key", "_key_line", "_start", "adapters",
        "busy", "entry", "id", "is_retired", "pool", "wire",
    )  # fmt: skip

    def __init__(
        self,
        entry: UpstreamEntry,
        address: Address,
        pool: Pool,
        credential: Credential,
        clock: Clock,
    ) -> None:
        self.entry = entry
        self.id = entry.id
        self.wire = name_wire(entry.provider)
        self.pool = pool
        self.adapters: tuple[str, ...] = ()
        self.busy = 0
        self.is_retired = False
        self._clock = clock
        self._credential = credential
        self._start = f"POST {address.path}".encode()
        self._fixed = (
            f" HTTP/1.1\r\nhost: {address.authority}\r\ncontent-type: application/json\r\n"
            "accept-encoding: identity\r\nuser-agent: pilotage\r\n"
        ).encode()
        self._key_line = "authorization: Bearer {}\r\n"
        if entry.provider == "anthropic":
            self._fixed += f"anthropic-version: {ANTHROPIC_VERSION}\r\n".encode()
            self._key_line = "x-api-key: {}\r\n"
        self._key = ""
        self._heads: dict[bytes, bytes] = {}

    async def make_head(self, path: bytes, call: Call) -> bytes:
        """Return the head of a request; raise ``upstream_auth`` without a credential."""
        return self._make_head(path, call, await self._credential.get())

    async def renew_head(self, path: bytes, call: Call) -> bytes | None:
        """Return a head with another credential, None if there is no other."""
        key = await self._credential.renew()
        return None if key is None else self._make_head(path, call, key)

    def translate_error(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> PilotageError:
        """Return our error for the provider's."""
        return translate_error(status, headers, body, self._clock.now_us())

    def enter(self) -> None:
        """Count a call in."""
        self.busy += 1

    def leave(self) -> None:
        """Count a call out; the last one of a retired upstream closes its connections."""
        self.busy -= 1
        if self.is_retired and self.busy == 0:
            self.close()

    def retire(self) -> None:
        """Take no new calls; close when the running ones have ended."""
        self.is_retired = True
        if self.busy == 0:
            self.close()

    def close(self) -> None:
        """Close every connection, and end what fetches credentials."""
        self.pool.close()
        self._credential.close()

    def _make_head(self, path: bytes, call: Call, key: str) -> bytes:
        if key is not self._key:
            self._key = key
            self._heads.clear()
        head = self._heads.get(path)
        if head is None:
            line = self._key_line.format(key).encode() if key else b""
            head = self._heads[path] = self._start + path + self._fixed + line
        if call.trace_parent:
            return b"%btraceparent: %b\r\n" % (head, call.trace_parent.encode())
        return head


class Upstreams:
    """All upstreams of the Snapshot, by id."""

    def __init__(
        self,
        limits: Limits,
        *,
        egress: EgressPolicy,
        clock: Clock,
        open_tokens: OpenTokens | None = None,
    ) -> None:
        self._limits = limits
        self._egress = egress
        self._clock = clock
        self._tls = TlsContexts()
        self._open_tokens = open_tokens or self._open_google
        self._by_id: dict[str, Upstream] = {}
        self._broken: dict[str, str] = {}
        self._applied: Sequence[UpstreamEntry] = ()

    def apply(self, entries: Sequence[UpstreamEntry]) -> None:
        """Add what is new and drop what is gone; calls that run on a dropped one go on."""
        if entries is self._applied:
            return
        self._applied = entries
        known, kept, broken = self._by_id, {}, {}
        for entry in entries:
            found = known.get(entry.id)
            if found is not None and found.entry == entry:
                kept[entry.id] = known.pop(entry.id)
                continue
            try:
                kept[entry.id] = self._open(entry)
            except ValueError as wrong:
                broken[entry.id] = f"The upstream {entry.name!r} cannot be used: {wrong}."
        self._by_id, self._broken = kept, broken
        for gone in known.values():
            gone.retire()

    def pick(self, arm: ArmEntry) -> Upstream:
        """Return an arm's upstream; raise ``upstream_unreachable`` if it cannot be used."""
        found = self._by_id.get(arm.upstream_id)
        if found is None:
            why = self._broken.get(arm.upstream_id, "The upstream of this model is not there.")
            raise PilotageError("upstream_unreachable", why)
        return found

    def list_pools(self) -> list[Pool]:
        """Return the connections of every upstream."""
        return [upstream.pool for upstream in self._by_id.values()]

    def close(self) -> None:
        """Close every connection."""
        for upstream in self._by_id.values():
            upstream.close()
        self._by_id = {}
        self._applied = ()

    def _open(self, entry: UpstreamEntry) -> Upstream:
        address = parse_base_url(entry.base_url)
        if entry.provider not in ("openai", "anthropic", "vertex"):
            raise ValueError(f"there is no provider {entry.provider!r}")
        if entry.proxy and not is_reference(entry.proxy):
            parse_proxy(entry.proxy)
        if address.is_tls and not entry.ca_file:
            self._tls.get("")  # it takes long: now rather than within a call
        dial = GuardedDial(
            address.host,
            address.port,
            self._egress,
            lambda: self._tls.get(entry.ca_file) if address.is_tls else None,
            lambda: find_proxy(entry.proxy),
        )
        limits = replace(self._limits, max_connections=entry.max_connections)
        return Upstream(
            entry, address, Pool(dial, limits), self._open_credential(entry), self._clock
        )

    def _open_credential(self, entry: UpstreamEntry) -> Credential:
        if entry.provider == "vertex":
            return self._open_tokens(entry)
        return Secret(entry.secret, self._clock) if entry.secret else NoSecret()

    def _open_google(self, entry: UpstreamEntry) -> Credential:
        from pilotage.gateway.providers.vertex import open_tokens

        return open_tokens(entry, lambda: find_proxy(entry.proxy), self._clock)


def name_wire(provider: str) -> str:
    """Return the wire that a provider's upstreams speak."""
    return "anthropic" if provider == "anthropic" else "openai"


def parse_base_url(text: str) -> Address:
    """Read a base URL; raise ValueError, which says what is wrong with it."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not text.isascii() or not text.isprintable() or " " in text:
        host = None
    if not host or url.scheme not in ("http", "https") or url.query or url.fragment:
        raise ValueError("its base URL is no https://HOST/PATH")
    if "@" in url.netloc:
        raise ValueError("its base URL holds a credential")
    is_tls = url.scheme == "https"
    return Address(
        host, port or (443 if is_tls else 80), is_tls, url.netloc.lower(), url.path.rstrip("/")
    )


def find_proxy(text: str) -> Proxy | None:
    """Return the proxy that an upstream names, or that the secret it refers to names.

    Raises ``upstream_auth`` for a reference to nothing.
    """
    if not text:
        return None
    if not is_reference(text):
        return parse_proxy(text)
    try:
        return parse_proxy(read_secret(text))
    except ValueError as wrong:
        raise PilotageError("upstream_auth", f"The secret {text} is wrong: {wrong}.") from None
