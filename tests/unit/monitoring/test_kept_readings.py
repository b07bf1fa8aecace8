"""Readings that several rules share: how long they stand, and what is forgotten."""

import pytest

from pilotage.kit.clock import ManualClock
from pilotage.monitoring.alerts.kept import Kept


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
        await kept.read("window", 1.0, meter.read)
        clock.advance(1)

    assert meter.reads == reads


async def test_a_reading_is_of_its_key_and_is_forgotten_in_time() -> None:
    clock = ManualClock()
    kept, meter = Kept(clock), Meter(clock, 0)

    assert [await kept.read(key, 60, meter.read) for key in ("a", "b", "a")] == [1, 2, 1]
    clock.advance(1000)
    assert await kept.read("b", 60, meter.read) == 3
    clock.advance(-990)

    assert await kept.read("a", 60, meter.read) == 4


async def test_a_reading_that_fails_is_not_kept() -> None:
    kept, meter = Kept(ManualClock()), Meter(ManualClock(), 0)

    async def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await kept.read("a", 60, fail)
    assert await kept.read("a", 60, meter.read) == 1
