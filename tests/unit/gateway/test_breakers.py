"""Breakers open on what failed, let one call find out, and forget who is gone."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pilotage.core.errors import PilotageError
from pilotage.gateway.routing.breakers import (
    FAILURES_IN_ROW,
    FAILURES_IN_WINDOW,
    FIRST_OPEN_S,
    FORGET_S,
    LONGEST_HOLD_S,
    LONGEST_OPEN_S,
    MOST_TARGETS,
    WINDOW,
    WINDOW_S,
    Breakers,
)
from pilotage.kit.clock import ManualClock

TARGET = "upm_1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breakers(clock: ManualClock) -> Breakers:
    return Breakers(clock)


def fail(breakers: Breakers, times: int = 1, target: str = TARGET) -> None:
    for _ in range(times):
        breakers.fail(target, "upstream_error")


def state(breakers: Breakers) -> str:
    return next((each.state for each in breakers.list_states() if each.target == TARGET), "")


def refusal(breakers: Breakers) -> PilotageError:
    with pytest.raises(PilotageError) as caught:
        breakers.admit(TARGET)
    return caught.value


def test_a_target_without_failures_has_no_entry(breakers: Breakers) -> None:
    assert breakers.admit(TARGET) is False
    breakers.succeed(TARGET)
    assert breakers.troubled == {}


def test_failures_in_a_row_open_it(breakers: Breakers) -> None:
    fail(breakers, FAILURES_IN_ROW - 1)
    assert (state(breakers), breakers.admit(TARGET)) == ("closed", False)
    fail(breakers)
    assert state(breakers) == "open"
    assert refusal(breakers).code == "breaker_open"
    assert refusal(breakers).retry_after_s == FIRST_OPEN_S
    assert breakers.opened_total == 1


def test_a_success_between_keeps_it_closed_until_half_of_the_window_failed(
    breakers: Breakers,
) -> None:
    for _ in range(FAILURES_IN_WINDOW - 1):
        fail(breakers)
        breakers.succeed(TARGET)
    assert state(breakers) == "closed"
    fail(breakers)
    assert state(breakers) == "open"


def test_successes_push_failures_out_of_the_window(breakers: Breakers) -> None:
    fail(breakers, FAILURES_IN_ROW - 1)
    for _ in range(WINDOW):
        breakers.succeed(TARGET)
    assert breakers.troubled == {}


def test_old_failures_do_not_add_up(breakers: Breakers, clock: ManualClock) -> None:
    for _ in range(3 * FAILURES_IN_ROW):
        fail(breakers)
        clock.advance(WINDOW_S + 1)
    assert state(breakers) == "closed"


def test_one_call_finds_out_that_it_works_again(breakers: Breakers, clock: ManualClock) -> None:
    fail(breakers, FAILURES_IN_ROW)
    clock.advance(FIRST_OPEN_S)
    assert breakers.admit(TARGET) is True
    assert state(breakers) == "half_open"
    assert refusal(breakers).code == "breaker_open"  # one probe at a time
    breakers.succeed(TARGET, is_probe=True)
    assert breakers.admit(TARGET) is False
    assert breakers.troubled == {}


def test_each_failed_probe_doubles_the_wait_up_to_a_cap(
    breakers: Breakers, clock: ManualClock
) -> None:
    fail(breakers, FAILURES_IN_ROW)
    waits = [FIRST_OPEN_S]
    for _ in range(8):
        clock.advance(waits[-1])
        assert breakers.admit(TARGET) is True
        breakers.fail(TARGET, "upstream_stall", is_probe=True)
        waits.append(refusal(breakers).retry_after_s or 0.0)
    assert waits == [min(2.0**n, LONGEST_OPEN_S) for n in range(9)]


def test_a_probe_that_found_nothing_out_gives_its_place_to_the_next(
    breakers: Breakers, clock: ManualClock
) -> None:
    fail(breakers, FAILURES_IN_ROW)
    clock.advance(FIRST_OPEN_S)
    assert breakers.admit(TARGET) is True
    breakers.release(TARGET)
    assert breakers.admit(TARGET) is True


def test_calls_under_way_when_it_opened_change_nothing(breakers: Breakers) -> None:
    fail(breakers, FAILURES_IN_ROW)
    breakers.succeed(TARGET)
    fail(breakers, 10)
    assert refusal(breakers).retry_after_s == FIRST_OPEN_S
    assert breakers.opened_total == 1


def test_a_target_rests_as_long_as_it_asked_for_within_reason(
    breakers: Breakers, clock: ManualClock
) -> None:
    breakers.hold(TARGET, 5.0)
    assert state(breakers) == "held"
    assert (refusal(breakers).code, refusal(breakers).retry_after_s) == ("upstream_overloaded", 5.0)
    clock.advance(5.0)
    assert breakers.admit(TARGET) is False
    breakers.succeed(TARGET)
    assert breakers.troubled == {}
    breakers.hold(TARGET, 1e6)
    assert refusal(breakers).retry_after_s == LONGEST_HOLD_S
    assert breakers.opened_total == 0


def test_resting_does_not_shorten_an_open_breaker(breakers: Breakers) -> None:
    fail(breakers, FAILURES_IN_ROW)
    breakers.hold(TARGET, 20.0)
    assert refusal(breakers).retry_after_s == FIRST_OPEN_S


def test_targets_are_apart_and_those_that_are_gone_are_forgotten(
    breakers: Breakers, clock: ManualClock
) -> None:
    fail(breakers, FAILURES_IN_ROW, "upm_old")
    clock.advance(FORGET_S + 1)
    fail(breakers)
    assert [each.target for each in breakers.list_states()] == [TARGET]
    assert breakers.admit("upm_old") is False


def test_a_target_that_is_gone_leaves_nothing_to_what_comes_by_its_name(
    breakers: Breakers,
) -> None:
    fail(breakers, FAILURES_IN_ROW)
    breakers.forget(TARGET)
    breakers.forget("dep_never")
    assert breakers.admit(TARGET) is False


def test_memory_is_bounded(breakers: Breakers, clock: ManualClock) -> None:
    for n in range(MOST_TARGETS + 5):
        clock.advance(0.001)
        fail(breakers, target=f"dep_{n}")
    assert len(breakers.troubled) == MOST_TARGETS
    assert "dep_4" not in breakers.troubled


def test_each_change_is_one_line_in_the_log(
    breakers: Breakers, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pilotage.gateway"):
        fail(breakers, FAILURES_IN_ROW + 20)
        refusal(breakers)
        clock.advance(FIRST_OPEN_S)
        breakers.admit(TARGET)
        breakers.succeed(TARGET, is_probe=True)
    assert [record.getMessage() for record in caplog.records] == [
        "breaker of upm_1: open, was closed for 1 s after upstream_error",
        "breaker of upm_1: half_open, was open",
        "breaker of upm_1: closed, was half_open",
    ]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to a target, one probe runs at most, and it is not left alone for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.breakers = Breakers(self.clock)
        self.probes = 0
        self.calls = 0
        self.told_s = 1.0

    @rule()
    def begin(self) -> None:
        is_resting = self.breakers.is_resting(TARGET)
        try:
            is_probe = self.breakers.admit(TARGET)
        except PilotageError as refused:
            assert is_resting
            self.told_s = refused.retry_after_s or 0.0
            return
        assert not is_resting
        self.probes += is_probe
        self.calls += not is_probe

    @rule(outcome=st.sampled_from(["ok", "failed", "nothing"]), probe=st.booleans())
    def end(self, outcome: str, probe: bool) -> None:
        if not (self.probes if probe else self.calls):
            return
        if probe:
            self.probes -= 1
        else:
            self.calls -= 1
        if outcome == "ok":
            self.breakers.succeed(TARGET, is_probe=probe)
        elif outcome == "failed":
            self.breakers.fail(TARGET, "upstream_error", is_probe=probe)
        elif probe:
            self.breakers.release(TARGET)

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(1, 100))
    def rest(self, seconds: float) -> None:
        self.breakers.hold(TARGET, seconds)

    @invariant()
    def who_is_refused_hears_for_how_long(self) -> None:
        assert 0 < self.told_s <= LONGEST_OPEN_S

    @invariant()
    def one_probe(self) -> None:
        assert self.probes <= 1

    @invariant()
    def nobody_is_left_alone_for_long(self) -> None:
        longest_s = max(LONGEST_OPEN_S, LONGEST_HOLD_S)
        assert all(each.left_s <= longest_s for each in self.breakers.list_states())


TestAnyHistory = AnyHistory.TestCase


@given(st.lists(st.booleans(), max_size=200))
def test_a_target_that_fails_less_than_half_and_never_in_a_row_stays_closed(
    wishes: list[bool],
) -> None:
    breakers, streak, last = Breakers(ManualClock()), 0, [False] * WINDOW
    for wish in wishes:
        fails = wish and streak < FAILURES_IN_ROW - 1 and sum(last[1:]) < FAILURES_IN_WINDOW - 1
        streak = streak + 1 if fails else 0
        last = [*last[1:], fails]
        assert breakers.admit(TARGET) is False
        if fails:
            fail(breakers)
        else:
            breakers.succeed(TARGET)
    assert breakers.opened_total == 0
