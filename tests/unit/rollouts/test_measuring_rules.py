"""Which units count for which gates, with what, in whatever order calls become known."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted_calls import Counted
from pilotage.core.frames import Begun, Ended, Feedback, Flag, Outcome
from pilotage.core.gates.ranks import LEAST_REFERENCE
from pilotage.core.gates.types import Counts, Units, Weight
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.sketch import Sketch
from pilotage.rollouts.measuring.rules import (
    find_streak,
    parse_step,
    read_scores,
    read_signal,
    refer_to,
    watch,
)
from pilotage.rollouts.measuring.types import Standing
from pilotage.rollouts.types import (
    Gate,
    GateKind,
    Rollout,
    Signal,
    Streak,
)
from rollout_calls import (
    BASELINE,
    CANDIDATE,
    COST,
    ERRORS,
    FEEDBACK,
    GATES,
    LATENCY,
    LOST,
    SLOW,
    Dealer,
    count_calls,
    count_dealt,
    make_random_calls,
    make_rollout,
    recount,
    toss,
)

HALF = Weight(5_000, 5_000)


def drop_empty(counts: Counts) -> Counts:
    return {weight: units for weight, units in counts.items() if units.total}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 240), max_size=6),
    units=st.sampled_from([0, 3, 40]),
)
def test_any_batches_and_any_order_come_to_the_same_counts(
    seed: int, cuts: list[int], units: int
) -> None:
    """Of one step; which of several steps a failure belongs to is decided by what is read first."""
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS, LOST, SLOW, COST))
    rng = Random(seed)
    frames = make_random_calls(Dealer(rollout), rng, 120, units=units, steps=1, strays=not units)
    shuffled = rng.sample(frames, len(frames))
    counted = Counted(rollout)
    for since, until in zip([0, *sorted(cuts)], [*sorted(cuts), len(frames)], strict=True):
        counted.add(shuffled[since:until])
    found = counted.measure().measurement
    for gate in (ERRORS, LOST, SLOW):
        again = recount(rollout, gate, frames)
        assert drop_empty(found.whole[gate.name].units) == drop_empty(again.units)
        assert drop_empty(found.whole[gate.name].bad) == drop_empty(again.bad)
    assert drop_empty(found.first_seen) == count_dealt(rollout, frames)
    assert (found.begun, found.ended) == count_calls(rollout, frames)
    if not units:
        assert found.whole["cost"].values == recount(rollout, COST, frames).values


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), units=st.sampled_from([0, 25]))
def test_a_recount_by_hand_comes_to_the_same(seed: int, units: int) -> None:
    rollout = make_rollout()
    frames = make_random_calls(Dealer(rollout), Random(seed), 400, units=units)
    counted = Counted(rollout)
    counted.add(frames)
    for step in (0, 1):
        found = counted.measure(step).measurement
        assert drop_empty(found.first_seen) == count_dealt(rollout, frames)
        assert (found.begun, found.ended) == count_calls(rollout, frames)
        for gate in GATES:
            for tally, which in ((found.whole[gate.name], -1), (found.step[gate.name], step)):
                again = recount(rollout, gate, frames, which)
                assert drop_empty(tally.units) == drop_empty(again.units)
                assert drop_empty(tally.bad) == drop_empty(again.bad)


def fail(dealer: Dealer, unit: str, **more: object) -> list[Begun | Ended]:
    return list(dealer.call(0, unit, **({"outcome": Outcome.UPSTREAM_ERROR} | more)))


def find_units(rollout: Rollout, arm: str, count: int, step: int = 0) -> list[str]:
    """Return units that a step deals an arm."""
    weight = rollout.plan.steps[step].weight
    names = (f"unit_{number}" for number in range(100_000))
    dealt = (name for name in names if toss(f"{rollout.id}/{step}", name, weight) == arm)
    return [next(dealt) for _ in range(count)]


@pytest.fixture
def rollout() -> Rollout:
    return make_rollout(weights=(5_000, 5_000), gates=(ERRORS, LOST, SLOW, LATENCY, COST))


def test_a_unit_counts_once_and_a_later_failure_makes_it_bad(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    [unit] = find_units(rollout, CANDIDATE, 1)
    counted.add([*dealer.call(0, unit), *dealer.call(0, unit)])
    counted.add([*fail(dealer, unit), *fail(dealer, unit)])
    found = counted.measure().measurement
    assert found.first_seen == {HALF: Units(1, 0)}
    assert found.whole["error"].units == {HALF: Units(1, 0)}
    assert found.whole["error"].bad == {HALF: Units(1, 0)}
    assert found.whole["cost"].values[HALF].candidate == Sketch.of([1_000])


def test_a_new_step_is_a_new_coin_but_a_failure_belongs_to_the_first(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    [unit] = find_units(rollout, CANDIDATE, 1)
    counted.add([*fail(dealer, unit), *dealer.call(1, unit, outcome=Outcome.UPSTREAM_ERROR)])
    first, second = (counted.measure(step).measurement for step in (0, 1))
    assert first.step["error"].bad == {HALF: Units(1, 0)}
    assert second.step["error"].units == {HALF: Units(0, 0)} or not second.step["error"].units
    assert second.whole["error"].bad == {HALF: Units(1, 0)}
    assert sum(units.total for units in first.first_seen.values()) == 2
    assert sum(units.total for units in second.step["cost"].units.values()) == 1


def test_an_objective_counts_units_that_were_bad_before_by_what_they_do_now(
    rollout: Rollout,
) -> None:
    """A step's units would otherwise be those that never failed."""
    dealer, counted = Dealer(rollout), Counted(rollout)
    at_second = {
        name
        for name in find_units(rollout, CANDIDATE, 40)
        if toss("rol_1/1", name, 5_000) == CANDIDATE
    }
    good, bad = sorted(at_second)[:2]
    counted.add([*fail(dealer, good), *fail(dealer, good), *fail(dealer, bad)])
    first = counted.measure(0).measurement.step["error"]
    assert (first.units[HALF].candidate, first.bad[HALF].candidate) == (2, 2)
    assert (first.again, first.again_bad) == (0, 0)
    failed = {"outcome": Outcome.UPSTREAM_ERROR}
    counted.add([*dealer.call(1, good), *dealer.call(1, good)])
    counted.add([*dealer.call(1, bad), *dealer.call(1, bad, **failed)])
    counted.add([*dealer.call(1, bad, **failed)])
    second = counted.measure(1).measurement.step["error"]
    assert not drop_empty(second.units)
    assert (second.again, second.again_bad) == (2, 1)


@settings(max_examples=25, deadline=None)
@given(
    ages_us=st.lists(st.integers(0, 400), max_size=40),
    cut=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_units_are_young_for_as_long_as_their_step_has_to_stand(
    ages_us: list[int], cut: int, seed: int
) -> None:
    """Give or take a sixteenth of that time; a call that is its own unit never is."""
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS, COST), least_us=160)
    dealer, counted, now_us = Dealer(rollout), Counted(rollout), 10_000
    frames = []
    for number, age_us in enumerate(ages_us):
        begun = dealer.begin(0, f"unit_{number}", at_us=now_us - age_us)
        again = dealer.begin(0, f"unit_{number}", at_us=begun.at_us)
        alone = dealer.begin(0, at_us=now_us)
        frames += [[dealer.end(one) for one in (begun, again, alone)]]
    shuffled = Random(seed).sample(frames, len(frames))
    for batch in (shuffled[:cut], shuffled[cut:]):
        counted.add(frame for calls in batch for frame in calls)
    mine = [
        age_us
        for age_us, calls in zip(ages_us, frames, strict=True)
        if calls[0].assigned == CANDIDATE
    ]
    found = counted.measure(0, now_us).measurement.step["error"]
    assert sum(age <= 160 for age in mine) <= found.young <= sum(age < 170 for age in mine)
    assert counted.measure(0, now_us + 170).measurement.step["error"].young == 0


@pytest.mark.parametrize("unit", ["", "unit_1"])
def test_while_an_arm_is_cold_only_events_count(rollout: Rollout, unit: str) -> None:
    past = {Signal.LATENCY: Sketch.of(range(1, LEAST_REFERENCE + 1))}
    counted = Counted(rollout, refer_to(watch(rollout), past))
    dealer = Dealer(rollout)
    bad = {"outcome": Outcome.UPSTREAM_ERROR, "flags": [Flag.COLD, Flag.WARMING]}
    counted.add(dealer.call(0, unit, **bad))
    found = counted.measure().measurement
    assert found.first_seen[HALF].total == 1
    assert found.left_out == 1.0
    for name in ("error", "lost"):
        assert found.whole[name].units[HALF].total == 1
    assert found.whole["error"].bad[HALF].total == 1
    for name in ("slow", "latency", "cost"):
        assert not drop_empty(found.whole[name].units)
    counted.add([*dealer.call(0, unit, flags=[Flag.COLD]), *dealer.call(0, unit)])
    found = counted.measure().measurement
    assert found.left_out == pytest.approx(1 / 3)
    for name in ("slow", "latency", "cost"):
        assert found.whole[name].units[HALF].total == (1 if unit else 2)


def test_a_copy_or_a_call_of_somebody_else_does_not_count(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    bad = {"outcome": Outcome.UPSTREAM_ERROR}
    counted.add([dealer.begin(0)])
    copy = dealer.begin(0, tenant_id=SHADOW_TENANT)
    other = dealer.begin(0, project_id="prj_other")
    late = dealer.begin(2) if len(rollout.plan.steps) > 2 else dealer.begin(0, rollout="rol_1/-1")
    counted.add(
        [
            copy,
            dealer.end(copy, outcome=Outcome.LOST, assigned=""),
            dealer.end(dealer.begin(0), flags=[Flag.SHADOW], **bad),
            other,
            dealer.end(other, **bad),
            late,
            dealer.end(dealer.begin(0), assigned="dep_3", **bad),
            dealer.end(dealer.begin(0), assigned="", **bad),
        ]
    )
    found = counted.measure().measurement
    assert sum(units.total for units in found.first_seen.values()) == 1
    assert not drop_empty(found.whole["error"].units)
    assert not drop_empty(found.whole["lost"].units)


def test_a_lost_call_is_bad_for_the_arm_that_its_coin_says(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    [unit] = find_units(rollout, BASELINE, 1)
    begun = dealer.begin(0, unit)
    counted.add([begun, dealer.end(begun, outcome=Outcome.LOST, assigned="", duration_us=-1)])
    found = counted.measure().measurement
    assert found.whole["lost"].bad == {HALF: Units(0, 1)}
    assert not drop_empty(found.whole["error"].units)
    assert not drop_empty(found.whole["cost"].units)


@pytest.mark.parametrize("unit", ["", "unit_7"])
def test_units_are_dealt_where_they_really_went(rollout: Rollout, unit: str) -> None:
    """Whatever the coin says: a gateway that deals by another one is found out."""
    dealer, counted = Dealer(rollout), Counted(rollout)
    begun = dealer.begin(0, unit)
    coin = toss("rol_1/0", unit or begun.call_id, 5_000)
    other = BASELINE if coin == CANDIDATE else CANDIDATE
    counted.add([begun])
    asked = counted.measure().measurement.first_seen[HALF]
    assert asked == (Units(1, 0) if coin == CANDIDATE else Units(0, 1))
    ended = dealer.end(begun, assigned=other)
    counted.add([ended, ended] if unit else [ended])
    went = counted.measure().measurement.first_seen[HALF]
    assert went == (Units(1, 0) if other == CANDIDATE else Units(0, 1))


def make_probe(dealer: Dealer, arm: str, outcome: Outcome, step: int = 0) -> Ended:
    return dealer.end(
        dealer.begin(step, tenant_id=SHADOW_TENANT),
        assigned=arm,
        outcome=outcome,
        flags=[Flag.PROBE.value, Flag.SHADOW.value],
    )


def test_gates_are_probed_once_each_arm_has_had_a_bad_unit_that_nobody_made(
    rollout: Rollout,
) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)

    def probed() -> set[str]:
        whole = counted.measure().measurement.whole
        return {name for name, tally in whole.items() if tally.probed}

    counted.add([make_probe(dealer, CANDIDATE, Outcome.UPSTREAM_ERROR)])
    assert probed() == set()
    counted.add([make_probe(dealer, BASELINE, Outcome.LOST)])
    assert probed() == set()
    counted.add([make_probe(dealer, BASELINE, Outcome.UPSTREAM_ERROR)])
    assert probed() == {"error"}
    counted.add([make_probe(dealer, CANDIDATE, Outcome.LOST)])
    assert probed() == {"error", "lost"}
    found = counted.measure().measurement
    assert not drop_empty(found.whole["error"].units)
    assert found.streak == Streak()


def test_a_reference_is_frozen_and_what_it_was_made_of_is_not_compared(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    frames: list[Ended] = []
    while sum(frame.assigned == BASELINE for frame in frames) < LEAST_REFERENCE:
        frames.append(dealer.call(0, duration_us=len(frames) + 1)[1])
    counted.add(frames[:-1])
    assert counted.measure().ranks == {}
    counted.add(frames[-1:])
    assert set(counted.measure().ranks) == {"latency"}
    assert not drop_empty(counted.measure().measurement.whole["latency"].units)
    counted.add([dealer.call(0)[1] for _ in range(10)])
    assert counted.measure().measurement.whole["latency"].units[HALF].total == 10
    assert counted.standing.references["latency"].count == LEAST_REFERENCE


def test_what_the_baseline_took_before_is_the_reference_from_the_start(rollout: Rollout) -> None:
    watched = watch(rollout)
    past = {Signal.LATENCY: Sketch.of(range(1, LEAST_REFERENCE + 1))}
    assert refer_to(watched, past).references == {"latency": past[Signal.LATENCY]}
    few = {Signal.LATENCY: Sketch.of(range(1, LEAST_REFERENCE))}
    assert refer_to(watched, few) == refer_to(watched, {}) == Standing()
    counted = Counted(rollout, refer_to(watched, past))
    counted.add(Dealer(rollout).call(0))
    found = counted.measure()
    assert set(found.ranks) == {"latency"}
    assert found.measurement.whole["latency"].units[HALF].total == 1


def go(dealer: Dealer, calls: str) -> list[Ended]:
    """Return calls one after the other: C and B are ok, c and b fail."""
    return [
        dealer.end(
            dealer.begin(0),
            assigned=CANDIDATE if letter in "cC" else BASELINE,
            outcome=Outcome.OK if letter.isupper() else Outcome.UPSTREAM_ERROR,
        )
        for letter in calls
    ]


@pytest.mark.parametrize(
    ("calls", "streak"),
    [
        ("", Streak()),
        ("cccC", Streak()),
        ("BBcBBc", Streak(candidate_bad=2, baseline_units=2)),
        ("Cc" + "Bc" * 9, Streak(candidate_bad=10, baseline_units=9)),
        ("c" + "bc" * 12, Streak(candidate_bad=10, baseline_units=9, baseline_bad=9)),
        ("c" + "bc" * 9 + "B" * 50, Streak(candidate_bad=10, baseline_units=9, baseline_bad=9)),
        ("cbBc" + "c" * 8, Streak(candidate_bad=10, baseline_units=2, baseline_bad=1)),
    ],
)
def test_a_streak_is_of_the_last_units_and_of_the_baselines_between_them(
    rollout: Rollout, calls: str, streak: Streak
) -> None:
    counted = Counted(rollout)
    counted.add(go(Dealer(rollout), calls))
    assert counted.measure().measurement.streak == streak


@pytest.mark.parametrize("weights", [(5_000,), (5_000, 10_000)])
def test_the_last_calls_are_known_when_the_candidate_has_all_traffic(
    weights: tuple[int, ...],
) -> None:
    rollout = make_rollout(weights=weights, gates=(ERRORS,))
    dealer, counted = Dealer(rollout), Counted(rollout)

    def end(**more: object) -> Ended:
        begun = dealer.begin(0, rollout="rol_1/1")
        values: dict[str, object] = {"outcome": Outcome.UPSTREAM_ERROR}
        return dealer.end(begun, **(values | more))

    counted.add([end() for _ in range(12)])
    assert counted.measure(1).measurement.streak == Streak(candidate_bad=10)
    counted.add([end(outcome=Outcome.OK)])
    assert counted.measure(1).measurement.streak == Streak()
    lost = end(assigned="", outcome=Outcome.LOST)
    refused, draining = end(outcome=Outcome.REFUSED), end(outcome=Outcome.DRAINING)
    probe = end(flags=[Flag.PROBE.value, Flag.SHADOW.value])
    copy = end(flags=[Flag.SHADOW.value])
    late = end(assigned=BASELINE)
    other = end(project_id="prj_other")
    counted.add([lost, refused, draining, probe, copy, late, other])
    assert counted.measure(1).measurement.streak == Streak()
    assert not drop_empty(counted.measure(1).measurement.whole["error"].units)


def test_calls_of_earlier_steps_say_nothing_once_the_candidate_has_all_traffic() -> None:
    """A gateway that is killed then ends what it had in flight, and a shared fault may be over."""
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS,))
    dealer, counted = Dealer(rollout), Counted(rollout)
    counted.add(go(dealer, "bc" * 12))
    assert counted.measure(0).measurement.streak == Streak(
        candidate_bad=10, baseline_units=9, baseline_bad=9
    )
    assert counted.measure(1).measurement.streak == Streak()
    in_flight = [dealer.begin(0) for _ in range(40)]
    counted.add([dealer.end(begun, outcome=Outcome.LOST, assigned="") for begun in in_flight])
    failed = [dealer.call(1, outcome=Outcome.UPSTREAM_ERROR)[1] for _ in range(10)]
    counted.add([*failed[:9], *go(dealer, "CcB")])
    assert counted.measure(1).measurement.streak == Streak(candidate_bad=9)
    counted.add(failed[9:])
    assert counted.measure(1).measurement.streak == Streak(candidate_bad=10)


def test_a_call_that_another_arm_had_to_answer_is_a_failure_of_the_one_it_was_dealt(
    rollout: Rollout,
) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    for unit in find_units(rollout, CANDIDATE, 10):
        rescued = {"arm": BASELINE, "flags": [Flag.FELL_BACK.value]}
        counted.add([*dealer.call(0, unit, **rescued)])

    measured = counted.measure(0).measurement
    assert measured.whole["error"].bad == {HALF: Units(10, 0)}
    assert measured.streak.candidate_bad == 10


def test_one_unit_that_tries_again_and_again_is_no_streak(rollout: Rollout) -> None:
    dealer, counted = Dealer(rollout), Counted(rollout)
    [mine], [theirs] = (find_units(rollout, arm, 1) for arm in (CANDIDATE, BASELINE))
    for _ in range(20):
        counted.add([*fail(dealer, mine), *fail(dealer, theirs)])
    assert find_streak(counted.standing) == Streak(candidate_bad=1)
    for unit in find_units(rollout, CANDIDATE, 3)[1:]:
        counted.add([*fail(dealer, unit), *dealer.call(0, theirs), *fail(dealer, theirs)])
    assert find_streak(counted.standing) == Streak(
        candidate_bad=3, baseline_units=1, baseline_bad=1
    )


def test_of_very_many_units_between_two_only_some_are_kept(rollout: Rollout) -> None:
    counted = Counted(rollout)
    counted.add(go(Dealer(rollout), "c" + "B" * 500 + "c"))
    assert find_streak(counted.standing) == Streak(candidate_bad=2, baseline_units=20)


@pytest.mark.parametrize(
    ("signal", "more", "value"),
    [
        (Signal.ERROR, {}, 0),
        (Signal.ERROR, {"outcome": Outcome.CLIENT_GONE}, 0),
        (Signal.ERROR, {"outcome": Outcome.DEADLINE}, 1),
        (Signal.ERROR, {"outcome": Outcome.REFUSED}, 1),
        (Signal.ERROR, {"outcome": Outcome.LOST}, None),
        (Signal.LOST, {"outcome": Outcome.LOST}, 1),
        (Signal.LOST, {"outcome": Outcome.UPSTREAM_ERROR}, 0),
        (Signal.FILTERED, {"finish_reason": "content_filter"}, 1),
        (Signal.FILTERED, {"finish_reason": "refusal"}, 1),
        (Signal.FILTERED, {"finish_reason": "length"}, 0),
        (Signal.FILTERED, {"finish_reason": ""}, None),
        (Signal.LATENCY, {"duration_us": 7}, 7),
        (Signal.LATENCY, {"duration_us": -1}, None),
        (Signal.LATENCY, {"duration_us": 7, "outcome": Outcome.REFUSED}, None),
        (Signal.TTFT, {"ttft_us": -1}, None),
        (Signal.TTFT, {"ttft_us": 5}, 5),
        (Signal.TTFT, {"ttft_us": 5, "is_stream": True, "duration_us": 70}, 5),
        (
            Signal.TTFT,
            {"ttft_us": -1, "is_stream": True, "duration_us": 70, "outcome": Outcome.CLIENT_GONE},
            70,
        ),
        (Signal.TTFT, {"ttft_us": -1, "is_stream": True, "outcome": Outcome.REFUSED}, None),
        (Signal.COST, {"cost_nano": 9}, 9),
        (Signal.COST, {"cost_nano": 9, "outcome": Outcome.LOST}, None),
        (Signal.FEEDBACK, {}, None),
    ],
)
def test_what_a_call_says_to_a_gate(
    rollout: Rollout, signal: Signal, more: dict[str, object], value: int | None
) -> None:
    dealer = Dealer(rollout)
    assert read_signal(signal, dealer.end(dealer.begin(0), **more)) == value


def test_what_people_say_counts_by_what_it_lacks_of_the_best(rollout: Rollout) -> None:
    rude = Gate(
        name="rude", signal=Signal.FEEDBACK, kind=GateKind.EVENTS, margin=0.5, threshold=500_000
    )
    rollout = replace(rollout, plan=replace(rollout.plan, gates=(FEEDBACK, ERRORS, rude)))
    dealer, counted = Dealer(rollout), Counted(rollout)
    [unit] = find_units(rollout, CANDIDATE, 1)
    first, again = counted.add([*dealer.call(0, unit), *dealer.call(0, unit)])
    counted.add([], [first._replace(score=900_000), again._replace(score=0)])
    found = counted.measure().measurement.whole
    assert found["feedback"].values[HALF].candidate == Sketch.of([100_000])
    assert found["rude"].units == {HALF: Units(1, 0)}
    assert found["rude"].bad == {HALF: Units(1, 0)}


def test_of_each_call_the_first_score_that_can_be_one_is_read() -> None:
    def say(call_id: str, score: int) -> Feedback:
        return Feedback(
            call_id=call_id,
            at_us=1,
            feedback_id="fbk",
            project_id="prj",
            tenant_id="ten_a",
            key_id="key",
            score=score,
        )

    said = [say("a", -1), say("a", 5), say("a", 6), say("b", 1_000_001), say("c\x00", 1)]
    assert [(key.call_id, one.score) for key, one in read_scores(said).items()] == [("a", 5)]


def test_steps_of_one_weight_are_added_and_those_without_a_coin_left_out() -> None:
    rollout = make_rollout(weights=(5_000, 5_000, 10_000), gates=(ERRORS,))
    dealer, counted = Dealer(rollout), Counted(rollout)
    counted.add([frame for step in (0, 1, 1, 2) for frame in dealer.call(step)])
    whole = counted.measure(3, now_us=5_000_000).measurement
    assert whole.whole["error"].units[HALF].total == 3
    assert list(whole.whole["error"].units) == [HALF]
    assert whole.first_seen[HALF].total == 3
    assert whole.step["error"].units == {}
    assert whole.elapsed_s == 5.0
    assert counted.measure(1).measurement.step["error"].units[HALF].total == 2


@pytest.mark.parametrize(
    ("name", "step"),
    [("rol_1/0", 0), ("rol_1/12", 12), ("rol_1/-1", -1), ("rol_1", -1), ("", -1), ("rol_1/²", -1)],
)
def test_a_step_is_named_by_rollout_and_number(name: str, step: int) -> None:
    assert parse_step(name) == (name.partition("/")[0], step)
