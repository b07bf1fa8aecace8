"""What costs are: lines that sum up calls, entries of what is no call, prices of resources."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class CostKind(StrEnum):
    """What something was paid for."""

    CALLS = "calls"  # what the ledger has; all others are entries
    COMPUTE = "compute"  # a replica of our own while it answered calls
    IDLE = "idle"  # the same while it answered none
    STORAGE = "storage"
    NETWORK = "network"
    USAGE = "usage"  # of models that were not called through a gateway
    OTHER = "other"


DAILY = frozenset({CostKind.CALLS, CostKind.COMPUTE, CostKind.IDLE, CostKind.STORAGE})
"""What comes day by day and can be foretold by the days before; all else is known as booked."""


class CostBy(StrEnum):
    """What costs can be summed up by; a release is a deployment, the arm that answered."""

    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    FEATURE = "feature"
    ALIAS = "alias"
    MODEL = "model"
    VERSION = "version"
    RELEASE = "release"
    UPSTREAM = "upstream"
    DAY = "day"
    MONTH = "month"
    KIND = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """The calls of a day that agree in everything they are billed by, summed up.

    ``band`` is the largest of the prompt sizes at which prices change that the calls' prompts were
    above; ``corrects`` the month (``2026-03``) that they belong to if not the day's: its charges
    are taken back, or came when it was closed.
    """

    project_id: str
    day: str
    tenant_id: str
    key_id: str
    user: str
    feature: str
    alias: str
    arm: str
    version_id: str
    model: str
    upstream_id: str
    price_id: str
    band: int
    corrects: str
    calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano: int
    estimated_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySpec:
    """A cost that is no call's; ``quantity`` counts millionths of ``unit``.

    Without a quantity it is a lump sum. ``source`` says where it comes from and is booked once;
    ``tenant_id`` "" means all of them together, ``release`` is a deployment's id; ``is_spot`` that
    the price is that of a machine that may be taken away.
    """

    kind: CostKind
    source: str
    start_us: int
    end_us: int
    cost_nano: int
    quantity: int = 0
    unit: str = ""
    unit_price: str = ""
    tenant_id: str = ""
    alias: str = ""
    release: str = ""
    version_id: str = ""
    model: str = ""
    provider: str = ""
    note: str = ""
    is_spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What counts of an entry on a UTC day; ``corrects`` is the closed month it belongs to."""

    day: str
    cost_nano: int
    quantity: int = 0
    corrects: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEntry(EntrySpec):
    """A cost that is booked: it is never changed, only reversed by another one.

    ``reverses`` is the id of the entry it takes back; ``shares``, in the order of their days, say
    when it counts: all of it, or what lies in the days asked for.
    """

    id: str
    project_id: str
    reverses: str = ""
    created_at_us: int
    created_by: str
    shares: tuple[Share, ...]

    @property
    def counted_nano(self) -> int:
        """What its shares add up to."""
        return sum(share.cost_nano for share in self.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """Costs of one group by kind, with the usage of its calls; ``groups`` is as asked for."""

    groups: dict[str, str]
    calls: int = 0
    tokens: int = 0
    cost_nano: int = 0
    estimated_nano: int = 0
    by_kind: dict[str, int]

    @property
    def key(self) -> str:
        """The group's keys as one text, by which pages continue."""
        return msgspec.json.encode(list(self.groups.values())).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Days (``2026-03-10``) from one to before another, and what alone counts of them.

    ``project_id`` None means the scope of the transaction; ``corrects`` a month (``2026-03``) whose
    corrections alone count.
    """

    since: str
    until: str
    project_id: str | None = None
    only: tuple[tuple[CostBy, str], ...] = ()
    corrects: str = ""


class Resource(StrEnum):
    """What a resource's price is for; its unit is in :data:`UNITS`."""

    COMPUTE = "compute"
    STORAGE = "storage"
    NETWORK = "network"


UNITS = {
    Resource.COMPUTE: "hours",
    Resource.STORAGE: "GiB-months",
    Resource.NETWORK: "GiB",
}
ANY = "*"
MOST_PRICE_NANO = 10**15  # of a unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcePrice:
    """What a unit of a resource costs from a time on: decimal USD, ``spot_price`` "" for none.

    The subject of compute is an alias, of storage and network :data:`ANY`, as for all aliases.
    """

    id: str
    project_id: str
    kind: Resource
    subject: str
    price: str
    spot_price: str
    valid_from_us: int
    created_at_us: int
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenReplica:
    """A replica of our own as it runs now; ``pid`` tells one run of it from the next."""

    replica_id: str
    project_id: str
    release: str
    alias: str
    version_id: str
    model: str
    pid: int = 0
    is_spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaTime(SeenReplica):
    """When a replica ran: from ``start_us`` to ``end_us``, or so far as it was seen.

    Its cost is booked up to ``booked_us``.
    """

    id: str
    start_us: int
    seen_us: int
    booked_us: int
    end_us: int | None = None
