"""Signatures and digests: Ed25519 signing keys on disk, API-key texts, fingerprints."""

import hashlib
import os
import zlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pilotage.kit.files import write_private

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_SECRET_BITS = 256
_CHECK_LETTERS = 6


class Signer:
    """An Ed25519 private key; ``key_id`` is 16 hex letters of its public key's SHA-256."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._private.sign(message)


def open_signer(path: Path) -> Signer:
    """Load a signing key, making it (0600, with its ``.pub`` in hex beside it) if there is none."""
    if not path.exists():
        raw = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        write_private(path, raw)
    signer = Signer(Ed25519PrivateKey.from_private_bytes(path.read_bytes()))
    public = path.with_suffix(".pub")
    if not public.exists():
        write_private(public, signer.public.hex().encode())
    return signer


def key_id_of(public: bytes) -> str:
    """Name a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether a signature is that key's on that message."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def make_secret(prefix: str) -> str:
    """Make a credential text: prefix, 256 random bits, a checksum that catches typing errors."""
    body = _base32(int.from_bytes(os.urandom(_SECRET_BITS // 8), "big"), 52)
    return f"{prefix}{body}{_checksum(prefix + body)}"


def is_secret(prefix: str, text: str) -> bool:
    """Say whether a text has the form and checksum of a credential made here."""
    if not text.startswith(prefix) or len(text) != len(prefix) + 52 + _CHECK_LETTERS:
        return False
    return _checksum(text[:-_CHECK_LETTERS]) == text[-_CHECK_LETTERS:]


def digest_secret(text: str) -> bytes:
    """Return the SHA-256 under which a credential is stored."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(text: str) -> str:
    return _base32(zlib.crc32(text.encode()), _CHECK_LETTERS + 1)[1:]


def _base32(value: int, length: int) -> str:
    letters = []
    for _ in range(length):
        letters.append(_CROCKFORD[value & 31])
        value >>= 5
    return "".join(reversed(letters))
