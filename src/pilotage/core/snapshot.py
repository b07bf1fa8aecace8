"""The Snapshot: everything a gateway needs to know, immutable, numbered and signed.

A Snapshot is a :class:`Manifest` (JSON, signed) that names content-addressed sections. Small
sections are msgpack; keys are tables of fixed-size records sorted by digest, searched in place
(a mapped file), so that 100,000 keys cost a call microseconds and a switch nothing.
"""

from bisect import bisect_left
from struct import Struct as Layout
from typing import NamedTuple

import msgspec

from pilotage.core.dealing import draw_point
from pilotage.core.usage import Rates

SNAPSHOT_VERSION = 4
BEFORE_ROLLOUTS = 3  # the version that knew neither the steps of rollouts nor adapters
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
    """A paying tenant, the project its calls belong to, and what holds for all its calls.

    ``regions`` are those where its calls may be answered (none given: anywhere); ``features`` the
    values it may send as ``x-pilotage-feature``; ``shows`` says whether replies carry their cost,
    arm and model version; ``log_share`` is the part of its calls, in basis points, that the request
    log keeps, ``measure_share`` the part whose texts are measured, and ``data_class`` what the log
    calls them. ``letterbox`` is what comments on its answers are sealed with, "" to drop them;
    ``sample_share`` the part of its calls that is kept, sealed with ``sample_box``.
    """

    id: str
    name: str
    project_id: str
    time_zone: str = "UTC"
    regions: list[str] = []
    features: list[str] = []
    data_class: str = "internal"
    shows: bool = True
    log_share: int = 0
    measure_share: int = 0
    letterbox: str = ""
    sample_share: int = 0
    sample_box: str = ""


class UpstreamEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's API that arms may name. ``secret`` is a reference (``env:NAME``, ``file:PATH``).

    ``provider`` is openai, anthropic or vertex; ``base_url`` what its paths are below, such as
    ``https://api.openai.com/v1``; ``proxy`` an ``http://HOST:PORT`` to CONNECT through; ``ca_file``
    the certificates to trust instead of the system's; ``location`` where it runs.
    """

    id: str
    project_id: str
    name: str
    provider: str
    base_url: str
    secret: str = ""
    location: str = ""
    proxy: str = ""
    ca_file: str = ""
    max_connections: int = 256


class ArmEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One weighted target of an alias: a deployment of a model version, and its price.

    An arm with an ``upstream_id`` is answered by that upstream's ``upstream_model``, one without by
    this installation's replicas. ``location`` is the region that residency rules look at,
    ``accepts`` the closest class of data that the upstream is accepted for ("": own engines).
    ``can_wake`` says that replicas are started for a call that finds none, ``adapter`` names what
    the engine shall put on its base model for each call, "" for nothing.
    """

    id: str
    weight: int
    version_id: str
    model: str
    context_tokens: int
    rates: Rates
    upstream_id: str = ""
    upstream_model: str = ""
    location: str = ""
    accepts: str = ""
    can_wake: bool = False
    adapter: str = ""


class RouteRule(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that match everything given here may only use these arms; the first match counts.

    ``min_input`` and ``max_input`` bound the prompt's size in tokens (the upper bound the gateway
    works with); 0 is no bound.
    """

    arms: list[str]
    tenants: list[str] = []
    purposes: list[str] = []
    data_classes: list[str] = []
    min_input: int = 0
    max_input: int = 0


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of ``share`` basis points of an alias's calls goes to ``arm``, never in their way.

    At most ``concurrency`` copies run at once in each gateway process, and those of all processes
    that share their counters cost at most ``daily_nano`` a UTC day.
    """

    arm: str
    share: int
    concurrency: int = 4
    daily_nano: int = 0


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """How an alias finds its target.

    ``policy`` is weighted, cheapest or fastest; ``fallbacks`` are arms in the order in which they
    are tried when the chosen one fails before its first byte; ``retries`` is how often one arm is
    asked again; ``first_byte_timeout_ms`` bounds each attempt's wait (0: the call's own limit).
    """

    policy: str = "weighted"
    rules: list[RouteRule] = []
    fallbacks: list[str] = []
    retries: int = 1
    first_byte_timeout_ms: int = 0
    shadow: Shadow | None = None


class AliasEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model name that clients of a project may send; ``regions`` as in a tenant.

    ``rollout`` is the step of a rollout that the weights belong to, ``unit`` what its coin is
    tossed for: session, call, user or tenant; both are "" without one.
    """

    project_id: str
    name: str
    created_at_us: int
    salt: str
    max_output_tokens: int
    arms: list[ArmEntry]
    routing: Routing = Routing()
    regions: list[str] = []
    rollout: str = ""
    unit: str = ""


class LimitEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What calls may use together, at most ``amount`` per ``per``.

    A call counts when it matches ``tenant_id``, ``key_id``, ``user`` and ``alias``: "" matches any
    and counts all together, "*" matches any and counts each apart. ``measure`` is requests, tokens,
    concurrency (calls at once; ``per`` is "") or cost (nano-USD); ``per`` is minute, day, month or
    total, by the calendar of the tenant's time zone. ``action`` is block, warn or downgrade (to the
    alias ``downgrade_to``); ``on_store_loss`` is closed or open.
    """

    id: str
    project_id: str
    measure: str
    amount: int
    per: str = ""
    tenant_id: str = ""
    key_id: str = ""
    user: str = ""
    alias: str = ""
    action: str = "block"
    downgrade_to: str = ""
    on_store_loss: str = "closed"


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """The section ``directory``: tenants, upstreams, aliases and limits."""

    tenants: list[TenantEntry]
    aliases: list[AliasEntry]
    upstreams: list[UpstreamEntry] = []
    limits: list[LimitEntry] = []


_RECORD = Layout("<32s16s16sqII")
_RECORD_V1 = Layout("<32s16s16sq")
_DIGEST_SIZE = 32
MAY_NAME_USERS = 1  # a flag of a key: its calls may say on whose behalf they are made


class KeyRecord(NamedTuple):
    """What a gateway knows of an API key; ``expires_at_us`` 0 means never.

    ``scope`` is the number of what the key is for; 0 is everything.
    """

    digest: bytes
    key_uuid: bytes
    tenant_uuid: bytes
    expires_at_us: int
    flags: int = 0
    scope: int = 0


class KeyTable:
    """Key records sorted by digest, over any buffer (bytes or a mapped file).

    ``version`` is the Snapshot's: the first one's records had no flags, and the second
    one's no scopes.
    """

    def __init__(self, buffer: bytes | memoryview, version: int = SNAPSHOT_VERSION) -> None:
        self._layout = _RECORD_V1 if version == 1 else _RECORD
        if len(buffer) % self._layout.size:
            raise ValueError(f"a key table of {len(buffer)} bytes is cut")
        self._buffer = buffer
        self._count = len(buffer) // self._layout.size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        start = index * self._layout.size
        return bytes(self._buffer[start : start + _DIGEST_SIZE])

    def find(self, digest: bytes) -> KeyRecord | None:
        """Return the record of a digest, or None."""
        index = bisect_left(self, digest)
        if index == self._count:
            return None
        record = KeyRecord(*self._layout.unpack_from(self._buffer, index * self._layout.size))
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
    point, threshold = draw_point(alias.salt, unit), 0
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
