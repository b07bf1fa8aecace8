"""The limits of one gateway process: which counters a call takes from, and how far each is used."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pilotage.core.seeds import Seeds
from pilotage.core.snapshot import LimitEntry
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call
from pilotage.gateway.counters.checkpoint import (
    Checkpoint,
    Widened,
    write_checkpoint,
)
from pilotage.gateway.counters.exchanger import NOTHING, Denial, Exchanger, Owner, find_no_seeds
from pilotage.gateway.counters.matching import (
    Bundle,
    LimitIndex,
    Subject,
    name_counter,
    window_of,
)
from pilotage.gateway.counters.slices import CONCURRENCY, COST, REQUESTS, TOKENS, Slice, is_bucket
from pilotage.gateway.counters.types import LimitUse
from pilotage.gateway.counters.windows import NOW, RATE, Calendar, Window, forget_at_us
from pilotage.gateway.ports import CounterStore
from pilotage.gateway.snapshots import SnapshotView
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

MAX_BUNDLES = 8192
MAX_SLICES = 32_768
LAPSE_MARGIN_S = 120.0  # beyond the longest call: then its row of a gauge counts no more
SAVE_EVERY_S = 1.0
SAVE_SHARE = 100  # writing totals down may take this part of the time

_LOG = logging.getLogger("pilotage.gateway")


class Limits:
    """Opened by the process that owns the spool, which starts :meth:`run` and calls :meth:`save`.

    ``recovered`` is where the counters stood when the spool was taken over.
    """

    def __init__(
        self,
        store: CounterStore,
        clock: Clock,
        folder: Path,
        recovered: Checkpoint,
        *,
        call_timeout_s: float,
        find_seeds: Callable[[], Awaitable[Seeds | None]] = find_no_seeds,
    ) -> None:
        self.exchanger = Exchanger(
            store,
            clock,
            Owner(recovered.owner, recovered.life),
            totals=dict(recovered.totals),
            peers=recovered.peers,
            find_seeds=find_seeds,
        )
        self._clock = clock
        self._folder = folder
        self._recovered = recovered
        self._lapse_ms = round((call_timeout_s + LAPSE_MARGIN_S) * 1000)
        self._calendar = Calendar()
        self._view: SnapshotView | None = None
        self._index = LimitIndex(())
        self._bundles: dict[tuple[str, str, str, str], Bundle] = {}
        self._widened = Widened(folder)
        self._saved_seq = recovered.seq
        self._save_due_s = 0.0

    async def run(self) -> None:
        """Keep the slices filled and the store informed until cancelled."""
        await self.exchanger.run()

    async def leave(self) -> None:
        """Hand back what is not used, before the process ends."""
        await self.exchanger.leave()
        self._widened.close()

    def match(self, call: Call) -> Bundle | None:
        """Return what a call counts against; None if nothing, as with a model that is not there."""
        if call.view is not self._view:
            self._turn_to(call.view)
        if self._index.is_empty or call.alias is None:
            return None
        kind = (call.tenant.id, call.key_id, call.alias_name, call.user)
        bundle = self._bundles.get(kind)
        now_us = self._clock.now_us()
        if bundle is None or now_us >= bundle.until_us:
            if len(self._bundles) >= MAX_BUNDLES or len(self.exchanger.slices) >= MAX_SLICES:
                self._bundles.clear()
                self._evict()
            subject = Subject(
                call.tenant.project_id, call.tenant.id, call.key_id, call.alias_name, call.user
            )
            bundle = self._bind(subject, call.tenant.time_zone, now_us)
            self._bundles[kind] = bundle
        return bundle if bundle.slices else None

    def find_counter(self, limit: LimitEntry) -> Slice:
        """Return the counter of a limit that is in no Snapshot; of whoever calls, all together."""
        subject = Subject(limit.project_id, "", "", limit.alias, "")
        return self._find_slice(limit, subject, "UTC", self._clock.now_us())

    async def reserve(self, slices: Sequence[Slice], amounts: Sequence[int]) -> Denial | None:
        """Take from all slices, waiting for the store if need be; return why that cannot be."""
        for one in slices:
            one.calls += 1
        try:
            if self.exchanger.take(slices, amounts) is None:
                return None
            return await self.exchanger.wait(slices, amounts)
        finally:
            for one in slices:
                one.calls -= 1

    async def list_uses(
        self, view: SnapshotView, subject: Subject, time_zone: str
    ) -> list[LimitUse]:
        """Return how far each limit of a subject is used, by what the store and this process know.

        A subject with alias "" is asked for with every alias of its limits left out that counts
        aliases apart.
        """
        self._turn_to(view)
        bundle = self._bind(subject, time_zone, self._clock.now_us())
        await self.exchanger.look(bundle.slices)
        is_current = not self.exchanger.is_away
        return [_show_use(one, is_current=is_current) for one in bundle.slices]

    def note_widened(self, call_id: str, nano: int, tokens: int) -> bool:
        """Keep on disk that a call may come to more than its Begun says; say if it is there."""
        return self._widened.note(call_id, nano, tokens)

    def forget_widened(self, call_id: str) -> None:
        """Forget it: the call has ended."""
        self._widened.forget(call_id)

    def list_totals(self) -> dict[str, int]:
        """Return what this owner used of each counter whose window may still be charged."""
        self._evict()
        now_us = self._clock.now_us()
        totals = self.exchanger.totals
        for key in [key for key in totals if 0 < forget_at_us(window_of(key)) <= now_us]:
            del totals[key]
        live = self.exchanger.slices.values()
        return totals | {one.key: one.used for one in live if one.is_total and one.used}

    def save(self, spool: SpoolWriter, *, is_last: bool = False) -> bool:
        """Write the totals down with the spool's last number; say whether they are there now.

        Called often, it does so about once a second, and at the last time in any case. What waits
        in memory is not in the spool, so that totals would be ahead of it: then nothing is written.
        """
        now_s = self._clock.monotonic_s()
        if spool.pending or spool.dropped or (now_s < self._save_due_s and not is_last):
            return False
        if spool.seq != self._saved_seq:
            checkpoint = Checkpoint(
                owner=self._recovered.owner,
                life=self._recovered.life,
                seq=spool.seq,
                peers=list(self.exchanger.peers),
                totals=self.list_totals(),
            )
            if write_checkpoint(self._folder, checkpoint):
                self._saved_seq = spool.seq
                self._widened.tidy()
        took_s = self._clock.monotonic_s() - now_s
        self._save_due_s = now_s + max(SAVE_EVERY_S, took_s * SAVE_SHARE)
        return True

    def _turn_to(self, view: SnapshotView) -> None:
        """Take a newer Snapshot's limits; a call that came with an older one gets these as well."""
        if self._view is None or view.n > self._view.n:
            self._view = view
            self._index = LimitIndex(view.limits)
            self._bundles.clear()

    def _bind(self, subject: Subject, time_zone: str, now_us: int) -> Bundle:
        slices = tuple(
            self._find_slice(limit, subject, time_zone, now_us)
            for limit in self._index.find(subject)
        )
        return Bundle(
            slices=slices,
            until_us=min((one.window.end_us for one in slices), default=1 << 62),
            counters=[one.key for one in slices if one.is_total],
            shown=tuple(one for one in slices if one.measure in (REQUESTS, TOKENS)),
        )

    def _find_slice(
        self, limit: LimitEntry, subject: Subject, time_zone: str, now_us: int
    ) -> Slice:
        window = self._find_window(limit, time_zone, now_us)
        key = name_counter(limit, subject, window)
        one = self.exchanger.slices.get(key)
        if one is None:
            used = self.exchanger.totals.get(key, 0)
            one = Slice(key, limit, window, used=used, lapse_ms=self._lapse_ms)
            self.exchanger.slices[key] = one
        one.limit = limit  # a newer Snapshot may have changed it
        return one

    def _find_window(self, limit: LimitEntry, time_zone: str, now_us: int) -> Window:
        if limit.measure == "concurrency":
            return NOW
        if is_bucket(limit):
            return RATE
        # Tenants that share a counter share its calendar.
        zone = time_zone if limit.tenant_id else "UTC"
        return self._calendar.find(limit.per, zone, now_us)

    def _evict(self) -> None:
        """Drop the slices that nobody uses; of totals, what was used is kept."""
        now_us = self._clock.now_us()
        is_crowded = len(self.exchanger.slices) >= MAX_SLICES
        for key, one in list(self.exchanger.slices.items()):
            is_over = one.window.end_us <= now_us
            if one.is_active or one.calls or not (is_over or (is_crowded and not self._bundles)):
                continue
            del self.exchanger.slices[key]
            if one.is_total and one.used:
                self.exchanger.totals[key] = one.used


class Hold:
    """What one call has taken. ``unpaid`` slices are charged in the end, though nothing was taken.

    Made when everything is taken; :meth:`settle` is the ending that books what the call came to.
    """

    __slots__ = ("_amounts", "_call", "_limits", "_slices", "_unpaid")

    def __init__(
        self,
        limits: Limits,
        call: Call,
        slices: Sequence[Slice],
        amounts: list[int],
        unpaid: Sequence[Slice] = (),
    ) -> None:
        self._limits = limits
        self._call = call
        self._slices = slices
        self._amounts = amounts
        self._unpaid = unpaid
        for one in unpaid:
            one.calls += 1

    def settle(self) -> None:
        """Book the bill and free the rest; a call that was not even begun used nothing."""
        call = self._call
        bill = bill_call(call)
        actual = (bill.cost_nano, bill.usage.total, 1, 0) if call.seq else NOTHING
        exchanger = self._limits.exchanger
        exchanger.settle(self._slices, self._amounts, actual)
        if self._unpaid:
            exchanger.settle(self._unpaid, NOTHING, actual)
        self._limits.forget_widened(call.id)

    def widen(self, nano: int, tokens: int) -> bool:
        """Take so much more at once, of all or of none; say whether it was taken."""
        more = (nano, tokens, 0, 0)
        if self._limits.exchanger.take(self._slices, more) is not None:
            return False
        for one in self._slices:
            one.calls -= 1  # taken a second time by the same call
        self._amounts[COST] += nano
        self._amounts[TOKENS] += tokens
        return self._limits.note_widened(self._call.id, nano, tokens)


def _show_use(one: Slice, *, is_current: bool) -> LimitUse:
    amount = one.limit.amount
    told = one.told
    if one.is_bucket:
        remaining = min(max(one.avail + one.left_elsewhere, 0), amount) if told else amount
        used, reserved = amount - remaining, 0
    else:
        used = one.used_by_all
        reserved = one.reserved + max(one.held_elsewhere - one.spare_elsewhere, 0)
        remaining = max(amount - used - reserved, 0)
    return LimitUse(
        limit_id=one.limit.id,
        measure=one.limit.measure,
        per=one.limit.per,
        amount=amount,
        used=0 if one.measure == CONCURRENCY else used,
        reserved=reserved,
        remaining=remaining,
        ends_at_us=one.window.shown_end_us,
        is_current=is_current and told is not None,
    )
