"""The verbs of finops. Never commits: whoever opened the transaction does."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Rates
from pilotage.finops import store
from pilotage.finops.catalogue import PriceList
from pilotage.finops.costs import store as cost_store
from pilotage.finops.costs.rules import find_corrected, make_lines, place_day
from pilotage.finops.months import store as month_store
from pilotage.finops.rules import (
    check_price,
    check_rate,
    check_subject,
    find_forget_at_us,
    get_day,
    is_of_user,
    list_subjects,
    make_limit_entry,
    make_reversal,
    pick_price,
    to_rates,
)
from pilotage.finops.types import (
    CounterTotal,
    EntryKind,
    FoundPrice,
    GroupBy,
    LedgerEntry,
    Price,
    PriceSource,
    SpoolPlace,
    UsageRow,
)
from pilotage.kit.clock import Clock, parse_time
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

NO_DRAWS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType({})
FOREVER_PAGE = 1_000_000
END_OF_TIME_US = 253_402_300_799_000_000  # the last second of the year 9999


class Recorded(NamedTuple):
    """What a batch of ends became: entries written, and ends of calls charged before."""

    written: int
    repeated: int


class FinopsService:
    """Prices and the ledger."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._price_list = PriceList()

    # prices

    async def set_price(  # noqa: PLR0913 - a price has that many parts
        self,
        tx: Tx,
        subject: str,
        input: str,  # noqa: A002 - the token class of that name
        output: str,
        *,
        cache_read: str | None = None,
        cache_write: str | None = None,
        reasoning: str | None = None,
        is_free: bool = False,
        valid_from_us: int | None = None,
    ) -> Price:
        """Add a price of ``MODEL`` or ``MODEL@VERSION`` from a time on (default: now).

        Rates are decimal text, USD per 10^6 tokens. Cache reads and writes default to the input
        rate, reasoning to the output rate. Raises ``already_exists`` for a second price from the
        same moment on.
        """
        price = check_price(
            Price(
                id=self._clock.new_id("prc"),
                project_id=tx.project_id,
                subject=check_subject(subject),
                valid_from_us=tx.now_us if valid_from_us is None else valid_from_us,
                input=check_rate(input, "input"),
                output=check_rate(output, "output"),
                cache_read=check_rate(input if cache_read is None else cache_read, "cache_read"),
                cache_write=check_rate(
                    input if cache_write is None else cache_write, "cache_write"
                ),
                reasoning=check_rate(output if reasoning is None else reasoning, "reasoning"),
                is_free=is_free,
                created_at_us=tx.now_us,
                created_by=tx.actor.principal_id,
            )
        )
        if not 0 <= price.valid_from_us <= END_OF_TIME_US:
            raise PilotageError(
                "invalid_request", "That is no time a price can start at.", param="valid_from"
            )
        if not await store.insert_price(tx, price):
            raise PilotageError(
                "already_exists",
                f"{subject} has a price from that moment on already.",
                hint="Set it from a later moment on.",
                param="valid_from",
            )
        await append_revision(tx, "finops.price.set", price.id, 1, price)
        return price

    async def find_rates(
        self,
        tx: Tx,
        model: str,
        version: str,
        at_us: int,
        project_id: str | None = None,
        provider: str = "",
    ) -> Rates | None:
        """Return what a model costs at a time, or None if nobody knows.

        A price of ``MODEL@VERSION`` goes before one of ``MODEL``, then comes ``PROVIDER/MODEL``,
        and at last the offline price list, if a provider (openai, anthropic, vertex) is named.
        ``project_id`` is for transactions of the whole installation; without it the transaction's
        own project counts.
        """
        found = await self.find_price(tx, model, version, at_us, project_id, provider)
        return found.rates

    async def find_price(
        self,
        tx: Tx,
        model: str,
        version: str,
        at_us: int,
        project_id: str | None = None,
        provider: str = "",
    ) -> FoundPrice:
        """Return what a model costs at a time, and where that is written or why it is unknown."""
        owner = project_id or tx.project_id
        for subject in list_subjects(model, version, provider):
            price = pick_price(await store.list_prices_of(tx, owner, subject), at_us)
            if price is not None:
                return FoundPrice(
                    source=PriceSource.BOOK, rates=to_rates(price), is_free=price.is_free
                )
        if not provider:
            return FoundPrice(source=PriceSource.UNKNOWN, why="it has no price")
        if not self._price_list.is_loaded:
            await asyncio.to_thread(self._price_list.load)
        try:
            listed = self._price_list.find(provider, model, at_us)
        except LookupError as unknown:
            return FoundPrice(source=PriceSource.UNKNOWN, why=str(unknown))
        return FoundPrice(source=PriceSource.LIST, rates=listed.rates, apart=listed.apart)

    async def find_rates_of(self, tx: Tx, price_id: str, at_us: int) -> Rates | None:
        """Return the rates that a price id stands for; None if nobody knows any more.

        A price of the offline list is known as long as the list has not changed; what it was at
        ``at_us`` counts, for a price id of it may have had several.
        """
        price = await store.get_price(tx, price_id)
        if price is not None:
            return to_rates(price)
        if ":" not in price_id:
            return None
        await asyncio.to_thread(self._price_list.load)
        return self._price_list.find_by_id(price_id, at_us)

    async def find_rates_on(self, tx: Tx, days: Mapping[str, str]) -> dict[str, Rates]:
        """Return the rates of price ids, each on a day; those that nobody knows are left out."""
        rates = {}
        for price_id, day in days.items():
            found = await self.find_rates_of(tx, price_id, parse_time(day))
            if found is not None:
                rates[price_id] = found
        return rates

    async def list_prices(
        self, tx: Tx, subject: str | None = None, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Price]:
        """Return prices, past and future ones too, in the order in which they were set."""
        return await store.list_prices(tx, subject, after, limit)

    async def list_current_prices(
        self, tx: Tx, subject: str | None = None, after: str = "", limit: int = FOREVER_PAGE
    ) -> Sequence[Price]:
        """Return the price in force now of every subject that has one, in the same order."""
        by_subject: dict[tuple[str, str], list[Price]] = {}
        for price in await store.list_prices(tx, subject, "", FOREVER_PAGE):
            by_subject.setdefault((price.project_id, price.subject), []).append(price)
        current = [pick_price(prices, tx.now_us) for prices in by_subject.values()]
        found = [price for price in current if price is not None and price.id > after]
        return sorted(found, key=lambda price: price.id)[:limit]

    async def find_next_price_change(self, tx: Tx, after_us: int) -> int | None:
        """Return when the next price becomes valid, so that a new Snapshot can be made then.

        The offline list's changes count once it has been asked for a price.
        """
        changes = (
            await store.find_next_valid_from(tx, after_us),
            self._price_list.find_next_change(after_us),
        )
        return min((at_us for at_us in changes if at_us is not None), default=None)

    # ledger

    async def get_place(self, tx: Tx, gateway: str, epoch: str) -> SpoolPlace:
        """Return how far the ledger has come in a spool."""
        return await store.find_place(tx, gateway, epoch)

    async def list_places(self, tx: Tx) -> Sequence[SpoolPlace]:
        """Return how far the ledger has come in every spool that ever was."""
        return await store.list_places(tx)

    async def record(
        self,
        tx: Tx,
        place: SpoolPlace,
        seq: int,
        charges: Sequence[LedgerEntry],
        draws: Mapping[str, Mapping[str, int]] = NO_DRAWS,
    ) -> Recorded:
        """Write the charges found behind a place of a spool and move the place to ``seq``.

        ``draws`` says by call what it used of which limits' counters; of a call that is nobody's,
        no user's counter is kept. A call charged before is not charged again; one of a closed month
        is billed today. Raises ``conflict`` if another process moved the place: then nothing here
        may be committed.
        """
        if not await store.advance_place(tx, place, seq):
            raise PilotageError(
                "conflict", f"The spool {place.gateway} is read by another process."
            )
        known = await store.list_known_calls(tx, [charge.call_id for charge in charges])
        closed, today = await month_store.list_last(tx), get_day(tx.now_us)
        fresh: dict[str, LedgerEntry] = {}
        for charge in charges:
            if charge.call_id not in known:
                day, is_late = place_day(charge.day, closed.get(charge.project_id, ""), today)
                billed = replace(charge, billed_day=day) if is_late else charge
                fresh.setdefault(charge.call_id, billed)
        await store.insert_entries(tx, list(fresh.values()))
        await cost_store.add_lines(tx, make_lines(fresh.values()))
        used: Counter[str] = Counter()
        for call_id, charge in fresh.items():
            drawn = draws.get(call_id, {})
            used.update(
                {name: drawn[name] for name in drawn if charge.user or not is_of_user(name)}
            )
        totals = [
            CounterTotal(
                counter=counter,
                gateway=place.gateway,
                epoch=place.epoch,
                used=amount,
                forget_at_us=find_forget_at_us(counter),
            )
            for counter, amount in used.items()
        ]
        await store.add_to_counters(tx, totals)
        return Recorded(len(fresh), len(charges) - len(fresh))

    async def list_counter_totals(self, tx: Tx) -> Sequence[CounterTotal]:
        """Return what the gateways are known to have used of every limit's counters.

        Of calls that were lost with their process it has the cost, and no tokens.
        """
        return await store.list_counter_totals(tx)

    async def list_counter_owners(self, tx: Tx) -> set[tuple[str, str]]:
        """Return who used something of a limit's counter: names of spools and their epochs."""
        return await store.list_counter_owners(tx)

    async def get_counters_of(self, tx: Tx, gateway: str, epoch: str) -> dict[str, int]:
        """Return what one life of a spool used, by counter; of lost calls as above."""
        return await store.get_counters_of(tx, gateway, epoch)

    async def drop_past_counters(self, tx: Tx) -> int:
        """Forget the counters of windows that are over; return how many rows that were."""
        return await store.drop_counters(tx, tx.now_us)

    async def list_limit_entries(self, tx: Tx) -> Sequence[LimitEntry]:
        """Return what gateways are told of every living limit."""
        return [make_limit_entry(limit) for limit in await store.list_limits(tx, "", FOREVER_PAGE)]

    async def reverse_charge(self, tx: Tx, call_id: str) -> LedgerEntry:
        """Take a call's charge back; reversing it again changes nothing. Raises ``not_found``."""
        charge = await store.find_entry(tx, call_id, EntryKind.CHARGE)
        if charge is None:
            raise PilotageError("not_found", f"The call {call_id!r} was not charged.")
        reversal = await store.find_entry(tx, call_id, EntryKind.REVERSAL)
        if reversal is None:
            reversal = make_reversal(charge, tx.now_us)
            after = {"call_id": call_id, "cost_nano": reversal.cost_nano}
            await append_revision(tx, "finops.charge.reversed", call_id, 1, after)
            await store.insert_entries(tx, [reversal])
            corrects = {call_id: find_corrected(charge.day, reversal.day)}
            await cost_store.add_lines(tx, make_lines([reversal], corrects))
        return reversal

    async def list_charges(self, tx: Tx, call_ids: Collection[str]) -> Sequence[LedgerEntry]:
        """Return the charges of some calls (hundreds at most), of those that were charged."""
        return await store.list_charges(tx, call_ids)

    async def list_traffic(
        self, tx: Tx, after_seq: int | None, limit: int, tenant: str | None = None
    ) -> Sequence[LedgerEntry]:
        """Return ledger entries behind a place, in order; without one the newest, also in order.

        ``tenant`` is a tenant's id. Whoever follows the traffic asks again behind the last ``seq``.
        """
        if after_seq is None:
            return await store.list_newest_entries(tx, limit, tenant)
        return await store.list_entries(tx, after_seq, limit, tenant)

    async def usage(
        self,
        tx: Tx,
        by: Sequence[GroupBy],
        since_us: int = 0,
        until_us: int = END_OF_TIME_US,
        tenant: str | None = None,
        *,
        after: str = "",
        limit: int = FOREVER_PAGE,
    ) -> Sequence[UsageRow]:
        """Sum calls, tokens and cost from ``since_us`` to before ``until_us``, group by group.

        ``tenant`` is a tenant's id, ``after`` the ``key`` of the last row of the page before.
        Without ``by`` there is one row, also where nothing was called.
        """
        since_us, until_us = max(0, since_us), min(until_us, END_OF_TIME_US)
        since, until = (since_us, get_day(since_us)), (until_us, get_day(until_us))
        groups = list(dict.fromkeys(by))
        place = _parse_key(after, len(groups)) if after else []
        return await store.sum_usage(
            tx, groups, since=since, until=until, tenant_id=tenant, after=place, limit=limit
        )


def _parse_key(text: str, length: int) -> list[str]:
    try:
        key = msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        key = []
    if not key or len(key) != length or "\x00" in "".join(key):
        raise PilotageError(
            "invalid_request",
            "That is not where a page of usage can continue.",
            hint="Send 'next' of the page before as it is.",
            param="after",
        )
    return key
