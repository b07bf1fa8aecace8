"""The public keys of issuers: found by discovery, kept, and asked for again when need be.

One request at a time asks an issuer; while it does, the others get the keys there are, or wait for
its answer. An unknown key id forces one look, not more often than every half minute. An issuer that
did not answer is left alone for as long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pilotage.core.errors import PilotageError
from pilotage.identity.token_rules import check_url, refuse_token
from pilotage.identity.types import TokenIssuer
from pilotage.kit.clock import Clock

FRESH_S = 300.0  # a key that its issuer withdrew is refused after so long
STALE_S = 86_400.0  # keys of an issuer that is away are believed so long
FORCED_EVERY_S = 30.0
ALONE_S = 30.0  # so long nobody asks an issuer that did not answer
LIMIT_S = 5.0  # for its keys, waiting for others who ask included
LEAST_RSA_BITS = 2048
MOST_KEYS = 100
Fetch = Callable[[str], Awaitable[Any]]


class _Kept:
    __slots__ = ("asking", "failed_s", "failure", "forced_s", "keys", "read_s")

    def __init__(self) -> None:
        self.keys: dict[str, jwt.PyJWK] = {}
        self.read_s = float("-inf")
        self.forced_s = float("-inf")
        self.failed_s = float("-inf")
        self.failure = ""
        self.asking = asyncio.Lock()


class SigningKeys:
    """The keys of every issuer that tokens came from; belongs to one event loop."""

    def __init__(self, clock: Clock, fetch: Fetch, *, limit_s: float = LIMIT_S) -> None:
        self._clock = clock
        self._fetch = fetch
        self._limit_s = limit_s
        self._kept: dict[tuple[str, int], _Kept] = {}

    async def find(self, issuer: TokenIssuer, kid: str) -> jwt.PyJWK:
        """Return a key of an issuer.

        Raises ``invalid_credential`` for one that it does not have, ``unavailable`` if nobody can
        say.
        """
        kept = self._kept.setdefault((issuer.id, issuer.rev), _Kept())
        age_s = self._clock.monotonic_s() - kept.read_s
        if age_s > STALE_S:
            await self._read(issuer, kept)
        elif age_s > FRESH_S and not kept.asking.locked():
            await self._try(issuer, kept)
        if kid not in kept.keys and self._clock.monotonic_s() - kept.forced_s > FORCED_EVERY_S:
            kept.forced_s = self._clock.monotonic_s()
            await self._try(issuer, kept, is_forced=True)
        key = kept.keys.get(kid)
        if key is None:
            raise refuse_token("kid", "its issuer has no such key")
        return key

    async def _try(self, issuer: TokenIssuer, kept: _Kept, *, is_forced: bool = False) -> None:
        """Ask anew, and go on with the keys there are if the issuer is away."""
        try:
            await self._read(issuer, kept, is_forced=is_forced)
        except PilotageError:
            return

    async def _read(self, issuer: TokenIssuer, kept: _Kept, *, is_forced: bool = False) -> None:
        asked_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._limit_s), kept.asking:
                if kept.read_s >= asked_s and (kept.keys or not is_forced):
                    return  # somebody else has asked meanwhile
                if self._clock.monotonic_s() - kept.failed_s < ALONE_S:
                    raise PilotageError("unavailable", kept.failure)
                await self._ask(issuer, kept)
        except TimeoutError:
            raise self._note(kept, f"{issuer.url} takes more than {self._limit_s:g} s.") from None

    async def _ask(self, issuer: TokenIssuer, kept: _Kept) -> None:
        try:
            found = await self._fetch(f"{issuer.url.rstrip('/')}/.well-known/openid-configuration")
            if not isinstance(found, dict) or found.get("issuer") != issuer.url:
                raise PilotageError("unavailable", f"{issuer.url} calls itself something else.")
            document = await self._fetch(check_url(str(found.get("jwks_uri")), "jwks_uri"))
            kept.keys = read_keys(document)
        except PilotageError as failed:
            self._note(kept, failed.detail)
            raise
        kept.read_s = self._clock.monotonic_s()

    def _note(self, kept: _Kept, failure: str) -> PilotageError:
        """Remember that an issuer did not answer, and return the error that says so."""
        kept.failed_s, kept.failure = self._clock.monotonic_s(), failure
        return PilotageError("unavailable", failure)


def read_keys(document: object) -> dict[str, jwt.PyJWK]:
    """Return the keys of a JWKS document that sign, by id; whatever else is in it is left out."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise PilotageError("unavailable", "The issuer's keys cannot be read.")
    found: dict[str, jwt.PyJWK] = {}
    for item in listed[:MOST_KEYS]:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig" or "kid" not in item:
            continue
        if item.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = jwt.PyJWK(item)
        except (jwt.PyJWTError, ValueError, TypeError, msgspec.MsgspecError):
            continue
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < LEAST_RSA_BITS:
            continue
        found[str(item["kid"])] = key
    return found
