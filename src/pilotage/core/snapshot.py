"""The Snapshot: everything a gateway needs to know, immutable, numbered and signed.

A Snapshot is a :class:`Manifest` (JSON, signed) that names content-addressed sections. Small
sections are msgpack; keys are tables of fixed-size records sorted by digest, searched in place
(a mapped file), so that 100,000 keys cost a call microseconds and a switch nothing.
"""

import hashlib
from bisect import bisect_left
from struct import Struct as Layout
from typing import NamedTuple

import msgspec

from pilotage.core.usage import Rates

SNAPSHOT_VERSION = 1
CURRENT = "current"  # in a folder of Snapshots: the signed manifest
SECTIONS = "sections"  # in a folder of Snapshots: the sections, named by their hashes
FULL_WEIGHT = 10_000  # weights are basis points of an alias's traffic


class SectionRef(msgspec.Struct, frozen=True):
    """Where a section's bytes are found: by the hex SHA-256 of them, and how many there are."""

    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The signed head of a Snapshot.

    ``n`` counts Snapshots; ``parent`` is the hex SHA-256 of the manifest before; ``covers`` is the
    last revision of the control plane that is in it; ``oldest_gateway`` is the lowest
    :data:`SNAPSHOT_VERSION` that may read it.
    """

    v: int = SNAPSHOT_VERSION
    n: int
    parent: str
    created_at_us: int
    expires_at_us: int
    oldest_gateway: int
    covers: int
    sections: dict[str, SectionRef]


class SignedManifest(msgspec.Struct, frozen=True):
    """A manifest as it travels: its exact JSON text, the key's id and the signature in hex."""

    manifest: str
    key_id: str
    signature: str


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A paying tenant and the project its calls belong to."""

    id: str
    name: str
    project_id: str


class ArmEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One weighted target of an alias: a deployment of a model version, and its price."""

    id: str
    weight: int
    version_id: str
    model: str
    context_tokens: int
    rates: Rates


class AliasEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model name that clients of a project may send."""

    project_id: str
    name: str
    created_at_us: int
    salt: str
    max_output_tokens: int
    arms: list[ArmEntry]


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """The section ``directory``: tenants and aliases."""

    tenants: list[TenantEntry]
    aliases: list[AliasEntry]


_RECORD = Layout("<32s16s16sq")
_DIGEST_SIZE = 32


class KeyRecord(NamedTuple):
    """What a gateway knows of an API key; ``expires_at_us`` 0 means never."""

    digest: bytes
    key_uuid: bytes
    tenant_uuid: bytes
    expires_at_us: int


class KeyTable:
    """Key records sorted by digest, over any buffer (bytes or a mapped file)."""

    def __init__(self, buffer: bytes | memoryview) -> None:
        if len(buffer) % _RECORD.size:
            raise ValueError(f"a key table of {len(buffer)} bytes is cut")
        self._buffer = buffer
        self._count = len(buffer) // _RECORD.size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        start = index * _RECORD.size
        return bytes(self._buffer[start : start + _DIGEST_SIZE])

    def find(self, digest: bytes) -> KeyRecord | None:
        """Return the record of a digest, or None."""
        index = bisect_left(self, digest)
        if index == self._count:
            return None
        record = KeyRecord(*_RECORD.unpack_from(self._buffer, index * _RECORD.size))
        return record if record.digest == digest else None


def pack_keys(records: list[KeyRecord]) -> bytes:
    """Return the bytes of a key table."""
    return b"".join([_RECORD.pack(*record) for record in sorted(records)])


def pack_digests(digests: list[bytes]) -> bytes:
    """Return the section of revoked keys: their digests, sorted, end to end."""
    return b"".join(sorted(digests))


def unpack_digests(section: bytes) -> frozenset[bytes]:
    """Read the section of revoked keys."""
    if len(section) % _DIGEST_SIZE:
        raise ValueError(f"a digest list of {len(section)} bytes is cut")
    return frozenset(section[i : i + _DIGEST_SIZE] for i in range(0, len(section), _DIGEST_SIZE))


def choose_arm(alias: AliasEntry, unit: str) -> ArmEntry | None:
    """Assign a unit to an arm: sha256(salt | unit) as a fraction against the cumulative weights.

    The same unit always gets the same arm while salt and weights stand; None if no arm has weight.
    """
    point = int.from_bytes(hashlib.sha256(f"{alias.salt}|{unit}".encode()).digest()[:8], "big")
    threshold = 0
    for arm in alias.arms:
        threshold += arm.weight
        if point * FULL_WEIGHT < threshold << 64:
            return arm
    return None


_JSON = msgspec.json.Encoder(order="sorted")
_PACK = msgspec.msgpack.Encoder()


def encode_manifest(manifest: Manifest) -> str:
    """Return the exact text that is signed."""
    return _JSON.encode(manifest).decode()


def decode_manifest(text: str) -> Manifest:
    """Read a manifest; raise ValueError for anything else, or if this program is too old for it."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not a Snapshot manifest: {broken}") from broken
    if manifest.oldest_gateway > SNAPSHOT_VERSION:
        raise ValueError(
            f"Snapshot {manifest.n} needs a gateway of version {manifest.oldest_gateway}"
        )
    return manifest


def encode_directory(directory: Directory) -> bytes:
    """Return the bytes of the section ``directory``."""
    return _PACK.encode(directory)


def decode_directory(section: bytes) -> Directory:
    """Read the section ``directory``; raise ValueError if it is none."""
    try:
        return msgspec.msgpack.decode(section, type=Directory)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not a directory section: {broken}") from broken
