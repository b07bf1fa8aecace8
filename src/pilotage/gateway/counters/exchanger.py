"""The conversation with the store: one exchange at a time, for everything that needs one.

Calls never talk to the store themselves. Those that must wait say so here; the next exchange asks
for all of them together, so that leaving one of them loses nothing. While the store is known to be
away nobody waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from pilotage.core.seeds import Seeds
from pilotage.gateway.counters.matching import window_of
from pilotage.gateway.counters.slices import CONCURRENCY, NO_DEMAND, Demand, Slice
from pilotage.gateway.counters.types import (
    Answer,
    Ask,
    Draw,
    Row,
    SeedRow,
    Stage,
    Status,
)
from pilotage.gateway.counters.windows import forget_at_us
from pilotage.gateway.ports import CounterStore, StoreAwayError
from pilotage.kit.clock import Clock

TICK_S = 0.1
RECALL_S = 0.02  # between looks while a call waits for what others hand back
PATIENCE_S = 0.35  # how long it does: three ticks of theirs
NEWS_S = 0.13  # how long it waits for what others' calls may just have freed: a tick of theirs
HEARTBEAT_S = 1.0  # an owner with nothing to say asks after the store this often
ASK_LEDGER_S = 1.0  # while the store waits for owners, who is gone is asked this often
LONGEST_WAIT_S = 2.0
AT_ONCE = 256  # rows of one exchange
AWAY_AFTER = 2  # failures in a row
AWAY_S = (0.1, 0.2, 0.5, 1.0)  # pauses between attempts while the store is away
GAUGE_HOLD_S = 60.0  # calls begun later than this after the last exchange are not counted as held

NOTHING = (0, 0, 0, 0)  # amounts of a call that only wants to know

_LOG = logging.getLogger("pilotage.gateway")


async def find_no_seeds() -> Seeds:
    """Return nothing: for a store that has one owner, who knows it all."""
    return Seeds()


class Verdict(Enum):
    """Why a call cannot take what it needs."""

    DENIED = "denied"
    UNKNOWN = "unknown"


class Denial(NamedTuple):
    """The slice that cannot pay, and in which sense; ``left`` is what it could pay."""

    verdict: Verdict
    slice: Slice
    left: int = 0
    retry_s: float = 0.0


class Owner(NamedTuple):
    """Who says it: the slot and life of its spool, and which process of it."""

    name: str
    life: int


class _Waiter:
    """A call that waits until its slices can pay, or one that only wants to know.

    ``after`` is the last exchange that began before it: what later ones answer is news to it.
    """

    __slots__ = ("after", "amounts", "future", "since_s", "slices")

    def __init__(
        self, slices: Sequence[Slice], amounts: Sequence[int], since_s: float, after: int
    ) -> None:
        self.slices = slices
        self.amounts = amounts
        self.since_s = since_s
        self.after = after
        self.future: asyncio.Future[Denial | None] = asyncio.get_running_loop().create_future()

    def renew(self, after: int) -> None:
        self.after = after
        self.future = asyncio.get_running_loop().create_future()

    def tell(self, denial: Denial | None) -> None:
        if not self.future.done():
            self.future.set_result(denial)


class Exchanger:
    """Says and asks for one owner. ``slices`` are all that there are, ``totals`` those at rest.

    ``find_seeds`` tells what owners used that cannot say it themselves; None if nobody knows yet.
    """

    def __init__(
        self,
        store: CounterStore,
        clock: Clock,
        owner: Owner,
        *,
        totals: dict[str, int],
        peers: Iterable[str] = (),
        find_seeds: Callable[[], Awaitable[Seeds | None]] = find_no_seeds,
    ) -> None:
        self.totals = totals
        self.slices: dict[str, Slice] = {}
        self.peers: tuple[str, ...] = tuple(peers)
        self.is_away = False
        self.is_open = True  # until the store says otherwise
        self.exchanges = 0
        self._store = store
        self._clock = clock
        self._owner = owner
        self._find_seeds = find_seeds
        self._active: dict[str, Slice] = {}
        self._urgent: dict[str, Slice] = {}
        self._waiters: list[_Waiter] = []
        self._woken = asyncio.Event()
        self._peers_told = 0
        self._seq = 0
        self._acked = 0
        self._generation = ""
        self._is_registered = False
        self._was_registered = False
        self._failures = 0
        self._last_ok_s = clock.monotonic_s()
        self._ask_ledger_at_s = 0.0
        self._tick_due_s = 0.0

    def take(self, slices: Sequence[Slice], amounts: Sequence[int]) -> Slice | None:
        """Take from all slices, or from none and return one that cannot pay.

        ``amounts`` are by measure: nano-USD, tokens, requests, calls.
        """
        for one in slices:
            amount = amounts[one.measure]
            if one.avail < amount:
                self._put_back(slices, amounts, one)
                return one
            one.avail -= amount
            one.reserved += amount
            one.taken += amount
            one.calls += 1
            if one.avail < one.refill_at:
                self.urge(one)
        return None

    def settle(
        self, slices: Sequence[Slice], amounts: Sequence[int], actual: Sequence[int]
    ) -> None:
        """Book what calls that took ``amounts`` came to, and make the rest available again."""
        for one in slices:
            amount, came_to = amounts[one.measure], actual[one.measure]
            one.reserved -= amount
            one.used += came_to
            one.avail += amount - came_to
            one.calls -= 1
            if not one.is_active:
                self.activate(one)

    def activate(self, one: Slice) -> None:
        """Have a slice's row posted from the next tick on."""
        one.is_active = True
        self._active[one.key] = one

    def urge(self, one: Slice) -> None:
        """Have a slice's stock filled up now."""
        if not self.is_away:
            self._urgent[one.key] = one
            self._woken.set()

    def can_serve(self, one: Slice) -> bool:
        """Say whether asking the store for a slice makes sense."""
        return not self.is_away and (self.is_open or (one.is_bucket and self._is_registered))

    async def wait(self, slices: Sequence[Slice], amounts: Sequence[int]) -> Denial | None:
        """Wait until all slices have paid (None), or one is known not to be able to.

        The caller has the slices' ``calls`` raised meanwhile, so that they stay what they are.
        """
        waiter = _Waiter(slices, amounts, self._clock.monotonic_s(), self._seq)
        for one in slices:
            if one.avail < amounts[one.measure] and not self.can_serve(one):
                return Denial(Verdict.UNKNOWN, one, retry_s=1.0)
            if not one.is_active:
                self.activate(one)
        self._waiters.append(waiter)
        try:
            while True:
                self._woken.set()
                denial = await waiter.future
                if denial is not None or self.take(slices, amounts) is None:
                    return denial
                waiter.renew(self._seq)
        finally:
            self._waiters.remove(waiter)

    async def look(self, slices: Sequence[Slice]) -> None:
        """Ask the store how far counters are used; leave it at what is known if it is away."""
        if self.is_away or not self._is_registered:
            return
        waiter = _Waiter(slices, NOTHING, self._clock.monotonic_s(), self._seq)
        for one in slices:
            if not one.is_active:
                self.activate(one)
            one.calls += 1
        self._waiters.append(waiter)
        self._woken.set()
        try:
            await waiter.future
        finally:
            self._waiters.remove(waiter)
            for one in slices:
                one.calls -= 1

    async def run(self) -> None:
        """Exchange until cancelled: at once when something is urgent, else at every tick."""
        while True:
            if self.is_away:
                await asyncio.sleep(self._pause_s())
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._woken.wait()
            await self.turn()
            await asyncio.sleep(0)  # whoever was told goes first

    async def turn(self) -> None:
        """Do one exchange, if there is anything to say or to ask, and tell those who wait."""
        self._woken.clear()
        try:
            if not self._is_registered:
                await self._register()
            elif not self.is_open and self._clock.monotonic_s() >= self._ask_ledger_at_s:
                await self._finish_registration()
            if self._is_registered:
                await self._say(self._choose())
        except StoreAwayError as away:
            self._lose(str(away))
        self._answer_waiters()

    async def leave(self) -> None:
        """Hand everything back that no call has reserved."""
        for one in self._active.values():
            one.stock = one.largest = one.taken = 0
            one.idle_ticks = 1 << 30
        if self._is_registered and not self.is_away:
            with suppress(StoreAwayError):
                await self._say(list(self._active.values()))

    def _put_back(self, slices: Sequence[Slice], amounts: Sequence[int], until: Slice) -> None:
        for one in slices:
            if one is until:
                return
            amount = amounts[one.measure]
            one.avail += amount
            one.reserved -= amount
            one.taken -= amount
            one.calls -= 1

    def _pause_s(self) -> float:
        if self.is_away:
            return AWAY_S[min(self._failures - AWAY_AFTER, len(AWAY_S) - 1)]
        until_tick_s = self._tick_due_s - self._clock.monotonic_s()
        return max(min(until_tick_s, RECALL_S if self._waiters else TICK_S), 0.001)

    def _choose(self) -> list[Slice]:
        """Return the slices to speak of: those that calls wait for, then the rest."""
        chosen: dict[str, Slice] = {}
        for waiter in self._waiters:
            chosen.update((one.key, one) for one in waiter.slices)
        chosen.update(self._urgent)
        self._urgent.clear()
        now_s = self._clock.monotonic_s()
        if now_s >= self._tick_due_s:
            self._tick_due_s = now_s + TICK_S
            for one in list(self._active.values()):
                one.tick()
                if one.is_news:
                    chosen[one.key] = one
                elif one.is_at_rest and one.key not in chosen:
                    one.is_active = False
                    del self._active[one.key]
        return list(chosen.values())

    async def _say(self, chosen: Sequence[Slice]) -> None:
        if not chosen and self._clock.monotonic_s() - self._last_ok_s >= HEARTBEAT_S:
            await self._trade(())
        for start in range(0, len(chosen), AT_ONCE):
            if self._is_registered:
                await self._trade(chosen[start : start + AT_ONCE])

    async def _trade(self, chosen: Sequence[Slice]) -> None:
        demand = self._find_demand()
        totals = [one for one in chosen if not one.is_bucket]
        buckets = [one for one in chosen if one.is_bucket]
        is_polite = self._is_turn_of_others()
        rows = [
            one.say(
                demand.get(one.key, NO_DEMAND),
                may_ask=not (is_polite and one.is_low and one.spare_elsewhere),
            )
            for one in totals
        ]
        draws = [one.say_draw(demand.get(one.key, NO_DEMAND)) for one in buckets]
        answer = await self._send(Stage.RUN, rows, draws)
        if answer.status is Status.REGISTER:
            self._begin_anew(answer)
            return
        self._note_state(answer)
        for one, row, told in zip(totals, rows, answer.rows, strict=True):
            one.hear(row, told)
            one.heard = self._acked
            if one.is_low and one.avail > demand.get(one.key, NO_DEMAND).total:
                self.urge(one)  # others lack it: hand it back at once
        for one, drawn in zip(buckets, answer.draws, strict=True):
            one.hear_draw(drawn)
            one.heard = self._acked

    def _find_demand(self) -> dict[str, Demand]:
        """Return per counter what waiting calls want of it."""
        demand: dict[str, Demand] = {}
        for waiter in self._waiters:
            is_told = waiter.future.done()
            for one in waiter.slices:
                amount = waiter.amounts[one.measure]
                total, smallest, owed = demand.get(one.key, NO_DEMAND)
                if amount > one.avail:
                    smallest = min(smallest or amount, amount)
                owed += amount if is_told else 0
                demand[one.key] = Demand(total + amount, smallest, owed)
                one.largest = max(one.largest, amount)
        return demand

    def _is_turn_of_others(self) -> bool:
        """Say, by chance, every other time, whether to hand back and ask for nothing.

        Owners that each took what the other lacks would do so again and again in step.
        """
        return bool(crc32(b"%b%d" % (self._owner.name.encode(), self._seq)) & 1)

    async def _register(self) -> None:
        """Say everything this owner has; until the store knows it, it grants nothing."""
        if not self._generation:
            self._generation = (await self._send(Stage.RUN)).generation
        rows = self._list_rows()
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            answer = await self._send(Stage.ROWS, [row for _, row in part])
            if answer.status is Status.REGISTER:
                self._begin_anew(answer)
                return
            for (one, row), told in zip(part, answer.rows, strict=True):
                if one is not None:
                    one.hear(row, told)
        await self._finish_registration()

    async def _finish_registration(self) -> None:
        """Say who else used what, and that this was all; again while the store waits for owners."""
        self._ask_ledger_at_s = self._clock.monotonic_s() + ASK_LEDGER_S
        seeds = await self._find_seeds()
        if seeds is None:  # nobody knows yet who else has used something
            self._set_open(is_open=False, missing=("the ledger",))
            return
        answer = await self._tell(seeds)
        if answer.status is Status.REGISTER:
            self._begin_anew(answer)
            return
        self._is_registered = self._was_registered = True
        self._note_state(answer)

    async def _tell(self, seeds: Seeds) -> Answer:
        """Say what owners used that are gone, in parts, and only then that they are gone."""
        known = {*seeds.living, *seeds.gone}
        sown = _list_sown(seeds)
        for start in range(0, len(sown), AT_ONCE):
            part = sown[start : start + AT_ONCE]
            answer = await self._send(Stage.DONE, expected=known, seeds=part)
            if answer.status is Status.REGISTER:
                return answer
        return await self._send(Stage.DONE, expected=known, gone=tuple(seeds.gone))

    def _list_rows(self) -> list[tuple[Slice | None, Row]]:
        demand = self._find_demand()
        rows: list[tuple[Slice | None, Row]] = [
            (one, one.say(demand.get(one.key, NO_DEMAND)))
            for one in self.slices.values()
            if not one.is_bucket and (one.used or one.reserved or one.avail)
        ]
        for key, used in self.totals.items():
            if key not in self.slices:
                expires_at_ms = forget_at_us(window_of(key)) // 1000
                rows.append((None, Row(key, 0, used, 0, 0, expires_at_ms=expires_at_ms)))
        return rows

    async def _send(
        self,
        stage: Stage,
        rows: Sequence[Row] = (),
        draws: Sequence[Draw] = (),
        *,
        expected: Iterable[str] = (),
        gone: tuple[str, ...] = (),
        seeds: Sequence[SeedRow] = (),
    ) -> Answer:
        self._seq += 1
        ask = Ask(
            owner=self._owner.name,
            life=self._owner.life,
            seq=self._seq,
            acked=self._acked,
            generation=self._generation,
            fresh_generation=self._clock.new_id("gen"),
            stage=stage,
            rows=tuple(rows),
            draws=tuple(draws),
            peers=self._peers_told,
            is_first=not self._was_registered,
            expected=tuple({*expected, *(self.peers if self._store.is_shared else ())}),
            gone=gone,
            seeds=tuple(seeds),
        )
        self.exchanges += 1
        answer = await self._store.exchange(ask)
        if answer.status is Status.STALE:
            raise StoreAwayError(f"another process speaks for {self._owner.name}")
        self._acked = ask.seq
        self._learn_peers(answer)
        self._regain()
        return answer

    def _learn_peers(self, answer: Answer) -> None:
        """Remember who else there is; only a complete store can say that somebody is no more."""
        if answer.peers:
            self._peers_told = len(answer.peers)
            known = () if answer.status is Status.OPEN else self.peers
            self.peers = tuple(sorted({*known, *answer.peers}))

    def _begin_anew(self, answer: Answer) -> None:
        self._generation = answer.generation
        self._is_registered = False
        self._woken.set()

    def _note_state(self, answer: Answer) -> None:
        self._set_open(is_open=answer.status is Status.OPEN, missing=answer.missing)

    def _set_open(self, *, is_open: bool, missing: Sequence[str]) -> None:
        if self.is_open and not is_open:
            _LOG.warning("the store of counters is new; it waits for %s", ", ".join(missing))
        elif is_open and not self.is_open:
            _LOG.info("the store of counters is complete again")
        self.is_open = is_open

    def _lose(self, why: str) -> None:
        self._failures += 1
        if self._failures < AWAY_AFTER:
            self._woken.set()
        elif not self.is_away:
            self.is_away = True
            self._urgent.clear()
            _LOG.error("the store of counters is away: %s", why)
        if self._clock.monotonic_s() - self._last_ok_s > GAUGE_HOLD_S:
            for one in self._active.values():
                if one.measure == CONCURRENCY:  # its row may lapse before further calls end
                    one.avail = min(one.avail, 0)

    def _regain(self) -> None:
        self._failures = 0
        self._last_ok_s = self._clock.monotonic_s()
        if self.is_away:
            self.is_away = False
            _LOG.info("the store of counters is back")

    def _answer_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.future.done():
                self._judge(waiter)

    def _judge(self, waiter: _Waiter) -> None:
        """Tell a call that its slices can pay, or that one cannot; otherwise it waits on."""
        waited_s = self._clock.monotonic_s() - waiter.since_s
        must_wait = False
        for one in waiter.slices:
            is_news = one.heard > waiter.after
            lack = waiter.amounts[one.measure] - one.avail
            if lack > 0:
                denial = self._find_denial(one, lack, waited_s, is_news=is_news)
                if denial is not None:
                    waiter.tell(denial)
                    return
                must_wait = True
            elif waiter.amounts is NOTHING and not is_news and self.can_serve(one):
                must_wait = True
        if not must_wait:
            waiter.tell(None)

    def _find_denial(
        self, one: Slice, lack: int, waited_s: float, *, is_news: bool
    ) -> Denial | None:
        if not self.can_serve(one) or (not is_news and waited_s > LONGEST_WAIT_S):
            return Denial(Verdict.UNKNOWN, one, retry_s=1.0)
        if not is_news:
            return None
        left = one.left_elsewhere
        if waited_s < LONGEST_WAIT_S and lack <= left:
            self._woken.set()
            return None
        if waited_s < PATIENCE_S and lack <= left + one.spare_elsewhere:
            return None
        if waited_s < NEWS_S and lack <= left + one.held_elsewhere:
            return None
        retry_s = one.seconds_until(lack) if one.is_bucket else PATIENCE_S
        can_pay = one.avail + left + (0 if one.is_bucket else one.spare_elsewhere)
        return Denial(Verdict.DENIED, one, max(can_pay, 0), retry_s)


def _list_sown(seeds: Seeds) -> list[SeedRow]:
    return [
        SeedRow(key, owner, used, forget_at_us(window_of(key)) // 1000)
        for owner, totals in seeds.gone.items()
        for key, used in totals.items()
    ]
