"""Owners that reserve, settle, crash, lose words and come back, against one set of books.

Whatever happens: what was used and what is reserved, by an account of its own, never exceeds a
cap; a refusal is never false; and in the end everything that was held can be used.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from counted_limits import FaultyStore, drive, make_limit, open_limits
from made_calls import make_view
from pilotage.gateway.counters.exchanger import Denial, Verdict
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.matching import Subject
from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.counters.rules import Books
from pilotage.gateway.counters.slices import Slice
from pilotage.kit.clock import ManualClock

COST_CAP, TOKEN_CAP = 1000, 700
CAPS = {"lim_c|cost|total": COST_CAP, "lim_t|tokens|total": TOKEN_CAP}
VIEW = make_view(
    limits=[
        make_limit("lim_c", amount=COST_CAP),
        make_limit("lim_t", measure="tokens", amount=TOKEN_CAP),
    ]
)
SUBJECT = Subject("prj_1", "ten_1", "key_1", "chat", "")
owners = st.integers(0, 2)
costs, tokens = st.integers(0, 250), st.integers(0, 180)


class Owner:
    """One gateway: its limits, and by an account of its own what ended and what is open."""

    def __init__(self, machine: "Budgets", name: str) -> None:
        self.machine = machine
        self.name = name
        self.life = 0
        self.ended = dict.fromkeys(CAPS, 0)
        self.open: list[list[int]] = []
        self.limits: Limits
        self.slices: Sequence[Slice]
        self.start()

    def start(self) -> None:
        """Start a process, with what recovery finds in the spool: open calls at their worst."""
        peers = self.limits.exchanger.peers if self.life else ()
        for amounts in self.open:
            self.charge(amounts)
        self.open = []
        self.life += 1
        machine = self.machine
        self.limits = open_limits(
            machine.store,
            machine.clock,
            machine.folder / self.name,
            owner=self.name,
            life=self.life,
            totals={key: used for key, used in self.ended.items() if used},
            peers=peers,
        )
        self.limits._turn_to(VIEW)
        bundle = self.limits._bind(SUBJECT, "UTC", machine.clock.now_us())
        self.slices = sorted(bundle.slices, key=lambda one: one.key)

    def charge(self, amounts: Sequence[int]) -> None:
        for key, amount in zip(CAPS, amounts, strict=False):
            self.ended[key] += amount

    def authority(self, key: str) -> int:
        """Return what this process believes it used or may use."""
        one = self.limits.exchanger.slices[key]
        return one.used + one.reserved + one.avail


class Budgets(RuleBasedStateMachine):
    """Three owners over books in memory, with a store between that loses words."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self.scratch.name)
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.store = FaultyStore(self.memory)
        self.owners = [Owner(self, f"gateway-{n}:e") for n in range(3)]
        self.has_overrun = False
        for _ in range(3):
            self.let_all_speak()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.end()
            finally:
                self.loop.close()
                self.scratch.cleanup()

    def run(self, work: Any) -> Any:  # noqa: ANN401
        return self.loop.run_until_complete(work)

    def let_all_speak(self) -> None:
        self.clock.advance(0.11)
        for owner in self.owners:
            self.run(owner.limits.exchanger.turn())

    @rule(who=owners, cost=costs, count=tokens)
    def reserve(self, who: int, cost: int, count: int) -> None:
        owner, amounts = self.owners[who], [cost, count, 1, 1]
        is_whole = not (self.store.loses_asks or self.store.loses_answers or self.store.is_down)
        speaking = [each.limits for each in self.owners]

        async def take() -> Denial | None:
            return await drive(owner.limits.reserve(owner.slices, amounts), self.clock, *speaking)

        denial: Denial | None = self.run(take())
        if denial is None:
            owner.open.append(amounts)
        elif denial.verdict is Verdict.DENIED and is_whole:
            used = [self.truth(key) for key in CAPS]
            assert used[0] + cost > COST_CAP or used[1] + count > TOKEN_CAP, "a false refusal"

    @rule(who=owners, data=st.data())
    def settle(self, who: int, data: st.DataObject) -> None:
        owner = self.owners[who]
        if not owner.open:
            return
        amounts = owner.open.pop(data.draw(st.integers(0, len(owner.open) - 1), "which"))
        actual = [data.draw(st.integers(0, amount), "came to") for amount in amounts[:2]]
        owner.limits.exchanger.settle(owner.slices, amounts, [*actual, 1, 0])
        owner.charge(actual)

    @rule(who=owners)
    def cancel_a_wait(self, who: int) -> None:
        """A call that waits for the store leaves; what was granted for it is not lost."""
        owner = self.owners[who]

        async def leave() -> None:
            waiting = asyncio.ensure_future(owner.limits.reserve(owner.slices, [99, 99, 1, 1]))
            await asyncio.sleep(0)
            if not waiting.done():
                await owner.limits.exchanger.turn()
                waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            if not waiting.cancelled() and waiting.result() is None:
                owner.open.append([99, 99, 1, 1])

        self.run(leave())

    @rule(who=owners)
    def speak(self, who: int) -> None:
        self.clock.advance(0.11)
        self.run(self.owners[who].limits.exchanger.turn())

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.5]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(who=owners)
    def crash(self, who: int) -> None:
        self.owners[who].start()

    @rule(asks=st.integers(0, 2), answers=st.integers(0, 2))
    def lose_words(self, asks: int, answers: int) -> None:
        self.store.loses_asks, self.store.loses_answers = asks, answers

    @rule()
    def deliver_late(self) -> None:
        kept, self.store.kept = self.store.kept, []
        for ask in reversed(kept):
            self.run(self.memory.exchange(ask))

    @rule(is_down=st.booleans())
    def take_away(self, is_down: bool) -> None:
        self.store.is_down = is_down

    @precondition(lambda self: all(len(o.limits.exchanger.peers) == 3 for o in self.owners))
    @rule()
    def forget_everything(self) -> None:
        self.memory.books = Books()

    def truth(self, key: str) -> int:
        place = list(CAPS).index(key)
        return sum(
            owner.ended[key] + sum(amounts[place] for amounts in owner.open)
            for owner in self.owners
        )

    @invariant()
    def nothing_exceeds_a_cap(self) -> None:
        for key, cap in CAPS.items():
            assert self.truth(key) <= cap
            assert sum(owner.authority(key) for owner in self.owners) <= cap

    @invariant()
    def owners_agree_with_their_spools(self) -> None:
        for owner in self.owners:
            for key in CAPS:
                one = owner.limits.exchanger.slices[key]
                assert one.used == owner.ended[key]
                assert one.avail >= 0

    @invariant()
    def books_add_up(self) -> None:
        for counter in self.memory.books.counters.values():
            rows = counter.rows.values()
            assert counter.used == sum(row[0] for row in rows)
            assert counter.held == sum(row[1] for row in rows)
            assert counter.spare == sum(row[2] for row in rows) >= 0

    def end(self) -> None:
        """At rest nothing is held, and all that is left can be used."""
        self.store.is_down = False
        self.store.loses_asks = self.store.loses_answers = 0
        for owner in self.owners:
            for amounts in owner.open:
                owner.limits.exchanger.settle(owner.slices, amounts, [0, 0, 0, 0])
            owner.open = []
        for _ in range(20):
            self.clock.advance(1.5)
            self.let_all_speak()
        for key, cap in CAPS.items():
            counter = self.memory.books.counters.get(key)
            assert (counter.held if counter else 0) == 0, counter
            assert (counter.used if counter else 0) == self.truth(key) <= cap
        left = [cap - self.truth(key) for key, cap in CAPS.items()]
        self.reserve(0, *left)
        assert self.owners[0].open == [[*left, 1, 1]]


Budgets.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestBudgets = Budgets.TestCase
