"""Rates: a bucket with slices admits what a simple bucket would, and never much more.

What one owner draws it uses within a tick or hands back, so over any time T no more than
amount + amount/60 * (T + what is drawn ahead) is admitted.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted_limits import drive, make_limit, open_limits
from made_calls import make_view
from pilotage.gateway.counters.matching import Subject
from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.counters.rules import UNITS, decide_grant, refill
from pilotage.kit.clock import ManualClock


class SimpleBucket:
    """The reference: one float, one place."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.level = float(amount)

    def pass_time(self, seconds: float) -> None:
        self.level = min(self.amount, self.level + seconds * self.amount / 60)

    def take(self, count: int) -> bool:
        if self.level + 1e-9 < count:
            return False
        self.level -= count
        return True


@settings(max_examples=60)
@given(
    amount=st.integers(1, 600),
    events=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 40)), max_size=60),
)
async def test_one_owner_admits_what_a_simple_bucket_admits(
    amount: int, events: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = ManualClock()
    limits = open_limits(MemoryStore(clock), clock, tmp_path_factory.mktemp("spool"))
    limits._turn_to(make_view(limits=[make_limit(measure="tokens", amount=amount, per="minute")]))
    slices = limits._bind(Subject("prj_1", "t", "k", "a", ""), "UTC", 0).slices
    await limits.exchanger.turn()
    simple = SimpleBucket(amount)
    for pause_ms, count in events:
        clock.advance(pause_ms / 1000)
        simple.pass_time(pause_ms / 1000)
        level = simple.level
        admitted = await drive(limits.reserve(slices, [0, count, 1, 1]), clock, limits, step_s=0.0)
        if abs(level - count) < 0.01:  # the last fraction of a token is anybody's
            simple.level -= count if admitted is None else 0
            continue
        assert (admitted is None) == simple.take(count)
        if admitted is None:
            limits.exchanger.settle(slices, [0, count, 1, 1], [0, count, 1, 0])


@given(
    st.integers(-(10**6), 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_grant_is_never_more_than_is_free(free: int, least: int, more: int, stock: int) -> None:
    need = least + more if least else 0
    want = need + stock
    granted = decide_grant(free, least, need, want)
    assert 0 <= granted <= max(free, 0)
    assert granted <= want
    if free >= need > 0:
        assert granted >= need
    if granted > 0:
        assert granted >= min(least, need)


@given(st.integers(0, 10**9), st.integers(-100_000, 200_000), st.integers(0, 10**9))
def test_a_bucket_refills_by_its_amount_in_a_minute(
    amount: int, passed_ms: int, level: int
) -> None:
    level = min(level, amount) * UNITS
    now = refill(level, 500_000, amount, 500_000 + passed_ms)
    assert level <= now <= amount * UNITS
    if passed_ms >= 60_000:
        assert now == amount * UNITS
    elif passed_ms <= 0:
        assert now == level


async def test_two_owners_share_a_rate_without_losing_any(tmp_path: Path) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    owners = [open_limits(store, clock, tmp_path / name, owner=name) for name in ("a", "b")]
    view = make_view(limits=[make_limit(measure="requests", amount=600, per="minute")])
    admitted = 0
    for one in owners:
        one._turn_to(view)
        await one.exchanger.turn()
    slices = [one._bind(Subject("prj_1", "t", "k", "a", ""), "UTC", 0).slices for one in owners]
    for _ in range(1200):  # a minute of 50 ms steps, three calls a step: 60 calls a second
        clock.advance(0.05)
        for number in range(3):
            one, own = owners[number % 2], slices[number % 2]
            denial = await drive(one.reserve(own, (0, 0, 1, 1)), clock, *owners, step_s=0.0)
            if denial is None:
                admitted += 1
                one.exchanger.settle(own, (0, 0, 1, 1), (0, 0, 1, 0))
    assert 600 + 600 - 15 <= admitted <= 600 + 600
