"""Readings that several rules share: how long they stand, and what is forgotten."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.kit.clock import ManualClock
from pilotage.monitoring.alerts.kept import MOST_OF_PROJECT, Kept, find_level


class Meter:
    """Something that takes a while to read."""

    def __init__(self, clock: ManualClock, takes_s: float) -> None:
        self.reads = 0
        self._clock = clock
        self._takes_s = takes_s

    async def read(self) -> int:
        self._clock.advance(self._takes_s)
        self.reads += 1
        return self.reads


@pytest.mark.parametrize(("takes_s", "reads"), [(0.0, 60), (0.1, 55), (3.0, 2), (10.0, 1)])
async def test_what_takes_long_is_read_so_rarely_that_it_takes_a_tenth_of_the_time(
    takes_s: float, reads: int
) -> None:
    clock = ManualClock()
    kept, meter = Kept(clock), Meter(clock, takes_s)

    while clock.monotonic_s() < 60:
        await kept.read(None, "window", 1.0, meter.read)
        clock.advance(1)

    assert meter.reads == reads


async def test_a_reading_is_of_its_key_and_is_forgotten_in_time() -> None:
    clock = ManualClock()
    kept, meter = Kept(clock), Meter(clock, 0)

    assert [await kept.read(None, key, 60, meter.read) for key in ("a", "b", "a")] == [1, 2, 1]
    clock.advance(1000)
    assert await kept.read(None, "b", 60, meter.read) == 3
    clock.advance(-990)

    assert await kept.read(None, "a", 60, meter.read) == 4


async def test_what_takes_little_is_read_as_often_beside_what_takes_much() -> None:
    """Read a cheap window beside ten dear ones: all take their tenth, the cheap one no less."""
    clock = ManualClock()
    kept, cheap, dear = Kept(clock), Meter(clock, 0.001), Meter(clock, 2)
    began_s = clock.monotonic_s()

    while clock.monotonic_s() - began_s < 3000:
        await kept.read(None, "cheap", 1.0, cheap.read)
        for number in range(10):
            await kept.read(None, number, 60.0, dear.read)
        clock.advance(1)

    assert cheap.reads > 2500
    assert 110 <= dear.reads <= 150  # two seconds each, in 3000 s


async def test_several_who_ask_at_once_read_once_and_again_after_a_failure() -> None:
    clock = ManualClock()
    kept = Kept(clock)
    reads = 0
    may_end = asyncio.Event()

    async def read() -> int:
        nonlocal reads
        reads += 1
        await may_end.wait()
        if reads == 1:
            raise OSError("gone")
        return reads

    asking = [asyncio.ensure_future(kept.read(None, "a", 60, read)) for _ in range(3)]
    await asyncio.sleep(0)
    may_end.set()

    first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, OSError)
    assert others == [2, 2]


async def test_for_a_project_only_so_many_readings_are_kept() -> None:
    clock = ManualClock()
    kept, meter = Kept(clock), Meter(clock, 0)
    for number in range(MOST_OF_PROJECT + 1):
        await kept.read("prj_1", number, 60, meter.read)
        await kept.read("prj_2", "a", 60, meter.read)
        clock.advance(0.1)

    reads = meter.reads
    await kept.read("prj_1", MOST_OF_PROJECT, 60, meter.read)
    await kept.read("prj_2", "a", 60, meter.read)
    assert meter.reads == reads
    await kept.read("prj_1", 0, 60, meter.read)
    assert meter.reads == reads + 1


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0.01, 1))
def test_readings_fit_into_their_share_and_none_is_cut_that_takes_less(
    loads: list[float], share: float
) -> None:
    level = find_level(loads, share)

    assert 0 < level <= share
    given_ = [min(load, level) for load in loads]
    assert sum(given_) <= share * (1 + 1e-9)
    if sum(loads) > share * (1 + 1e-9):
        assert sum(given_) == pytest.approx(share)
    else:
        assert given_ == pytest.approx(loads)


async def test_a_reading_that_fails_is_not_kept() -> None:
    kept, meter = Kept(ManualClock()), Meter(ManualClock(), 0)

    async def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await kept.read(None, "a", 60, fail)
    assert await kept.read(None, "a", 60, meter.read) == 1
