"""What costs are made of: lines of ledger entries, and amounts of quantities and prices."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pilotage.core.money import divide_half_even
from pilotage.finops.costs.types import CostLine, EntrySpec, Share
from pilotage.finops.periods import find_month
from pilotage.finops.rules import get_day
from pilotage.finops.types import EntryKind, LedgerEntry

BANDS = (100_000, 128_000, 200_000, 272_000)  # prompt sizes above which listed prices change
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MILLION = 1_000_000
GIB = 1 << 30
MONTH_HOURS = 730  # the month that storage is sold by
LINE_KEY = (
    "project_id",
    "day",
    "tenant_id",
    "key_id",
    "user",
    "feature",
    "alias",
    "arm",
    "version_id",
    "model",
    "upstream_id",
    "price_id",
    "band",
    "corrects",
)
LINE_SUMS = tuple(name for name in CostLine.__dataclass_fields__ if name not in LINE_KEY)
_NO_MONTHS: Mapping[str, str] = {}


def make_lines(
    entries: Iterable[LedgerEntry], corrects: Mapping[str, str] = _NO_MONTHS
) -> dict[str, CostLine]:
    """Sum ledger entries up into lines, by the lines' ids.

    ``corrects`` has, by call, the month of a charge that a reversal takes back.
    """
    sums: dict[tuple[str | int, ...], list[int]] = {}
    for entry in entries:
        key = _get_key(entry, _find_month(entry, corrects))
        amounts = _get_amounts(entry)
        known = sums.setdefault(key, [0] * len(amounts))
        for place, amount in enumerate(amounts):
            known[place] += amount
    return {
        make_line_id(key): make_line(
            dict(zip((*LINE_KEY, *LINE_SUMS), (*key, *amounts), strict=True))
        )
        for key, amounts in sums.items()
    }


def make_line(values: Mapping[str, Any]) -> CostLine:
    """Return a line of its fields by name; others are left out."""
    return CostLine(**{name: values[name] for name in CostLine.__dataclass_fields__})


def make_line_id(key: Sequence[str | int]) -> str:
    """Return the id of the line of a key: a digest of it, for keys are long."""
    text = msgspec.json.encode(list(key))
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def find_band(prompt_tokens: int) -> int:
    """Return the largest of :data:`BANDS` that a prompt is above, 0 for none.

    A reversal's prompt is negative and of the band of its charge.
    """
    size = abs(prompt_tokens)
    return max((band for band in BANDS if size > band), default=0)


def find_corrected(charged_day: str, reversed_day: str) -> str:
    """Return the month whose charge is taken back, "" unless it is an earlier one."""
    month = charged_day[:7]
    return month if month < reversed_day[:7] else ""


def place_day(day: str, closed: str, today: str) -> tuple[str, str]:
    """Return the day that a cost of a day counts to, and the closed month that it corrects or "".

    ``closed`` is the last month that is closed: what belongs to it, or to one before, counts today.
    """
    if day[:7] > closed:
        return day, ""
    _, _, after = find_month(f"{closed}-01")
    return max(today, after), day[:7]


def share_days(spec: EntrySpec, closed: str, today: str) -> tuple[Share, ...]:
    """Return what counts of a cost on which day: by the time of the day that it is of.

    The shares add up to it exactly. What belongs to a closed month counts today.
    """
    shares = []
    at_us, paid, used = spec.start_us, 0, 0
    while at_us < spec.end_us:
        until_us = min(spec.end_us, (at_us // DAY_US + 1) * DAY_US)
        part = until_us - spec.start_us
        whole = spec.end_us - spec.start_us
        day, corrects = place_day(get_day(at_us), closed, today)
        cost_nano, quantity = spec.cost_nano * part // whole, spec.quantity * part // whole
        shares.append(
            Share(
                day=day,
                cost_nano=cost_nano - paid,
                quantity=quantity - used,
                corrects=corrects,
            )
        )
        at_us, paid, used = until_us, cost_nano, quantity
    return _merge_shares(shares)


def reverse_shares(shares: Iterable[Share], today: str) -> tuple[Share, ...]:
    """Return shares that take others back: today, or on their own day if that is to come."""
    return _merge_shares(
        Share(
            day=max(share.day, today),
            cost_nano=-share.cost_nano,
            quantity=-share.quantity,
            corrects=share.corrects or find_corrected(share.day, today),
        )
        for share in shares
    )


def price_nano(quantity: int, unit_price_nano: int) -> int:
    """Return what millionths of a unit cost in nano-USD, rounded once, half to even."""
    return divide_half_even(quantity * unit_price_nano, MILLION)


def to_micro_hours(duration_us: int) -> int:
    """Return a duration in millionths of an hour, half to even."""
    return divide_half_even(duration_us * MILLION, HOUR_US)


def to_micro_gib_months(size_bytes: int, hours: int) -> int:
    """Return what stays of some bytes for some hours, in millionths of a GiB-month."""
    return divide_half_even(size_bytes * hours * MILLION, GIB * MONTH_HOURS)


def measure_busy_us(spans: Iterable[tuple[int, int]], start_us: int, end_us: int) -> int:
    """Return for how long at least one of some spans lasted between two times."""
    busy_us = 0
    reached_us = start_us
    for begin_us, until_us in sorted(spans):
        first_us, last_us = max(begin_us, reached_us), min(until_us, end_us)
        if last_us > first_us:
            busy_us += last_us - first_us
            reached_us = last_us
    return busy_us


def split_hours(start_us: int, end_us: int) -> list[tuple[int, int]]:
    """Return the parts of a time that lie in one hour of the clock each."""
    parts = []
    while start_us < end_us:
        next_us = min(end_us, (start_us // HOUR_US + 1) * HOUR_US)
        parts.append((start_us, next_us))
        start_us = next_us
    return parts


def _merge_shares(shares: Iterable[Share]) -> tuple[Share, ...]:
    """Return one share for each day and corrected month, in their order."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for share in shares:
        known = sums[share.day, share.corrects]
        known[0] += share.cost_nano
        known[1] += share.quantity
    return tuple(
        Share(day=day, cost_nano=nano, quantity=quantity, corrects=corrects)
        for (day, corrects), (nano, quantity) in sorted(sums.items())
    )


def _find_month(entry: LedgerEntry, corrects: Mapping[str, str]) -> str:
    """Return the month that a ledger entry corrects: of what it takes back, or its own."""
    if entry.kind is EntryKind.REVERSAL:
        return corrects.get(entry.call_id, "")
    return entry.day[:7] if entry.billed_day else ""


def _get_key(entry: LedgerEntry, corrects: str) -> tuple[str | int, ...]:
    prompt = entry.input_tokens + entry.cache_read_tokens + entry.cache_write_tokens
    names = (getattr(entry, name) for name in LINE_KEY[2:-2])
    day = entry.billed_day or entry.day
    return (entry.project_id, day, *names, find_band(prompt), corrects)


def _get_amounts(entry: LedgerEntry) -> tuple[int, ...]:
    """Return a ledger entry's share of each of :data:`LINE_SUMS`."""
    return (
        1 if entry.kind is EntryKind.CHARGE else 0,
        entry.input_tokens,
        entry.cache_read_tokens,
        entry.cache_write_tokens,
        entry.output_tokens,
        entry.reasoning_tokens,
        entry.cost_nano,
        entry.cost_nano if entry.is_estimated else 0,
    )
