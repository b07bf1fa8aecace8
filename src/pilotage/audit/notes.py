"""Signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519.

A checkpoint is a text of three lines (the log's name, its size, its root in base64), an empty line,
and one line for each signature: ``- NAME BASE64`` with an em dash, of four bytes of key id and the
signature of the text.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = b"\x01"  # the algorithm's byte in key ids
KEY_ID_BYTES = 4
_DASH = "\u2014"


class Checkpoint(NamedTuple):
    """What a log was: its name, its number of entries, its root."""

    name: str
    size: int
    root: bytes

    def to_text(self) -> str:
        """Return the text that is signed."""
        return f"{self.name}\n{self.size}\n{_encode(self.root)}\n"


def sign_note(text: str, name: str, public_key: bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a text with one signature under it."""
    signature = name_key(name, public_key) + sign(text.encode())
    return f"{text}\n{_DASH} {name} {_encode(signature)}\n"


def open_note(note: str, name: str, public_key: bytes) -> str:
    """Return the text of a note that a key has signed; raise ValueError for any other."""
    text, empty_line, signatures = note.rpartition("\n\n")
    if not empty_line:
        raise ValueError("there is no signature")
    text += "\n"
    key_id = name_key(name, public_key)
    for line in signatures.splitlines():
        signature = _read_signature(line, name)
        if signature[:KEY_ID_BYTES] == key_id:
            if _is_signed(public_key, text.encode(), signature[KEY_ID_BYTES:]):
                return text
            raise ValueError(f"the signature of {name} does not match")
    raise ValueError(f"there is no signature of {name} with this key")


def read_checkpoint(text: str) -> Checkpoint:
    """Return what the text of a checkpoint says; raise ValueError if it is none."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[1].isdecimal() or lines[1] != str(int(lines[1])):
        raise ValueError("this is no checkpoint")
    root = _decode(lines[2])
    if len(root) != hashlib.sha256().digest_size:
        raise ValueError("the root is no SHA-256")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, name: str, public_key: bytes) -> Checkpoint:
    """Return a checkpoint of a log that a key has signed; raise ValueError for any other."""
    found = read_checkpoint(open_note(note, name, public_key))
    if found.name != name:
        raise ValueError(f"this is a checkpoint of {found.name}")
    return found


def name_key(name: str, public_key: bytes) -> bytes:
    """Return the four bytes by which a signature names its key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:KEY_ID_BYTES]


def _read_signature(line: str, name: str) -> bytes:
    words = line.split(" ")
    if len(words) != 3 or words[0] != _DASH:
        raise ValueError("a line below the note is no signature")
    return _decode(words[2]) if words[1] == name else b""


def _is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("there is something that is not base64") from None
