"""What finops decides: which prices are valid and when, and what a call frame charges."""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag
from pilotage.core.limits import check_amount, check_downgrade
from pilotage.core.money import format_usd, parse_usd
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Rates
from pilotage.finops.types import (
    Action,
    EntryKind,
    LedgerEntry,
    Limit,
    LimitSpec,
    Measure,
    Price,
)

MAX_RATE_NANO = 1_000_000 * 1_000_000_000
_RATE = re.compile(r"\d{1,7}(?:\.\d{1,9})?", re.ASCII)
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")
_MAX_AMOUNT = 10**16  # tokens or nano-USD of one call; sums of hundreds of them still fit
_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning")
_LONGEST_USER = 256
USER_PART = "|user="  # begins the last part of a counter's name
_GRACE = timedelta(days=2)  # what gateways wait before they forget a counter, too


class LimitOwner(NamedTuple):
    """Whom a limit is for: ids, "" for anybody."""

    tenant_id: str
    key_id: str


def check_rate(text: str, param: str) -> str:
    """Return a rate in its one written form (``0.15``, ``2.00``); raise ``invalid_request``."""
    if not _RATE.fullmatch(text) or parse_usd(text) > MAX_RATE_NANO:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a price.",
            hint="Write USD per 1,000,000 tokens as a decimal from 0 to 1000000 such as 0.15, "
            "with at most 9 decimals.",
            param=param,
        )
    return format_usd(parse_usd(text))


def check_subject(text: str) -> str:
    """Return what a price is for; raise ``invalid_request`` if it cannot name a model."""
    if not _SUBJECT.fullmatch(text):
        raise PilotageError(
            "invalid_request",
            f"{text[:40]!r} does not name a model.",
            hint="Write MODEL or MODEL@VERSION, for example smollm2 or smollm2@1.0.0.",
            param="subject",
        )
    return text


def check_price(price: Price) -> Price:
    """Return a price; raise ``invalid_request`` where zero may be an oversight."""
    is_zero = all(parse_usd(getattr(price, name)) == 0 for name in _CLASSES)
    if is_zero and not price.is_free:
        raise PilotageError(
            "invalid_request",
            "All rates are zero.",
            hint="Set is_free to true if the model is meant to cost nothing.",
            param="is_free",
        )
    if price.is_free and not is_zero:
        raise PilotageError(
            "invalid_request",
            "A free model has rates above zero.",
            hint="Set every rate to 0 or is_free to false.",
            param="is_free",
        )
    return price


def list_subjects(model: str, version: str, provider: str) -> list[str]:
    """Return what a price of a model may be set for, the most specific first."""
    versioned = [f"{model}@{version}"] if version else []
    return [*versioned, model, *([f"{provider}/{model}"] if provider else [])]


def pick_price(prices: Iterable[Price], at_us: int) -> Price | None:
    """Return the price in force at a time: the last to become valid; None before the first."""
    valid = [price for price in prices if price.valid_from_us <= at_us]
    return max(valid, key=lambda price: price.valid_from_us, default=None)


def to_rates(price: Price) -> Rates:
    """Return a price as gateways use it: nano-USD per 10^6 tokens."""
    return Rates(
        price_id=price.id,
        input=parse_usd(price.input),
        output=parse_usd(price.output),
        cache_read=parse_usd(price.cache_read),
        cache_write=parse_usd(price.cache_write),
        reasoning=parse_usd(price.reasoning),
    )


def check_limit(spec: LimitSpec) -> int:
    """Return a limit's amount in nano-USD or as a number; raise ``invalid_request``."""
    amount = check_amount(spec.measure, spec.amount, spec.per)
    if (spec.action is Action.DOWNGRADE) != bool(spec.downgrade_to):
        raise PilotageError(
            "invalid_request",
            "A limit that downgrades calls says to which endpoint, and no other limit does.",
            hint="Set action to downgrade and downgrade_to to an endpoint, or neither.",
            param="downgrade_to",
        )
    if spec.downgrade_to:
        check_downgrade(spec.measure, spec.per, spec.endpoint, spec.downgrade_to)
    if len(spec.user) > _LONGEST_USER or not spec.user.isprintable():
        raise PilotageError("invalid_request", "That is no name of a user.", param="user")
    return amount


def make_limit_entry(limit: Limit) -> LimitEntry:
    """Return what gateways are told of a limit."""
    return LimitEntry(
        id=limit.id,
        project_id=limit.project_id,
        measure="cost" if limit.measure is Measure.USD else limit.measure.value,
        amount=limit.amount,
        per=limit.per.value,
        tenant_id=limit.tenant_id,
        key_id=limit.key_id,
        user=limit.user,
        alias=limit.endpoint,
        action=limit.action.value,
        downgrade_to=limit.downgrade_to,
        on_store_loss=limit.on_store_loss.value,
    )


def make_charge(ended: Ended, gateway: str) -> LedgerEntry:
    """Return the ledger entry of a call's end; raise ValueError if a table cannot hold it.

    NUL letters, which Postgres refuses in text, are replaced: a client's model name may have them.
    A copy that no client waited for is booked to nobody: not to the tenant, key or user it copies.
    """
    is_copy = Flag.SHADOW in ended.flags
    return _check_entry(
        LedgerEntry(
            call_id=_clean(ended.call_id),
            kind=EntryKind.CHARGE,
            at_us=ended.at_us,
            day=get_day(ended.at_us),
            project_id=_clean(ended.project_id),
            tenant_id=SHADOW_TENANT if is_copy else _clean(ended.tenant_id),
            key_id="" if is_copy else _clean(ended.key_id),
            alias=_clean(ended.alias),
            arm=_clean(ended.arm),
            version_id=_clean(ended.version_id),
            model=_clean(ended.model),
            outcome=ended.outcome.value,
            status=ended.status,
            input_tokens=ended.usage.input,
            cache_read_tokens=ended.usage.cache_read,
            cache_write_tokens=ended.usage.cache_write,
            output_tokens=ended.usage.output,
            reasoning_tokens=ended.usage.reasoning,
            cost_nano=ended.cost_nano,
            is_estimated=ended.is_estimated,
            duration_us=ended.duration_us,
            ttft_us=ended.ttft_us,
            price_id=_clean(ended.price_id),
            gateway=gateway,
            user="" if is_copy else _clean(ended.user),
            feature="" if is_copy else _clean(ended.feature),
            upstream_id=_clean(ended.upstream_id),
            flags=_clean(",".join(ended.flags)),
            prompt=_clean(ended.prompt),
        )
    )


def list_draws(ended: Ended) -> dict[str, int]:
    """Return what a call used of each counter that it was charged to, by the counter's name.

    A name is ``LIMIT|MEASURE|WINDOW`` and whom it is of, as the gateway wrote it.
    """
    used = {"cost": ended.cost_nano, "tokens": ended.usage.total, "requests": 1}
    draws = {}
    for counter in ended.counters:
        parts = counter.split("|", 3)
        if len(parts) >= 3 and used.get(parts[1]) and "\x00" not in counter:
            draws[counter] = used[parts[1]]
    return draws


def is_of_user(counter: str) -> bool:
    """Say whether a counter's name holds a user's, which comes last in it."""
    return USER_PART in counter


def is_counter_of(
    counter: str,
    limit: LimitOwner | None,
    *,
    tenant_id: str,
    key_ids: Collection[str],
    users: Collection[str],
) -> bool:
    """Say whether a user's counter is of a user of a tenant.

    Its name says so, or its limit, if that is one of the tenant's project. Where the limit counts
    all tenants together it is one of ``users``, whom no other tenant of the project has.
    """
    start, _, user = counter.partition(USER_PART)
    parts = dict(part.split("=", 1) for part in start.split("|")[3:] if "=" in part)
    tenant = parts.get("tenant") or (limit.tenant_id if limit else "")
    key = parts.get("key") or (limit.key_id if limit else "")
    if tenant or key:
        return tenant == tenant_id or (not tenant and key in key_ids)
    return limit is not None and user in users


def find_forget_at_us(counter: str) -> int:
    """Return when a counter's window is over in every time zone and for every call, 0 for never."""
    name = counter.split("|", 3)[2]
    try:
        first = date.fromisoformat(name if len(name) > len("2026-11") else f"{name}-01")
    except ValueError:
        return 0
    is_month = len(name) == len("2026-11")
    last = (first + timedelta(days=31)).replace(day=1) if is_month else first + timedelta(days=1)
    midnight = datetime.combine(last + _GRACE, datetime.min.time(), UTC)
    return int(midnight.timestamp()) * 1_000_000


def make_reversal(charge: LedgerEntry, at_us: int) -> LedgerEntry:
    """Return the entry that takes a charge back on the day it is made."""
    values = {name: getattr(charge, name) for name in charge.__dataclass_fields__}
    negative = {name: -values[name] for name in values if name.endswith(("_tokens", "_nano"))}
    return LedgerEntry(
        **values
        | negative
        | {"seq": 0, "kind": EntryKind.REVERSAL, "at_us": at_us, "day": get_day(at_us)}
        | {"billed_day": None}
    )


def get_day(at_us: int) -> str:
    """Return the UTC day of a time as ``YYYY-MM-DD``; raise ValueError beyond the calendar."""
    try:
        return datetime.fromtimestamp(at_us // 1_000_000, UTC).date().isoformat()
    except (OverflowError, OSError) as beyond:
        raise ValueError(f"{at_us} is no time") from beyond


def _check_entry(entry: LedgerEntry) -> LedgerEntry:
    for name in entry.__dataclass_fields__:
        value = getattr(entry, name)
        lowest = -1 if name.endswith("_us") else 0
        highest = 999 if name == "status" else _MAX_AMOUNT
        if isinstance(value, int) and not lowest <= value <= highest:
            raise ValueError(f"{name} is {value}")
    return entry


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
