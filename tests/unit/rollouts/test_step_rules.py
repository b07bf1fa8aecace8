"""What a rollout does next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.rollouts.step_rules import (
    explain,
    go_on,
    leave_out_unseen,
    next_move,
    roll_back,
)
from pilotage.rollouts.types import (
    Cause,
    Gate,
    GateKind,
    Judgement,
    Plan,
    Progress,
    Readiness,
    Signal,
    State,
    Step,
    Strategy,
    Verdict,
)

MINUTE = 60_000_000
GATE = Gate(name="error", signal=Signal.ERROR, kind=GateKind.EVENTS, margin=1.0)
PLAN = Plan(
    strategy=Strategy.CANARY,
    steps=(Step(weight=500), Step(weight=5_000, needs_person=True)),
    gates=(GATE,),
    ready_us=10 * MINUTE,
    keep_us=5 * MINUTE,
)
PROMOTE = Judgement(verdict=Verdict.PROMOTE, cause=Cause.EVIDENCE, gates=("error",))
WORSE = Judgement(verdict=Verdict.ROLL_BACK, cause=Cause.EVIDENCE, gates=("error",))
COLLECTING = Judgement(verdict=Verdict.HOLD, cause=Cause.COLLECTING)
OVER = Judgement(verdict=Verdict.HOLD, cause=Cause.OUT_OF_TIME)
FIRST = Progress(state=State.RUNNING, step=0, since_us=MINUTE, began_us=MINUTE)
LAST = Progress(state=State.RUNNING, step=1, since_us=MINUTE, began_us=MINUTE)
READY, FAILED = Readiness.READY, Readiness.FAILED


def test_no_traffic_moves_before_the_candidate_is_ready() -> None:
    begun = Progress()
    assert next_move(PLAN, begun, Readiness.STARTING, None, MINUTE) is None
    move = next_move(PLAN, begun, READY, None, MINUTE)
    assert move is not None
    assert (move.progress, move.weight) == (FIRST, 500)


@pytest.mark.parametrize("seen", [Readiness.STARTING, FAILED])
def test_a_candidate_that_does_not_get_ready_ends_the_rollout(seen: Readiness) -> None:
    move = next_move(PLAN, Progress(), seen, None, 10 * MINUTE)
    assert move is not None
    assert move.progress.state is State.FAILED
    assert move.weight is None


def test_a_step_follows_when_the_gates_say_so_or_a_person() -> None:
    move = next_move(PLAN, FIRST, READY, PROMOTE, 2 * MINUTE)
    assert move is not None
    assert (move.progress.step, move.weight) == (1, 5_000)
    held = next_move(PLAN, LAST, READY, PROMOTE, 2 * MINUTE)
    assert held is not None
    assert (held.progress.state, held.weight) == (State.HELD, None)
    assert held.progress.has_passed
    assert next_move(PLAN, held.progress, READY, PROMOTE, 3 * MINUTE) is None
    assert go_on(PLAN, held.progress, 3 * MINUTE, "Ada agrees").weight == FULL_WEIGHT


def test_the_baseline_is_kept_warm_behind_the_last_step_and_one_can_go_back() -> None:
    kept = go_on(PLAN, LAST, MINUTE, "").progress
    assert (kept.state, kept.step) == (State.KEEPING, 2)  # no step whose coin would be another one
    assert next_move(PLAN, kept, READY, COLLECTING, 5 * MINUTE) is None
    ended = next_move(PLAN, kept, READY, None, 6 * MINUTE)
    assert ended is not None
    assert ended.progress.has_ended
    for seen, judged in ((FAILED, None), (READY, WORSE)):
        back = next_move(PLAN, kept, seen, judged, 2 * MINUTE)
        assert back is not None
        assert (back.progress.state, back.weight) == (State.ROLLED_BACK, 0)
    assert go_on(replace(PLAN, keep_us=0), LAST, MINUTE, "").progress.state is State.PROMOTED


@pytest.mark.parametrize("state", [State.RUNNING, State.HELD])
def test_what_is_worse_goes_back_though_it_was_held(state: State) -> None:
    now = replace(FIRST, state=state)
    for seen, judged in ((READY, WORSE), (FAILED, None), (FAILED, PROMOTE)):
        move = next_move(PLAN, now, seen, judged, 2 * MINUTE)
        assert move is not None
        assert (move.progress.state, move.weight) == (State.ROLLED_BACK, 0)
    assert next_move(PLAN, now, READY, None, 2 * MINUTE) is None


def test_a_step_without_an_answer_is_held() -> None:
    assert next_move(PLAN, FIRST, READY, COLLECTING, 2 * MINUTE) is None
    move = next_move(PLAN, FIRST, READY, OVER, 2 * MINUTE)
    assert move is not None
    assert (move.progress.state, move.weight) == (State.HELD, None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Readiness),
            st.sampled_from([None, PROMOTE, WORSE, COLLECTING, OVER]),
            st.integers(0, 4 * MINUTE),
        ),
        max_size=40,
    )
)
def test_weights_only_rise_until_all_goes_back_and_nothing_follows_an_end(
    events: list[tuple[Readiness, Judgement | None, int]],
) -> None:
    now, weight, now_us = Progress(), 0, 0
    for seen, judged, later_us in events:
        now_us += later_us
        move = next_move(PLAN, now, seen, judged, now_us)
        if move is None:
            continue
        assert not now.has_ended
        assert move.reason
        assert move.progress != now
        if move.weight is not None:
            assert move.weight > weight or move.progress.state is State.ROLLED_BACK
            weight = move.weight
        now = move.progress
        assert (now.state is State.ROLLED_BACK) <= (weight == 0)
        assert (now.state in (State.PROMOTED, State.KEEPING)) <= (weight == FULL_WEIGHT)


def test_time_that_nobody_has_looked_at_is_left_out() -> None:
    # it has stood for a minute, was looked at for another, and then for three by nobody
    for state, since_us, began_us in (
        (State.RUNNING, 4 * MINUTE, 4 * MINUTE),
        (State.HELD, 4 * MINUTE, 4 * MINUTE),
        (State.KEEPING, MINUTE, MINUTE),  # the wall clock's hour
        (State.PREPARING, 5 * MINUTE, MINUTE),  # what gets ready begins anew
    ):
        after = leave_out_unseen(replace(FIRST, state=state), 2 * MINUTE, 5 * MINUTE)
        assert (after.since_us, after.began_us) == (since_us, began_us)


@given(
    st.sampled_from(State),
    st.integers(0, 9 * MINUTE),
    st.integers(0, 9 * MINUTE),
    st.integers(0, 9 * MINUTE),
)
def test_what_is_looked_at_loses_no_time_and_nothing_waits_for_a_time_to_come(
    state: State, since_us: int, seen_until_us: int, later_us: int
) -> None:
    now_us = since_us + later_us
    now = replace(FIRST, state=state, since_us=since_us)
    after = leave_out_unseen(now, seen_until_us, now_us)
    assert since_us <= after.since_us <= now_us
    if seen_until_us >= now_us:
        assert after == now


def test_every_cause_has_its_words() -> None:
    for cause in Cause:
        assert explain(Judgement(verdict=Verdict.HOLD, cause=cause, gates=("error",)))
    assert roll_back(FIRST, MINUTE, "why").reason == "why"
