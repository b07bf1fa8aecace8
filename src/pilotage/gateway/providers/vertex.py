"""The tokens of a Vertex AI upstream, fetched the way the upstream itself is reached."""

import ssl
from collections.abc import Callable
from pathlib import Path

from pilotage.core.snapshot import UpstreamEntry
from pilotage.gateway.transport.dial import Proxy
from pilotage.kit.clock import Clock
from pilotage.kit.gcp.credentials import GoogleTokens
from pilotage.kit.gcp.tokens import LIMIT_S, TokenProvider
from pilotage.kit.gcp.transport import TokenProxy, TokenTransport


def open_tokens(
    entry: UpstreamEntry, find_proxy: Callable[[], Proxy | None], clock: Clock
) -> TokenProvider:
    """Return the tokens of an upstream whose secret is a credentials file, or "" for the default.

    Raises ValueError for any other secret. Token services are reached through the upstream's
    proxy; its ``ca_file`` is trusted there besides the system's certificates, since a proxy that
    opens TLS shows one of its own.
    """
    kind, _, path = entry.secret.partition(":")
    if entry.secret and kind != "file":
        raise ValueError("its secret must be file:PATH of a credentials file, or none")

    def find_token_proxy() -> TokenProxy | None:
        proxy = find_proxy()
        return proxy and TokenProxy(proxy.host, proxy.port, proxy.authorization.decode())

    def find_tls() -> ssl.SSLContext:
        context = ssl.create_default_context()
        if entry.ca_file:
            context.load_verify_locations(Path(entry.ca_file).expanduser())
        return context

    transport = TokenTransport(limit_s=LIMIT_S, find_proxy=find_token_proxy, find_tls=find_tls)
    name = entry.secret or "the default credentials"
    return TokenProvider(GoogleTokens(path, transport), name, clock)
