"""Replies kept under an idempotency key for a while, encrypted, in the memory of one process.

A crash forgets them, and another process does not know them: a request that is repeated after
either is answered anew.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEPT_S = 600.0
MAX_BYTES = 16 << 20
MAX_REPLY_BYTES = 1 << 20
MAX_REPLIES = 10_000
RUNNING_RETRY_S = 1.0


class KeptReply(msgspec.Struct, frozen=True, array_like=True):
    """An answer as its client got it: a body, or all events of a stream and what ended it.

    Or the refusal of a request that would be refused again: a ``code`` and its texts.
    """

    body: bytes = b""
    terminator: bytes = b""
    is_stream: bool = False
    code: str = ""
    detail: str = ""
    hint: str = ""
    param: str | None = None


class _Kept(NamedTuple):
    fingerprint: bytes
    expires_s: float
    sealed: bytes  # empty: the call was answered, but the answer is not kept


class KeptReplies:
    """Bounded in bytes and entries; what is dropped for its bytes is still known as answered."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_bytes: int = MAX_BYTES,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        max_replies: int = MAX_REPLIES,
    ) -> None:
        self.max_reply_bytes = max_reply_bytes
        self.size = 0
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_replies = max_replies
        self._running: dict[bytes, bytes] = {}
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the oldest first
        self._cipher: AESGCM | None = None
        self._nonces = 0

    def claim(self, key: bytes, fingerprint: bytes) -> KeptReply | None:
        """Return the reply that is kept under a key; None if the caller is to give it.

        Raises ``idempotency_mismatch`` if the key was used for another request, and ``conflict`` if
        the same request is being answered or its answer is not kept.
        """
        self._drop_expired()
        running = self._running.get(key)
        kept = self._kept.get(key)
        if running is None and kept is None:
            self._running[key] = fingerprint
            return None
        if fingerprint != (running or (kept and kept.fingerprint)):
            raise PilotageError(
                "idempotency_mismatch",
                "This idempotency key was used for another request.",
                hint="Use a new key for each request.",
            )
        if running is not None:
            raise PilotageError(
                "conflict",
                "A request with this idempotency key is being answered.",
                retry_after_s=RUNNING_RETRY_S,
            )
        if kept is None or not kept.sealed:
            raise PilotageError(
                "conflict",
                "This request was answered, but the answer is no longer kept.",
                hint="Use a new idempotency key to ask again.",
            )
        return self._open(key, kept.sealed)

    def keep(self, key: bytes, reply: KeptReply | None) -> None:
        """Keep the reply to a claimed key; None is one that is too large to be kept."""
        fingerprint = self._running.pop(key)
        sealed = b"" if reply is None else self._seal(key, reply)
        self._kept[key] = _Kept(fingerprint, self._clock.monotonic_s() + KEPT_S, sealed)
        self.size += len(sealed)
        while len(self._kept) > self._max_replies:
            _, gone = self._kept.popitem(last=False)
            self.size -= len(gone.sealed)
        if self.size > self._max_bytes:
            self._shrink()

    def release(self, key: bytes) -> None:
        """Give a claimed key back: its request may be made again."""
        self._running.pop(key, None)

    def _drop_expired(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].expires_s > now_s:
                return
            self.size -= len(self._kept.pop(key).sealed)

    def _shrink(self) -> None:
        for key, kept in self._kept.items():
            if self.size <= self._max_bytes:
                return
            self.size -= len(kept.sealed)
            self._kept[key] = kept._replace(sealed=b"")

    def _seal(self, key: bytes, reply: KeptReply) -> bytes:
        self._nonces += 1  # never twice under the key of this process
        nonce = self._nonces.to_bytes(12, "big")
        return nonce + self._find_cipher().encrypt(nonce, msgspec.msgpack.encode(reply), key)

    def _open(self, key: bytes, sealed: bytes) -> KeptReply:
        plain = self._find_cipher().decrypt(sealed[:12], sealed[12:], key)
        return msgspec.msgpack.decode(plain, type=KeptReply)

    def _find_cipher(self) -> "AESGCM":
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(AESGCM.generate_key(256))
        return self._cipher
