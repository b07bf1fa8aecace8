"""What a provider is shown of who we are: a secret by reference, or nothing.

Google's tokens (:class:`pilotage.kit.gcp.tokens.TokenProvider`) are a third kind.
"""

import re
from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.config import resolve_secret

REREAD_S = 5.0  # how often a reference is followed at most
RECENT_S = 60.0  # a secret that was replaced so short a time ago may be the remedy of a 401

_READ_ONCE = "Start the gateway again with it set, or name a file instead: file:/PATH."
_REFERENCE = re.compile(r"(?:env|file):")
_SENDABLE = re.compile(r"[\x21-\x7e]+")


class Credential(Protocol):
    """Something that a request head carries."""

    async def get(self) -> str:
        """Return it; the same object while it is the same. Raises ``upstream_auth``."""
        ...

    async def renew(self) -> str | None:
        """Return another one after this one was refused, None if there is no other."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class NoSecret:
    """For providers that ask for none."""

    async def get(self) -> str:
        """Return an empty text."""
        return ""

    async def renew(self) -> str | None:
        """Return None."""
        return None

    def close(self) -> None:
        """Do nothing."""


class Secret:
    """A secret that a reference names; who replaces it is followed within seconds."""

    def __init__(self, reference: str, clock: Clock) -> None:
        self._reference = reference
        self._clock = clock
        self._value = ""
        self._problem = ""
        self._looked_s = float("-inf")
        self._changed_s = float("-inf")

    async def get(self) -> str:
        """Return the secret; raise ``upstream_auth``, naming the reference, if there is none."""
        if self._clock.monotonic_s() - self._looked_s >= REREAD_S:
            self._look()
        if self._problem:
            raise PilotageError("upstream_auth", self._problem)
        return self._value

    async def renew(self) -> str | None:
        """Follow the reference now."""
        self._look()
        now_s = self._clock.monotonic_s()
        if self._problem or now_s - self._changed_s > RECENT_S:
            return None
        return self._value

    def close(self) -> None:
        """Do nothing."""

    def _look(self) -> None:
        is_first = not self._value
        self._looked_s = self._clock.monotonic_s()
        try:
            value = read_secret(self._reference)
        except PilotageError as missing:
            self._problem = str(missing)
            return
        self._problem = ""
        if value != self._value:
            self._value = value
            if not is_first:
                self._changed_s = self._looked_s


def read_secret(reference: str) -> str:
    """Return the secret that a reference names; raise ``upstream_auth``.

    The error names the reference, unless that looks like a secret itself.
    """
    try:
        value = resolve_secret(reference)
    except PilotageError as missing:
        hint = _READ_ONCE if reference.startswith("env:") else ""
        raise PilotageError("upstream_auth", missing.detail, hint=hint) from None
    if not _SENDABLE.fullmatch(value):
        raise PilotageError(
            "upstream_auth", f"The secret {reference} has letters that no header can carry."
        )
    return value


def is_reference(text: str) -> bool:
    """Say whether a text names a secret."""
    return _REFERENCE.match(text) is not None
