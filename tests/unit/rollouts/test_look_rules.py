"""Which looks are kept, which go into the record, and which moves wait for the end of a freeze."""

from dataclasses import replace

import pytest

from pilotage.rollouts.look_rules import is_worth_keeping, is_worth_recording, widens
from pilotage.rollouts.types import (
    Cause,
    GateLook,
    Judgement,
    Look,
    Move,
    Plan,
    Progress,
    Rollout,
    State,
    Strategy,
    Verdict,
)

SECOND = 1_000_000
OPEN = GateLook(
    gate="error",
    candidate_units=10,
    baseline_units=90,
    candidate_bad=0,
    baseline_bad=1,
    ratio=None,
    worse=0.1,
    worse_bound=3.0,
    fine=0.2,
    fine_bound=3.0,
)
COLLECTING = Judgement(verdict=Verdict.HOLD, cause=Cause.COLLECTING, looks=(OPEN,))
TOO_SLOW = Judgement(verdict=Verdict.UNDERPOWERED, cause=Cause.TOO_SLOW, looks=(OPEN,))
SHARED = replace(COLLECTING, cause=Cause.SHARED_FAULT)
FINE = replace(COLLECTING, looks=(replace(OPEN, fine=3.5),))
ROLLOUT = Rollout(
    id="rol_1",
    rev=1,
    project_id="prj_1",
    endpoint_id="end_1",
    endpoint="chat",
    baseline_id="dep_1",
    baseline="tiny@1.0.0",
    candidate_id="dep_2",
    candidate="tiny@1.1.0",
    plan=Plan(strategy=Strategy.CANARY, steps=(), gates=()),
    progress=Progress(state=State.RUNNING, step=0),
    weight=500,
    reason="June",
    created_by="usr_1",
    created_at_us=0,
    decision_id="dec_1",
)


def keep(judged: Judgement, *looks: Look, seconds: int = 1) -> bool:
    return is_worth_keeping(ROLLOUT, judged, looks, seconds * SECOND)


def look(judged: Judgement, step: int = 0, at: int = 0) -> Look:
    return Look(
        id="lok_1",
        rollout_id="rol_1",
        project_id="prj_1",
        at_us=at * SECOND,
        step=step,
        weight=500,
        judged=judged,
    )


def test_the_first_look_is_kept_and_then_one_a_minute() -> None:
    assert keep(COLLECTING)
    assert not keep(COLLECTING, look(COLLECTING), seconds=59)
    assert keep(COLLECTING, look(COLLECTING), seconds=60)
    assert keep(COLLECTING, look(COLLECTING, step=-1))


def test_what_is_repeated_is_kept_more_rarely_the_longer_a_step_stands() -> None:
    kept: list[Look] = []
    for minute in range(30 * 24 * 60):
        if keep(COLLECTING, *kept[-1:], seconds=60 * minute):
            kept.append(look(COLLECTING, at=60 * minute))
    assert 400 < len(kept) < 500  # of 43,200 minutes
    assert kept[-1].at_us - kept[-2].at_us < 30 * 24 * 3_600 * SECOND / 50


def test_evidence_that_crosses_its_bound_to_and_fro_is_kept_once_in_a_while() -> None:
    kept: list[Look] = []
    recorded = 0
    for second in range(600):
        judged = (COLLECTING, FINE)[second % 2]
        if keep(judged, *kept[::-1][:20], seconds=second):
            recorded += is_worth_recording(judged, kept[::-1][:20])
            kept.append(look(judged, at=second))
    assert len(kept) == 20
    assert recorded == 19  # the first look decides nothing


@pytest.mark.parametrize("judged", [SHARED, FINE])
def test_what_is_new_is_kept_at_once_and_recorded(judged: Judgement) -> None:
    assert keep(judged, look(COLLECTING))
    assert is_worth_recording(judged, [look(COLLECTING)])
    assert is_worth_recording(judged, [])
    assert not is_worth_recording(judged, [look(judged)])
    assert keep(COLLECTING, look(judged))


def test_forecasts_that_come_and_go_fill_no_record() -> None:
    assert not keep(TOO_SLOW, look(COLLECTING))
    assert not keep(COLLECTING, look(TOO_SLOW))
    assert not is_worth_recording(TOO_SLOW, [look(COLLECTING)])
    assert not is_worth_recording(COLLECTING, [])
    assert is_worth_recording(TOO_SLOW, [])


@pytest.mark.parametrize(
    ("before", "after", "weight", "is_wider"),
    [
        (State.RUNNING, State.RUNNING, 2_500, True),
        (State.RUNNING, State.KEEPING, 10_000, True),
        (State.RUNNING, State.ROLLED_BACK, 0, False),
        (State.RUNNING, State.HELD, None, False),
        (State.KEEPING, State.PROMOTED, None, True),
        (State.KEEPING, State.ROLLED_BACK, 0, False),
    ],
)
def test_moves_towards_the_candidate_are_those_that_freezes_stop(
    before: State, after: State, weight: int | None, *, is_wider: bool
) -> None:
    rollout = replace(ROLLOUT, progress=Progress(state=before))
    move = Move(progress=Progress(state=after), weight=weight, reason="why")
    assert widens(rollout, move) is is_wider
