"""The verbs of costs: what was spent on what, and what is booked beside calls. Never commits."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd, parse_usd
from pilotage.finops.costs import store
from pilotage.finops.costs.rules import (
    DAY_US,
    price_nano,
    reverse_shares,
    share_days,
)
from pilotage.finops.costs.types import (
    ANY,
    MOST_PRICE_NANO,
    UNITS,
    CostBy,
    CostEntry,
    CostKind,
    CostLine,
    CostRow,
    EntrySpec,
    Resource,
    ResourcePrice,
    Span,
)
from pilotage.finops.months import store as month_store
from pilotage.finops.periods import Period, find_day, find_month
from pilotage.finops.rules import get_day
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

Labels = tuple[tuple[str, str], ...]
START_OF_DAYS = "0001-01-01"
END_OF_DAYS = "9999-12-31"
PAGE = 1_000_000
_MOST_NANO = 10**18  # of one entry: sums of thousands of them still fit
_TEXTS = ("source", "unit", "alias", "model", "provider", "note", "tenant_id")
_RESOURCES = {
    CostKind.COMPUTE: Resource.COMPUTE,
    CostKind.IDLE: Resource.COMPUTE,
    CostKind.STORAGE: Resource.STORAGE,
    CostKind.NETWORK: Resource.NETWORK,
}
_LONGEST_TEXT = 300
_LONGEST_DAYS = 1100  # of one entry: three years paid ahead
_REVERSED = ("cost_nano", "quantity")


class CostService:
    """Costs of projects."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    # sums

    async def sum_costs(self, tx: Tx, by: Sequence[CostBy], span: Span) -> list[CostRow]:
        """Sum calls and everything else up by groups, in the order of their keys.

        Without ``by`` there is one row, none where nothing was ever spent.
        """
        return await store.sum_costs(tx, list(dict.fromkeys(by)), span)

    async def hourly_cost(
        self, tx: Tx, project_id: str, by: Sequence[CostBy] = ()
    ) -> dict[Labels, int]:
        """Return what a project spent on calls in the running UTC hour, by labels in nano-USD."""
        start_us = tx.now_us - tx.now_us % 3_600_000_000
        rows = await store.sum_calls_since(tx, project_id, start_us, by)
        return {_label(groups): nano for groups, nano in rows}

    async def daily_cost(
        self, tx: Tx, project_id: str, by: Sequence[CostBy] = ()
    ) -> dict[Labels, int]:
        """Return what a project has spent on this UTC day, by labels in nano-USD.

        Of the compute it is what is booked: hours that are over.
        """
        return await self._sum_period(tx, project_id, find_day(get_day(tx.now_us)), by)

    async def monthly_cost(
        self, tx: Tx, project_id: str, by: Sequence[CostBy] = ()
    ) -> dict[Labels, int]:
        """Return what a project has spent in this month (UTC), by labels in nano-USD."""
        return await self._sum_period(tx, project_id, find_month(get_day(tx.now_us)), by)

    async def list_lines(self, tx: Tx, span: Span) -> Sequence[CostLine]:
        """Return what calls cost, day by day, without saying whose key or which user."""
        return await store.list_lines(tx, span)

    async def sum_ledger(self, tx: Tx, span: Span) -> int:
        """Return what the ledger itself says that calls cost."""
        return await store.sum_ledger(tx, span)

    # entries

    async def add_entry(self, tx: Tx, spec: EntrySpec) -> CostEntry:
        """Book a cost that is no call's.

        What belongs to a closed month counts today. Raises ``already_exists`` if its source is
        booked, ``invalid_request`` for an amount or a time that cannot be.
        """
        _check_entry(spec)
        entry = await self._make(tx, spec, tx.project_id)
        if not await store.insert_entry(tx, entry):
            raise PilotageError(
                "already_exists",
                f"{spec.source!r} is booked already.",
                hint="A source is booked once. To change what was booked, reverse it and book it "
                "anew with another source.",
                param="source",
            )
        await append_revision(tx, "finops.cost.booked", entry.id, 1, entry)
        return entry

    async def reverse_entry(self, tx: Tx, entry_id: str) -> CostEntry:
        """Take a booked cost back; again it changes nothing. Raises ``not_found``.

        That counts today, also where it was booked this month; what counts to days that are to
        come is taken back on those.
        """
        entry = await store.find_entry(tx, entry_id)
        if entry is None:
            raise PilotageError(
                "not_found",
                f"There is no cost {entry_id!r}.",
                hint="List them: pilotage cost entries",
            )
        if entry.reverses:
            raise PilotageError(
                "conflict",
                "That is itself a reversal.",
                hint="Book the cost anew, with a source of its own.",
            )
        known = await store.find_source(tx, f"reverse/{entry_id}")
        if known is not None:
            return known
        made = replace(
            entry,
            id=self._clock.new_id("cst"),
            source=f"reverse/{entry_id}",
            reverses=entry.id,
            cost_nano=-entry.cost_nano,
            quantity=-entry.quantity,
            shares=reverse_shares(entry.shares, get_day(tx.now_us)),
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        if not await store.insert_entry(tx, made):
            raise PilotageError("conflict", "It was reversed by somebody else meanwhile.")
        await append_revision(tx, "finops.cost.reversed", made.id, 1, made)
        return made

    async def list_entries(
        self, tx: Tx, after: str = "", limit: int = PAGE, kind: CostKind | None = None
    ) -> Sequence[CostEntry]:
        """Return what is booked beside calls, the oldest first."""
        return await store.list_entries(tx, after, limit, kind)

    async def list_shares(self, tx: Tx, span: Span) -> Sequence[CostEntry]:
        """Return what is booked beside calls and counts on some days: only those shares of it."""
        return await store.list_shares(tx, span)

    async def book_once(self, tx: Tx, project_id: str, spec: EntrySpec) -> bool:
        """Book what a worker has worked out; False if that is done already."""
        return await store.insert_entry(tx, await self._make(tx, spec, project_id))

    # prices of resources

    async def set_price(
        self,
        tx: Tx,
        kind: Resource,
        subject: str,
        price: str,
        *,
        spot_price: str = "",
        valid_from_us: int | None = None,
    ) -> ResourcePrice:
        """Set what a unit of a resource costs from a time on (default: now), in decimal USD.

        Raises ``invalid_request`` for what is no price, ``already_exists`` for a second one from
        the same moment on.
        """
        made = ResourcePrice(
            id=self._clock.new_id("rpr"),
            project_id=tx.project_id,
            kind=kind,
            subject=_check_subject(kind, subject),
            price=_check_price(price, "price"),
            spot_price=_check_price(spot_price, "spot_price") if spot_price else "",
            valid_from_us=tx.now_us if valid_from_us is None else valid_from_us,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        if not await store.insert_price(tx, made):
            raise PilotageError(
                "already_exists",
                f"{kind.value} of {subject} has a price from that moment on already.",
                hint="Set it from a later moment on.",
                param="valid_from",
            )
        await append_revision(tx, "finops.resource_price.set", made.id, 1, made)
        return made

    async def list_prices(
        self, tx: Tx, after: str = "", limit: int = PAGE
    ) -> Sequence[ResourcePrice]:
        """Return prices of resources in the order in which they were set."""
        return await store.list_prices(tx, after, limit)

    async def list_current_prices(
        self, tx: Tx, after: str = "", limit: int = PAGE
    ) -> Sequence[ResourcePrice]:
        """Return the prices of resources that are in force now, as :meth:`list_prices` does."""
        prices = sorted(await store.list_prices(tx), key=lambda price: price.valid_from_us)
        current = {
            (price.kind, price.subject): price
            for price in prices
            if price.valid_from_us <= tx.now_us
        }
        found = [price for price in current.values() if price.id > after]
        return sorted(found, key=lambda price: price.id)[:limit]

    async def price_quantity(self, tx: Tx, spec: EntrySpec) -> EntrySpec:
        """Return a cost whose amount is its quantity at the resource's price at its beginning.

        Raises ``invalid_request`` for a kind that has no price, or where none is set.
        """
        kind = _RESOURCES.get(spec.kind)
        if kind is None:
            raise PilotageError(
                "invalid_request",
                f"{spec.kind.value} has no price to multiply a quantity by.",
                hint="Say what it cost.",
                param="cost_usd",
            )
        prices = await store.list_prices(tx, project_id=tx.project_id)
        price = find_price(prices, tx.project_id, kind, spec.alias or ANY, spec.start_us)
        if price is None:
            raise PilotageError(
                "invalid_request",
                f"{kind.value} has no price at that time.",
                hint=f"Set one: pilotage cost price {kind.value} USD --from TIME, or say what it "
                "cost.",
                param="cost_usd",
            )
        return replace(
            spec,
            unit=UNITS[kind],
            unit_price=price.price,
            cost_nano=price_nano(spec.quantity, parse_usd(price.price)),
        )

    async def _sum_period(
        self, tx: Tx, project_id: str, period: Period, by: Sequence[CostBy]
    ) -> dict[Labels, int]:
        """Sum up a day or a month."""
        span = Span(since=period.first, until=period.after, project_id=project_id)
        rows = await store.sum_costs(tx, list(dict.fromkeys(by)), span)
        return {_label(row.groups): row.cost_nano for row in rows}

    async def _make(self, tx: Tx, spec: EntrySpec, project_id: str) -> CostEntry:
        closed = (await month_store.list_last(tx)).get(project_id, "")
        values = {name: getattr(spec, name) for name in EntrySpec.__dataclass_fields__}
        return CostEntry(
            **values,
            id=self._clock.new_id("cst"),
            project_id=project_id,
            shares=share_days(spec, closed, get_day(tx.now_us)),
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )


def find_price(
    prices: Sequence[ResourcePrice], project_id: str, kind: Resource, subject: str, at_us: int
) -> ResourcePrice | None:
    """Return the price of a resource at a time: of the subject itself, or else of all of them."""
    valid = [
        price
        for price in prices
        if (price.project_id, price.kind) == (project_id, kind) and price.valid_from_us <= at_us
    ]
    own = [price for price in valid if price.subject == subject] or [
        price for price in valid if price.subject == ANY
    ]
    return max(own, key=lambda price: price.valid_from_us, default=None)


def continue_after(rows: Sequence[CostRow], after: str, limit: int) -> list[CostRow]:
    """Return the rows of a page: those behind a row's ``key``; raise ``invalid_request``."""
    if not after:
        return list(rows[:limit])
    try:
        place = msgspec.json.decode(after, type=list[str])
    except msgspec.DecodeError:
        raise PilotageError(
            "invalid_request",
            "That is not where a page of costs can continue.",
            hint="Send 'next' of the page before as it is.",
            param="after",
        ) from None
    behind = [row for row in rows if list(row.groups.values()) > place]
    return behind[:limit]


def check_text(text: str, param: str) -> None:
    """Raise ``invalid_request`` for a text that a person cannot read in a line."""
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise PilotageError(
            "invalid_request",
            f"{param}: that is no text of one line.",
            hint=f"Write at most {_LONGEST_TEXT} letters.",
            param=param,
        )


def _label(groups: dict[str, str]) -> Labels:
    return tuple(sorted(groups.items()))


def _check_entry(spec: EntrySpec) -> None:
    if spec.kind is CostKind.CALLS:
        raise PilotageError(
            "invalid_request",
            "What calls cost comes from the gateways alone.",
            hint="Book usage that no gateway saw as kind usage.",
            param="kind",
        )
    for name in _TEXTS:
        check_text(getattr(spec, name), name)
    if abs(spec.cost_nano) > _MOST_NANO or abs(spec.quantity) > _MOST_NANO:
        raise PilotageError("invalid_request", "That amount is too large.", param="cost_usd")
    if not 0 <= spec.start_us < spec.end_us <= 253_402_300_799_000_000:
        raise PilotageError(
            "invalid_request",
            "A cost is of a time that begins before it ends.",
            hint="Write start and end, the end being the first moment that is not in it.",
            param="end",
        )
    if spec.end_us - spec.start_us > _LONGEST_DAYS * DAY_US:
        raise PilotageError(
            "invalid_request",
            f"A cost is of {_LONGEST_DAYS} days at most.",
            hint="Book it year by year, with a source of each.",
            param="end",
        )


def _check_price(text: str, param: str) -> str:
    try:
        nano = parse_usd(text)
    except ValueError:
        nano = -1
    if not 0 <= nano <= MOST_PRICE_NANO:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a price.",
            hint="Write USD per unit as a decimal from 0 to 1000000 such as 0.71.",
            param=param,
        )
    return format_usd(nano)


def _check_subject(kind: Resource, subject: str) -> str:
    if subject != ANY and kind is not Resource.COMPUTE:
        raise PilotageError(
            "invalid_request",
            f"{kind.value} has one price for all.",
            hint=f"Write {ANY}.",
            param="subject",
        )
    if not subject or len(subject) > 128 or not subject.isprintable():
        raise PilotageError(
            "invalid_request",
            "That is no name of an endpoint.",
            hint=f"Write an endpoint's name, or {ANY} for all of them.",
            param="subject",
        )
    return subject
