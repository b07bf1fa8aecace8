r"""Sealed bytes: AES-256-GCM with a written format, fingerprints, letters, boxes with a passphrase.

Sealed bytes are ``0x01``, the number of the key (4 bytes, big-endian), a random nonce (12 bytes),
and the ciphertext with its tag (16 bytes). The associated data are the owner, the purpose and the
number of the key, each behind its length: what was sealed for one tenant, purpose or key opens for
no other. Nonces are random, so a key may seal 2^32 times (NIST SP 800-38D, section 8.3).

Whoever has no key can seal for an owner with a *letterbox*, which is the number of one of the
owner's keys and an X25519 public key (RFC 7748) that HKDF-SHA256 derives from that key, as hex. A
letter is a fresh public key (32 bytes) and bytes sealed as above, with a key that HKDF-SHA256
derives from what both keys agree on; both public keys are part of what it is derived for.

A box is ``PLTBOX1\n``, three bytes of scrypt's log2(N), r and p, a salt (16 bytes), a nonce (12
bytes), and the ciphertext with its tag; the associated data are all bytes before the nonce.
"""

import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

KEY_BYTES = 32
FINGERPRINT_BYTES = 16
_FORMAT = 1
_HEAD = struct.Struct(">BI")
_NONCE_BYTES = 12
_TAG_BYTES = 16

_BOX = b"PLTBOX1\n"
_SALT_BYTES = 16
_COST = (15, 8, 1)  # scrypt's log2(N), r, p: 32 MiB and some 0.1 s for each guess
_DEAREST = (20, 16, 4)  # what a box may ask of who opens it: 2 GiB


def make_key() -> bytes:
    """Return a random key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, number: int, owner: str, purpose: str, plain: bytes) -> bytes:
    """Encrypt bytes with a numbered key for an owner and a purpose."""
    nonce = os.urandom(_NONCE_BYTES)
    bound = _bind(owner, purpose, number)
    return _HEAD.pack(_FORMAT, number) + nonce + AESGCM(key).encrypt(nonce, plain, bound)


def read_key_number(sealed: bytes) -> int:
    """Return the number of the key that sealed bytes; raise ValueError if they are none."""
    if len(sealed) < _HEAD.size + _NONCE_BYTES + _TAG_BYTES:
        raise ValueError("these are too few bytes to be sealed ones")
    form, number = _HEAD.unpack_from(sealed)
    if form != _FORMAT:
        raise ValueError(f"sealed bytes of format {form} are not known here")
    return int(number)


def unseal(key: bytes, owner: str, purpose: str, sealed: bytes) -> bytes:
    """Decrypt sealed bytes; raise ValueError unless key, owner, purpose and every bit are right."""
    number = read_key_number(sealed)
    nonce = sealed[_HEAD.size : _HEAD.size + _NONCE_BYTES]
    bound = _bind(owner, purpose, number)
    try:
        return AESGCM(key).decrypt(nonce, sealed[_HEAD.size + _NONCE_BYTES :], bound)
    except InvalidTag:
        raise ValueError(
            "the sealed bytes do not open: another key, or they were changed"
        ) from None


def fingerprint(key: bytes, owner: str, purpose: str, text: str) -> str:
    """Return 32 hex letters that stand for a text, for an owner and a purpose alone.

    HMAC-SHA256, cut to 128 bits, under a key that HKDF-SHA256 derives (RFC 5869). Without the key
    nobody can try out which text it was.
    """
    derived = HKDF(
        hashes.SHA256(), KEY_BYTES, None, b"pilotage fingerprint" + _bind(owner, purpose)
    )
    mac = hmac.digest(derived.derive(key), text.encode("utf-8", "surrogatepass"), "sha256")
    return mac[:FINGERPRINT_BYTES].hex()


def make_letterbox(key: bytes, number: int, owner: str, purpose: str) -> str:
    """Return what others can seal with for an owner and a purpose, and cannot open."""
    public = _derive_pair(key, number, owner, purpose).public_key()
    return f"{number}.{public.public_bytes_raw().hex()}"


def post(letterbox: str, owner: str, purpose: str, plain: bytes) -> bytes:
    """Encrypt bytes for an owner and a purpose; raise ValueError for what is no letterbox."""
    number, _, text = letterbox.partition(".")
    public = X25519PublicKey.from_public_bytes(bytes.fromhex(text))
    fresh = X25519PrivateKey.generate()
    mine = fresh.public_key().public_bytes_raw()
    key = _agree(fresh, public, mine + public.public_bytes_raw())
    return mine + seal(key, int(number), owner, purpose, plain)


def read_letter_number(letter: bytes) -> int:
    """Return the number of the owner's key that opens a letter; raise ValueError if it is none."""
    return read_key_number(letter[KEY_BYTES:])


def open_letter(key: bytes, owner: str, box_purpose: str, purpose: str, letter: bytes) -> bytes:
    """Decrypt a letter; raise ValueError unless key, owner, purposes and every bit are right.

    ``box_purpose`` is what the letterbox was made for.
    """
    theirs = letter[:KEY_BYTES]
    private = _derive_pair(key, read_letter_number(letter), owner, box_purpose)
    both = theirs + private.public_key().public_bytes_raw()
    agreed = _agree(private, X25519PublicKey.from_public_bytes(theirs), both)
    return unseal(agreed, owner, purpose, letter[KEY_BYTES:])


def lock_box(passphrase: str, plain: bytes) -> bytes:
    """Encrypt bytes with a passphrase (scrypt, RFC 7914; AES-256-GCM). Takes about 0.1 s."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    head = _BOX + bytes(_COST) + salt
    return head + nonce + AESGCM(_stretch(passphrase, salt, _COST)).encrypt(nonce, plain, head)


def open_box(passphrase: str, box: bytes) -> bytes:
    """Decrypt a box; raise ValueError for another passphrase or a box that was changed."""
    size = len(_BOX) + len(_COST) + _SALT_BYTES
    head, nonce, sealed = box[:size], box[size : size + _NONCE_BYTES], box[size + _NONCE_BYTES :]
    cost = (*head[len(_BOX) : len(_BOX) + len(_COST)],)
    if not head.startswith(_BOX) or len(sealed) < _TAG_BYTES:
        raise ValueError("this is no box")
    if any(asked < 1 or asked > most for asked, most in zip(cost, _DEAREST, strict=True)):
        raise ValueError("the box asks for more work than it may")
    try:
        key = _stretch(passphrase, head[-_SALT_BYTES:], cost)
        return AESGCM(key).decrypt(nonce, sealed, head)
    except InvalidTag:
        raise ValueError("the box does not open: another passphrase, or it was changed") from None


def _derive_pair(key: bytes, number: int, owner: str, purpose: str) -> X25519PrivateKey:
    info = b"pilotage letterbox" + _bind(owner, purpose, number)
    derived = HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(key)
    return X25519PrivateKey.from_private_bytes(derived)


def _agree(private: X25519PrivateKey, public: X25519PublicKey, both: bytes) -> bytes:
    info = b"pilotage letter" + both
    return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(private.exchange(public))


def _stretch(passphrase: str, salt: bytes, cost: tuple[int, ...]) -> bytes:
    exponent, block, parallel = cost
    kdf = Scrypt(salt=salt, length=KEY_BYTES, n=1 << exponent, r=block, p=parallel)
    return kdf.derive(passphrase.encode())


def _bind(owner: str, purpose: str, number: int = 0) -> bytes:
    parts = [owner.encode(), purpose.encode(), number.to_bytes(4, "big")]
    return b"pilotage" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
