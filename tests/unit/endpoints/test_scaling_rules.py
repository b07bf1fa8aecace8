"""How many replicas there shall be: what is asked, what is remembered, what may be set."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.endpoints.scaling_rules import (
    Asked,
    Running,
    ScalingState,
    check_scaling,
    decide,
    find_need,
)
from pilotage.endpoints.types import Scaling

S = 1_000_000
NOW_US = 1_700_000_000 * S
FOUR = Running(ready=1, slots=4)
SLEEPER = Scaling(min_replicas=0, max_replicas=3, idle_after_s=10, scale_down_delay_s=30)

scalings = st.builds(
    lambda least, more, target, delay, idle, wait, duty: Scaling(
        min_replicas=least,
        max_replicas=max(1, least + more),
        target_in_flight=target,
        scale_down_delay_s=delay,
        idle_after_s=idle,
        max_wait_ms=wait,
        target_duty_percent=duty,
    ),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, 4),
    st.integers(0, 20),
    st.integers(1, 20),
    st.sampled_from([0, 500]),
    st.sampled_from([0, 60]),
)
asks = st.builds(
    Asked,
    in_flight=st.integers(0, 30),
    waiting=st.integers(0, 10),
    oldest_wait_ms=st.integers(0, 2_000),
    calls=st.integers(0, 5),
)
seen = st.builds(
    Running,
    ready=st.integers(0, 8),
    slots=st.integers(1, 8),
    is_starting=st.booleans(),
    duty_percent=st.none() | st.integers(0, 100),
)


def asleep_after(scaling: Scaling, looks: Sequence[tuple[float, Asked]]) -> list[int]:
    """Return what is wanted at each look; times in seconds."""
    state, wanted = ScalingState(), []
    for at_s, asked in looks:
        state = decide(scaling, asked, FOUR, state, NOW_US + round(at_s * S))
        wanted.append(state.wanted)
    return wanted


@pytest.mark.parametrize(
    ("scaling", "asked", "running", "need"),
    [
        (Scaling(), Asked(), FOUR, 1),
        (Scaling(max_replicas=9), Asked(in_flight=4), FOUR, 1),
        (Scaling(max_replicas=9), Asked(in_flight=4, waiting=1), FOUR, 2),
        (Scaling(max_replicas=9, target_in_flight=1), Asked(in_flight=3), FOUR, 3),
        (Scaling(max_replicas=2, target_in_flight=1), Asked(in_flight=3), FOUR, 2),
        (Scaling(min_replicas=2, max_replicas=2), Asked(), FOUR, 2),
        (SLEEPER, Asked(), FOUR, 0),
        (SLEEPER, Asked(waiting=1), replace(FOUR, ready=0), 1),
        # one call that waits for long asks for one replica more than there is
        (Scaling(max_replicas=9, max_wait_ms=500), Asked(in_flight=1, oldest_wait_ms=500), FOUR, 1),
        (Scaling(max_replicas=9, max_wait_ms=500), Asked(in_flight=1, oldest_wait_ms=501), FOUR, 2),
        (Scaling(max_replicas=9), Asked(in_flight=1, oldest_wait_ms=9_999), FOUR, 1),
        (Scaling(max_replicas=9, max_wait_ms=500), Asked(oldest_wait_ms=501), FOUR, 1),
        # two GPUs at 90 % are three at 60 %; nobody's calls keep none busy
        (
            Scaling(max_replicas=9, target_duty_percent=60),
            Asked(in_flight=1),
            Running(ready=2, slots=4, duty_percent=90),
            3,
        ),
        (
            Scaling(max_replicas=9, target_duty_percent=60),
            Asked(),
            Running(ready=2, slots=4, duty_percent=90),
            1,
        ),
    ],
)
def test_what_is_asked_says_how_many_are_needed(
    scaling: Scaling, asked: Asked, running: Running, need: int
) -> None:
    assert find_need(scaling, asked, running) == need


def test_more_come_at_once_and_fewer_when_nothing_needed_them_for_the_delay() -> None:
    scaling = Scaling(max_replicas=4, scale_down_delay_s=60)
    burst, quiet = Asked(in_flight=16), Asked(in_flight=5)
    looks = [(0, quiet), (1, burst), (2, Asked()), (60, quiet), (61, Asked()), (119, Asked())]
    assert asleep_after(scaling, looks) == [2, 4, 4, 4, 2, 2]
    assert asleep_after(scaling, [*looks, (120, Asked()), (121, Asked())])[-2:] == [1, 1]


def test_a_sleeper_wakes_with_a_call_and_sleeps_when_it_had_none_for_its_time() -> None:
    looks = [
        (0.0, Asked()),
        (1.0, Asked(waiting=1)),
        (2.0, Asked(in_flight=1, calls=1)),
        (3.0, Asked(calls=1)),
        (11.0, Asked(calls=2)),  # one that began and ended between two looks
        (20.9, Asked(calls=2)),
        (21.0, Asked(calls=2)),
        (22.0, Asked(calls=0)),  # a gateway left
        (23.0, Asked(calls=3)),  # a gateway came with calls of before: nobody waits
    ]
    assert asleep_after(SLEEPER, looks) == [0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_a_burst_that_is_over_ends_with_sleep_however_long_the_delay() -> None:
    looks = [(0.0, Asked(waiting=12)), (1.0, Asked()), (9.0, Asked()), (10.0, Asked())]
    assert asleep_after(SLEEPER, looks) == [3, 3, 3, 0]


def test_a_sleeper_stays_awake_until_it_was_told_to_and_while_it_starts() -> None:
    told = decide(SLEEPER, Asked(), FOUR, ScalingState(), NOW_US, awake_until_us=NOW_US + 1)
    assert told.wanted == 1
    assert decide(SLEEPER, Asked(), FOUR, told, NOW_US + 1, NOW_US + 1).wanted == 0
    starting = replace(FOUR, ready=0, is_starting=True)
    later = decide(SLEEPER, Asked(), starting, told, NOW_US + 60 * S)
    assert later.wanted == 1
    assert decide(SLEEPER, Asked(), FOUR, later, NOW_US + 69 * S).wanted == 1
    assert decide(SLEEPER, Asked(), FOUR, later, NOW_US + 70 * S).wanted == 0
    assert decide(SLEEPER, Asked(), starting, ScalingState(), NOW_US).wanted == 0


@given(scaling=scalings, looks=st.lists(st.tuples(st.integers(0, 5 * S), asks, seen), max_size=30))
def test_decisions_stay_within_bounds_and_follow_need_and_memory(
    scaling: Scaling, looks: list[tuple[int, Asked, Running]]
) -> None:
    state, now_us, needs = ScalingState(), NOW_US, []
    for pause_us, asked, running in looks:
        now_us += pause_us
        before, state = state, decide(scaling, asked, running, state, now_us)
        assert scaling.min_replicas <= state.wanted <= scaling.max_replicas
        need = find_need(scaling, asked, running)
        assert state.wanted >= need
        if asked.load:
            assert state.wanted >= 1
        needs.append((now_us, max(need, 1)))
        if state.wanted > 1:  # somebody needed that many within the delay
            since_us = now_us - scaling.scale_down_delay_s * S
            assert state.wanted == max(n for at, n in needs if at > since_us or at == now_us)
        if state.wanted == 0:
            assert scaling.can_sleep
            assert before.wanted == 0 or now_us - state.busy_at_us >= scaling.idle_after_s * S
            needs.clear()  # nothing of before is remembered
        assert [at for at, _ in state.peaks] == sorted(at for at, _ in state.peaks)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"min_replicas": -1}, "min_replicas"),
        ({"min_replicas": 2}, "min_replicas"),
        ({"max_replicas": 0}, "max_replicas"),
        ({"max_replicas": 65}, "max_replicas"),
        ({"target_in_flight": -1}, "target_in_flight"),
        ({"max_wait_ms": 3_600_001}, "max_wait_ms"),
        ({"target_duty_percent": 101}, "target_duty_percent"),
        ({"scale_down_delay_s": -1}, "scale_down_delay_s"),
        ({"idle_after_s": 0}, "idle_after_s"),
        ({"memory_bytes": 4096}, "memory_bytes"),
        ({"cpu_cores": -1}, "cpu_cores"),
        ({"threads": 1025}, "threads"),
        ({"slots": 257}, "slots"),
        ({"context_tokens": 63}, "context_tokens"),
    ],
)
def test_settings_out_of_bounds_are_named(change: dict[str, int], param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_scaling(msgspec.structs.replace(Scaling(), **change))
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_settings_within_bounds_are_taken_as_they_are() -> None:
    scaling = Scaling(min_replicas=0, max_replicas=64, memory_bytes=1 << 30, cpu_cores=2, slots=1)
    assert check_scaling(scaling) is scaling
    assert check_scaling(Scaling()) == Scaling()
