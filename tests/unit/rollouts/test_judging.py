"""What a look decides: single cases that every branch of the rules has."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from pilotage.core.gates import ratio
from pilotage.core.gates.ranks import Ranks
from pilotage.core.gates.types import Counts, Units, Values, Weight
from pilotage.core.sketch import Sketch
from pilotage.rollouts.rules import SUSPECT, judge, judge_alone, judge_pairs
from pilotage.rollouts.types import (
    Cause,
    Gate,
    GateKind,
    Judgement,
    Measurement,
    Risk,
    Signal,
    Streak,
    Tally,
    Verdict,
)

HALF, TENTH = Weight(5_000, 5_000), Weight(1_000, 9_000)
ERROR = Gate(name="error", signal=Signal.ERROR, kind=GateKind.EVENTS, margin=1.0, limit=0.05)
LATENCY = Gate(name="latency", signal=Signal.LATENCY, kind=GateKind.RANKS, margin=0.2)
COST = Gate(name="cost", signal=Signal.COST, kind=GateKind.MEANS, margin=0.2, cap=8e4)
ANSWERS = Gate(name="answers", signal=Signal.ANSWERS, kind=GateKind.PAIRS, margin=0.03)


def sketch(value: int, count: int) -> Sketch:
    """Return values around one: so many, spread evenly over a tenth of it."""
    made = Sketch(buckets={})
    for number in range(count):
        made.add(value + value * (number % 10) // 100)
    return made


def values(candidate: int, baseline: int, count: int = 1_000) -> Tally:
    both = Values(sketch(candidate, count), sketch(baseline, count))
    return Tally(units={HALF: Units(count, count)}, values={HALF: both})


def events(
    bad: tuple[int, int], units: tuple[int, int], weight: Weight = HALF, *, probed: bool = False
) -> Tally:
    return Tally(units={weight: Units(*units)}, bad={weight: Units(*bad)}, probed=probed)


def look(gate: Gate, tally: Tally, *, goal: str = "", **timed: Any) -> Judgement:  # noqa: ANN401
    tallies = {gate.name: tally}
    measured = Measurement(whole=tallies, step=tallies, first_seen=tally.units, elapsed_s=100.0)
    measured = replace(measured, **timed)
    ranks = {"latency": Ranks(sketch(1_000, 500))}
    return judge([gate], measured, ranks, Risk(), goal)


def look_at_pairs(marks: dict[int, int], *, elapsed_s: float) -> Judgement:
    measured = Measurement(whole={}, step={}, first_seen={}, elapsed_s=elapsed_s)
    return judge_pairs(ANSWERS, marks, measured, Risk())


def test_the_better_one_wins_an_experiment_and_an_equal_one_does_not() -> None:
    for gate, better, equal, worse in (
        (ERROR, events((10, 80), (5_000, 5_000)), events((50, 50), (5_000, 5_000)), None),
        (COST, values(20_000, 40_000), values(30_000, 30_000), values(40_000, 20_000)),
        (LATENCY, values(800, 1_000), values(1_000, 1_000), values(1_300, 1_000)),
    ):
        won = look(gate, better, goal=gate.name)
        assert (won.verdict, won.gates) == (Verdict.PROMOTE, (gate.name,))
        assert won.looks[0].needed == 0
        assert look(gate, equal, goal=gate.name).verdict is Verdict.HOLD
        if worse is not None:
            assert look(gate, worse, goal=gate.name).verdict is Verdict.ROLL_BACK


def test_what_is_cheaper_but_for_a_few_dear_calls_wins_no_experiment() -> None:
    """99 of 100 calls cost 0.8 times as much, the last one 100 times."""
    tally = values(8_000, 10_000, 10_000)
    (both,) = tally.values.values()
    assert look(COST, tally, goal="cost").verdict is Verdict.PROMOTE
    both.candidate.merge(sketch(1_000_000, 100))
    judged = look(COST, tally, goal="cost")
    assert judged.verdict is Verdict.HOLD
    assert judged.looks[0].fine < 0


def test_what_is_cheaper_as_it_has_no_dear_calls_is_not_worse() -> None:
    """The baseline's dear calls count as the cap in the evidence, and in full beside it."""
    tally = values(17_000, 10_000, 5_000)
    (both,) = tally.values.values()
    assert look(COST, tally).verdict is Verdict.ROLL_BACK
    both.baseline.merge(sketch(1_000_000, 50))
    judged = look(COST, tally)
    assert (judged.verdict, judged.looks[0].worse) == (Verdict.PROMOTE, 0.0)
    assert judged.looks[0].ratio == pytest.approx(0.86, abs=0.01)


def test_calls_that_cost_more_than_nothing_are_worse() -> None:
    judged = look(COST, values(20_000, 0))
    assert (judged.verdict, judged.looks[0].ratio) == (Verdict.ROLL_BACK, None)


def test_no_cost_is_shown_to_be_fine_by_few_calls() -> None:
    few = look(COST, values(5_000, 10_000, 400))
    assert few.verdict is Verdict.HOLD
    assert few.looks[0].needed == pytest.approx(1_200)
    assert look(COST, values(5_000, 10_000, 999)).verdict is Verdict.HOLD
    assert look(COST, values(5_000, 10_000, 1_000)).verdict is Verdict.PROMOTE
    score = replace(COST, signal=Signal.FEEDBACK)  # has a greatest value
    assert look(score, values(5_000, 10_000, 400)).verdict is Verdict.PROMOTE


def test_calls_that_are_rare_and_dear_are_seldom_shown_to_be_fine() -> None:
    """Three of 1,000 cost 300 times as much, the others 0.6 times: 1.5 times the mean."""
    shown = 0
    for seed in range(20):
        draws = random.Random(seed)
        tally = values(0, 0, 0)
        (both,) = tally.values.values()
        for number in range(6_000):
            value = draws.lognormvariate(-0.125, 0.5) * 10_000
            is_dear = draws.random() < 0.003
            if number % 2:
                both.baseline.add(int(value))
            else:
                both.candidate.add(3_000_000 if is_dear else int(0.6 * value))
            if number % 250 == 249 and look(COST, tally).looks[0].is_fine:
                shown += 1
                break
    print(f"shown to be fine in {shown} of 20")
    assert shown <= 2


def test_the_other_gates_of_an_experiment_only_have_to_be_fine() -> None:
    tallies = {
        "cost": values(20_000, 40_000),
        "error": events((0, 0), (1_000, 1_000), probed=True),
    }
    measured = Measurement(
        whole=tallies, step=tallies, first_seen={HALF: Units(1_000, 1_000)}, elapsed_s=1.0
    )
    judged = judge([COST, ERROR], measured, {}, Risk(), "cost")
    assert judged.verdict is Verdict.PROMOTE


def test_ranks_wait_for_their_reference() -> None:
    tallies = {"latency": values(3_000, 1_000)}
    measured = Measurement(
        whole=tallies, step=tallies, first_seen={HALF: Units(1_000, 1_000)}, elapsed_s=1.0
    )
    judged = judge([LATENCY], measured, {}, Risk())
    assert (judged.verdict, judged.looks[0].worse, judged.looks[0].fine) == (Verdict.HOLD, 0.0, 0.0)
    assert judged.looks[0].ratio == pytest.approx(3.0, rel=0.02)


def test_two_bad_units_are_too_few_to_go_back_for() -> None:
    few = look(ERROR, events((2, 0), (2, 1_000), Weight(10, 9_990)))
    assert few.looks[0].worse <= 0
    assert few.verdict is Verdict.HOLD


def test_a_rare_event_passes_by_its_limit_once_a_probe_was_counted() -> None:
    clean = events((0, 0), (200, 1_800), TENTH)
    assert look(ERROR, clean).verdict is Verdict.HOLD
    assert look(ERROR, replace(clean, probed=True)).verdict is Verdict.PROMOTE
    assert look(ERROR, replace(clean, probed=True), least_s=101.0).verdict is Verdict.HOLD


def test_an_objective_leaves_out_what_has_just_begun_and_forgets_no_unit_that_was_bad() -> None:
    """90 clean units show less than 5 %."""
    clean = events((0, 0), (200, 1_800), TENTH, probed=True)
    cases: tuple[tuple[dict[str, Any], Verdict], ...] = (
        ({"young": 110}, Verdict.PROMOTE),
        ({"young": 111}, Verdict.HOLD),
        ({"young": 200}, Verdict.HOLD),
        ({"young": 130, "again": 20}, Verdict.PROMOTE),
        ({"again": 20, "again_bad": 20}, Verdict.HOLD),
    )
    for more, verdict in cases:
        judged = look(ERROR, replace(clean, **more))
        assert judged.verdict is verdict, more
        assert judged.looks[0].candidate_units == 200


@pytest.mark.parametrize(
    ("begun", "ended", "verdict"),
    [
        ({TENTH: Units(200, 1_800)}, {TENTH: Units(197, 1_800)}, Verdict.PROMOTE),
        ({TENTH: Units(200, 1_800)}, {TENTH: Units(196, 1_800)}, Verdict.HOLD),
        ({TENTH: Units(200, 1_800)}, {TENTH: Units(177, 1_710)}, Verdict.PROMOTE),
        ({TENTH: Units(200, 1_800)}, {TENTH: Units(176, 1_710)}, Verdict.HOLD),
        ({TENTH: Units(900, 100)}, {TENTH: Units(700, 80)}, Verdict.PROMOTE),
        ({TENTH: Units(4, 0)}, {TENTH: Units(0, 0)}, Verdict.HOLD),
        (
            {HALF: Units(90, 90), TENTH: Units(200, 1_800)},
            {HALF: Units(80, 80), TENTH: Units(176, 1_710)},
            Verdict.PROMOTE,
        ),
    ],
)
def test_nothing_is_promoted_while_too_many_of_its_calls_are_open(
    begun: Counts, ended: Counts, verdict: Verdict
) -> None:
    """Of what each arm began, that many may be open; a tenant may have most of the calls."""
    clean = events((0, 0), (200, 1_800), TENTH, probed=True)
    judged = look(ERROR, clean, begun=begun, ended=ended)
    cause = Cause.EVIDENCE if verdict is Verdict.PROMOTE else Cause.HANGING
    assert (judged.verdict, judged.cause) == (verdict, cause)


def test_what_keeps_many_calls_open_is_said_to_once_it_is_no_burst() -> None:
    """A candidate whose calls take longer looks like one that hangs: it takes a person to say."""
    clean = events((0, 0), (200, 1_800), TENTH, probed=True)
    calls: dict[str, Any] = {
        "begun": {HALF: Units(9_000, 9_000)},
        "ended": {HALF: Units(8_900, 8_960)},
    }
    for step_s, soon, late in ((1_000.0, 90.0, 110.0), (0.0, 3_500.0, 3_700.0)):
        early = look(ERROR, clean, elapsed_s=soon, step_s=step_s, **calls)
        assert (early.verdict, early.cause) == (Verdict.HOLD, Cause.HANGING)
        said = look(ERROR, clean, elapsed_s=late, step_s=step_s, **calls)
        assert (said.verdict, said.cause) == (Verdict.UNDERPOWERED, Cause.HANGING)


def test_a_step_promotes_by_what_it_has_shown_itself_and_all_of_them_roll_back() -> None:
    clean = events((0, 0), (2_000, 2_000), probed=True)
    bad = events((60, 5), (2_000, 2_000), probed=True)
    for whole, step, verdict in (
        (clean, clean, Verdict.PROMOTE),
        (clean, Tally(probed=True), Verdict.HOLD),
        (bad, clean, Verdict.ROLL_BACK),
    ):
        measured = Measurement(
            whole={"error": whole}, step={"error": step}, first_seen=whole.units, elapsed_s=1.0
        )
        assert judge([ERROR], measured, {}, Risk()).verdict is verdict


def test_a_streak_goes_back_but_not_in_a_shared_fault() -> None:
    tally = events((0, 0), (10, 10))
    measured = Measurement(whole={"error": tally}, step={"error": tally}, first_seen={})
    for streak, verdict, cause in (
        (Streak(candidate_bad=10, baseline_units=5), Verdict.ROLL_BACK, Cause.ALL_BAD),
        (
            Streak(candidate_bad=10, baseline_units=4, baseline_bad=2),
            Verdict.HOLD,
            Cause.SHARED_FAULT,
        ),
        (Streak(candidate_bad=10, baseline_units=2), Verdict.HOLD, Cause.COLLECTING),
        (Streak(candidate_bad=9, baseline_units=9), Verdict.HOLD, Cause.COLLECTING),
    ):
        judged = judge([ERROR], replace(measured, streak=streak), {}, Risk())
        assert (judged.verdict, judged.cause) == (verdict, cause)


def test_time_runs_out_and_is_foreseen_to() -> None:
    tally = events((5, 45), (500, 4_500), TENTH)
    early = look(ERROR, tally, elapsed_s=9.0, step_s=100.0)
    assert (early.verdict, early.cause) == (Verdict.HOLD, Cause.COLLECTING)
    late = look(ERROR, tally, elapsed_s=99.0, step_s=100.0)
    assert (late.verdict, late.cause, late.gates) == (
        Verdict.UNDERPOWERED,
        Cause.TOO_SLOW,
        ("error",),
    )
    over = look(ERROR, tally, elapsed_s=100.0, step_s=100.0)
    assert (over.verdict, over.cause) == (Verdict.HOLD, Cause.OUT_OF_TIME)
    soon = look(ERROR, tally, elapsed_s=11_000.0, counted_s=50.0, step_s=100_000.0)
    assert (soon.verdict, soon.cause) == (Verdict.HOLD, Cause.COLLECTING)
    assert soon.eta_s is not None


def test_a_gate_that_gets_nowhere_is_said_to() -> None:
    """Nothing counted, or nothing that speaks for the candidate: no forecast is no time enough."""
    for tally in (Tally(), Tally(units={TENTH: Units(0, 10)}), values(1_000, 1_000, 3)):
        for step_s, soon, late in ((100.0, 9.0, 11.0), (0.0, 3_500.0, 3_700.0)):
            early = look(LATENCY, tally, elapsed_s=soon, step_s=step_s)
            assert (early.verdict, early.cause) == (Verdict.HOLD, Cause.COLLECTING)
            said = look(LATENCY, tally, elapsed_s=late, step_s=step_s)
            assert (said.verdict, said.gates) == (Verdict.UNDERPOWERED, ("latency",))
            assert said.eta_s is None


def test_a_step_without_an_end_ought_to_be_decided_in_a_week() -> None:
    tally = events((5, 45), (500, 4_500), TENTH)
    (told,) = look(ERROR, tally).looks
    assert told.needed is not None
    for rate, verdict in ((0.1, Verdict.HOLD), (0.001, Verdict.UNDERPOWERED)):
        judged = look(ERROR, tally, elapsed_s=5_000 / rate)
        assert judged.verdict is verdict
        assert judged.eta_s == pytest.approx(told.needed / rate)
    marks = look_at_pairs({0: 20}, elapsed_s=7_200.0)
    assert (marks.verdict, marks.eta_s) == (Verdict.HOLD, marks.looks[0].eta_s)
    assert marks.eta_s is not None
    assert look_at_pairs({}, elapsed_s=7_200.0).verdict is Verdict.UNDERPOWERED


def test_a_limit_shortens_the_forecast_once_a_probe_was_counted() -> None:
    tally = events((1, 2), (50, 450), TENTH)
    (long,) = look(ERROR, tally).looks
    (short,) = look(ERROR, replace(tally, probed=True)).looks
    assert long.needed is not None
    assert short.needed is not None
    assert 0 < short.needed < long.needed


def test_a_resumed_step_is_forecast_by_all_the_time_that_it_counts() -> None:
    tally = events((5, 45), (500, 4_500), TENTH)
    fresh = look(ERROR, tally, elapsed_s=10.0, counted_s=1_000.0)
    long = look(ERROR, tally, elapsed_s=1_000.0)
    assert fresh.eta_s == long.eta_s


def test_units_that_were_not_dealt_as_told_stop_every_comparison() -> None:
    mismatched = events((30, 9), (3_000, 3_000), TENTH)
    assert look(ERROR, mismatched).cause is Cause.RATIO_MISMATCH


def test_nothing_is_believed_while_units_may_not_have_been_dealt_as_told() -> None:
    """Between a suspicion and its proof a rollout collects; what was shown counts afterwards."""
    suspect = events((30, 9), (95, 600), TENTH)
    assert SUSPECT <= look(ERROR, suspect).mismatch < math.log(1 / ratio.ALPHA)
    judged = look(ERROR, suspect)
    assert judged.looks[0].is_worse
    assert (judged.verdict, judged.cause) == (Verdict.HOLD, Cause.COLLECTING)
    cleared = events((30, 9), (100, 900), TENTH)
    assert look(ERROR, cleared).verdict is Verdict.ROLL_BACK


def test_nothing_counted_says_nothing() -> None:
    for gate in (ERROR, LATENCY, COST):
        judged = look(gate, Tally(), elapsed_s=0.0)
        assert (judged.verdict, judged.eta_s, judged.looks[0].ratio) == (Verdict.HOLD, None, None)


def test_a_candidate_alone_is_judged_by_its_last_units() -> None:
    assert judge_alone(Streak(candidate_bad=9)).verdict is Verdict.HOLD
    bad = judge_alone(Streak(candidate_bad=10))
    assert (bad.verdict, bad.cause) == (Verdict.ROLL_BACK, Cause.ALL_BAD)


@pytest.mark.parametrize(
    ("marks", "verdict"),
    [
        ({0: 990, -1_000: 5, 1_000: 5}, Verdict.PROMOTE),
        ({0: 800, -1_000: 200}, Verdict.ROLL_BACK),
        ({0: 5}, Verdict.HOLD),
        ({}, Verdict.HOLD),
    ],
)
def test_pairs_of_answers_are_judged_by_their_marks(
    marks: dict[int, int], verdict: Verdict
) -> None:
    judged = look_at_pairs(marks, elapsed_s=1.0)
    assert judged.verdict is verdict
    assert judged.looks[0].candidate_units == sum(marks.values())
