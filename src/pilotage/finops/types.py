"""What finops is: prices that are only ever added, and a ledger with one charge per call."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from pilotage.core.usage import Rates, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a subject (``MODEL`` or ``MODEL@VERSION``) costs from a time on.

    Rates are decimal text, USD per 10^6 tokens of each class. ``is_free`` says that all-zero rates
    are meant and not forgotten.
    """

    id: str
    project_id: str
    subject: str
    valid_from_us: int
    input: str
    output: str
    cache_read: str
    cache_write: str
    reasoning: str
    is_free: bool
    created_at_us: int
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """A price of the offline list; ``apart`` names what the provider charges for besides."""

    rates: Rates
    apart: tuple[str, ...] = ()


class PriceSource(StrEnum):
    """Where a price is written."""

    BOOK = "book"
    LIST = "list"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPrice:
    """What looking for a price found: its rates and their source, or ``why`` there are none."""

    source: PriceSource
    rates: Rates | None = None
    is_free: bool = False
    apart: tuple[str, ...] = ()
    why: str = ""

    @property
    def tiers(self) -> list[Tier]:
        """The rates of longer prompts."""
        return self.rates.tiers if self.rates else []


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    USD = "usd"


class Per(StrEnum):
    """The span of time that a limit's amount is for; concurrency has none."""

    NONE = ""
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Action(StrEnum):
    """What becomes of a call that a limit has no room for."""

    BLOCK = "block"
    WARN = "warn"
    DOWNGRADE = "downgrade"


class StoreLoss(StrEnum):
    """What becomes of a call of which nobody can say whether the limit has room for it."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSpec:
    """What is said of a limit, in words: names and decimal text.

    ``tenant``, ``key``, ``user`` and ``endpoint`` say which calls count: "" any of them, all
    together; "*" any of them, each apart.
    """

    measure: Measure
    amount: str
    per: Per = Per.NONE
    tenant: str = ""
    key: str = ""
    user: str = ""
    endpoint: str = ""
    action: Action = Action.BLOCK
    downgrade_to: str = ""
    on_store_loss: StoreLoss = StoreLoss.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What calls may use together; ``amount`` is nano-USD for usd, and else a number.

    What it counts and of whom never changes, so that its counters go on whatever else does.
    """

    id: str
    rev: int
    project_id: str
    name: str
    measure: Measure
    amount: int
    per: Per
    tenant_id: str
    key_id: str
    user: str
    endpoint: str
    action: Action
    downgrade_to: str
    on_store_loss: StoreLoss
    created_at_us: int
    deleted_at_us: int | None = None


class EntryKind(StrEnum):
    """What a ledger entry does: a reversal takes a charge back and has its amounts negative."""

    CHARGE = "charge"
    REVERSAL = "reversal"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One call's usage and cost; ``seq`` is its place in the ledger (0 before it is written).

    ``day`` is the UTC day of ``at_us``; ``billed_day`` the one that its cost counts to if that is
    another, because the month was closed when it came; ``gateway`` the spool it came from;
    ``flags`` are set apart by commas; ``prompt`` is the ``NAME@VERSION`` that its messages were
    made of. Durations are microseconds, -1 where unknown.
    """

    seq: int = 0
    call_id: str
    kind: EntryKind
    at_us: int
    day: str
    project_id: str
    tenant_id: str
    key_id: str
    alias: str
    arm: str
    version_id: str
    model: str
    outcome: str
    status: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano: int
    is_estimated: bool
    duration_us: int
    ttft_us: int
    price_id: str
    gateway: str
    user: str = ""
    feature: str = ""
    upstream_id: str = ""
    flags: str = ""
    prompt: str = ""
    billed_day: str | None = None


class GroupBy(StrEnum):
    """What usage can be summed up by."""

    TENANT = "tenant"
    PROJECT = "project"
    KEY = "key"
    ALIAS = "alias"
    MODEL = "model"
    VERSION = "version"
    DAY = "day"
    OUTCOME = "outcome"
    USER = "user"
    FEATURE = "feature"
    UPSTREAM = "upstream"
    PROMPT = "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums over the calls of one group; ``groups`` holds its keys in the order asked for.

    ``estimated_nano`` is the part of ``cost_nano`` that rests on an estimate.
    """

    groups: dict[str, str]
    calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano: int
    estimated_nano: int

    @property
    def key(self) -> str:
        """The group's keys as one text, by which pages continue."""
        return msgspec.json.encode(list(self.groups.values())).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPlace:
    """How far the ledger has come in one life (epoch) of a gateway's spool."""

    gateway: str
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterTotal:
    """What the ledger knows that one life (epoch) of a gateway's spool used of a limit's counter.

    The counter's name is the gateways' own; ``forget_at_us`` is 0 where it counts for ever.
    """

    counter: str
    gateway: str
    epoch: str
    used: int
    forget_at_us: int
