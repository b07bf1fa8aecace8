"""Rollouts from frames to verdicts: calls are dealt, written, counted in batches and judged."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest

from counted_calls import Counted
from pilotage.core.frames import Begun, Ended, Flag, Outcome
from pilotage.core.gates import ratio
from pilotage.core.gates.types import add_units
from pilotage.core.names import SHADOW_TENANT
from pilotage.rollouts.rules import judge
from pilotage.rollouts.types import Cause, Judgement, Rollout, Verdict
from rollout_calls import (
    BASELINE,
    CANDIDATE,
    COST,
    ERRORS,
    FILTERED,
    LATENCY,
    LOST,
    SLOW,
    Dealer,
    make_rollout,
    toss,
)

BATCH = 50
GATES = (
    ERRORS,
    replace(LOST, limit=0.01),
    replace(SLOW, threshold=3_000_000),
    LATENCY,
    replace(COST, cap=320_000.0),
)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Calls of sessions, and what the candidate makes of them; chances are of one call.

    ``outage`` is the part of the calls in which whatever both arms depend on fails. With
    ``scales`` calls come in waves that both arms answer badly; in each of them the baseline gets
    replicas more, which are cold and slow, and take most of its calls.
    """

    errors: float = 0.01
    worse: float = 1.0
    slower: float = 1.0
    dearer: float = 1.0
    turns: int = 3
    outage: tuple[float, float] = (0.0, 0.0)
    scales: bool = False


def make_calls(
    rollout: Rollout, traffic: Traffic, rng: Random, count: int
) -> Iterator[tuple[Begun, Ended]]:
    """Yield calls of sessions that come and go; clients of bad sessions fail more often."""
    dealer, weight = Dealer(rollout), rollout.plan.steps[0].weight
    sessions = [_begin_session(rng) for _ in range(20)]
    for number in range(count):
        if rng.random() < 1 / traffic.turns:
            sessions[rng.randrange(len(sessions))] = _begin_session(rng)
        unit, temper = rng.choice(sessions)
        begun = dealer.begin(0, unit)
        is_mine = toss(begun.rollout, unit, weight) == CANDIDATE
        is_out = traffic.outage[0] <= number / count < traffic.outage[1]
        chance = 1.0 if is_out else traffic.errors * temper * (traffic.worse if is_mine else 1)
        flags, pace = [], traffic.slower if is_mine else 1.0
        if traffic.scales and number % 150 < 60:
            flags, chance = [Flag.WARMING.value], 6 * chance
            if not is_mine and rng.random() < 0.7:
                flags, pace = [Flag.COLD.value, Flag.WARMING.value], 10.0
        yield (
            begun,
            dealer.end(
                begun,
                outcome=Outcome.UPSTREAM_ERROR if rng.random() < chance else Outcome.OK,
                flags=flags,
                duration_us=int(rng.lognormvariate(13.5, 0.8) * pace),
                cost_nano=int(rng.lognormvariate(10.6, 0.5) * (traffic.dearer if is_mine else 1)),
            ),
        )


def _begin_session(rng: Random) -> tuple[str, float]:
    return f"{rng.getrandbits(64):016x}", 10.0 if rng.random() < 0.05 else 0.5


def run(
    traffic: Traffic, seed: int, *, weight: int, count: int, promotes: bool = True
) -> tuple[Judgement, int]:
    """Judge after each batch; return the last judgement, and after how many calls it was."""
    rollout = make_rollout(weights=(weight,), gates=GATES)
    counted = Counted(rollout)
    counted.add(make_probes(rollout))
    calls = list(make_calls(rollout, traffic, Random(seed), count))
    judged = None
    for start in range(0, count, BATCH):
        counted.add(frame for call in calls[start : start + BATCH] for frame in call)
        judged = look(rollout, counted)
        if judged.verdict is Verdict.ROLL_BACK or (promotes and judged.verdict is Verdict.PROMOTE):
            return judged, start + BATCH
    assert judged is not None
    return judged, count


def look(rollout: Rollout, counted: Counted) -> Judgement:
    found = counted.measure()
    return judge(rollout.plan.gates, found.measurement, found.ranks, rollout.plan.risk)


def make_probes(rollout: Rollout) -> list[Ended]:
    dealer = Dealer(rollout)
    return [
        dealer.end(
            dealer.begin(0, tenant_id=SHADOW_TENANT),
            assigned=arm,
            outcome=outcome,
            duration_us=86_400_000_000,
            finish_reason="content_filter",
            flags=[Flag.PROBE.value, Flag.SHADOW.value],
        )
        for arm in (BASELINE, CANDIDATE)
        for outcome in (Outcome.UPSTREAM_ERROR, Outcome.LOST)
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(),
        Traffic(outage=(0.6, 0.65)),
        Traffic(turns=8, errors=0.05),
        Traffic(turns=1, errors=0.05, scales=True),
    ],
    ids=["sessions", "shared_outage", "long_sessions", "scaled_baseline"],
)
def test_what_is_counted_from_frames_rarely_rolls_a_harmless_candidate_back(
    traffic: Traffic,
) -> None:
    """References are frozen on the way, so that nothing is known of the baseline before."""
    runs = 150
    back = [
        run(traffic, seed, weight=2_000, count=1_500, promotes=False)[0].verdict
        is Verdict.ROLL_BACK
        for seed in range(runs)
    ]
    print(f"{sum(back)} of {runs} rolled back")
    assert sum(back) / runs <= 0.063


@pytest.mark.parametrize(
    ("traffic", "causes", "most"),
    [
        (Traffic(worse=30), {"error"}, 600),
        (Traffic(slower=1.6), {"latency", "slow"}, 2_000),
        (Traffic(dearer=3), {"cost"}, 1_600),
    ],
    ids=["errors", "slower", "dearer"],
)
def test_a_bad_candidate_is_rolled_back_for_what_is_bad(
    traffic: Traffic, causes: set[str], most: int
) -> None:
    for seed in range(3):
        judged, calls = run(traffic, seed, weight=2_000, count=most)
        print(f"{judged.verdict} for {judged.gates} after {calls} calls")
        assert judged.verdict is Verdict.ROLL_BACK
        assert set(judged.gates) <= causes


def test_a_baseline_that_is_scaled_in_waves_of_errors_makes_no_candidate_worse() -> None:
    for seed in range(8):
        traffic = Traffic(turns=1, errors=0.15, scales=True)
        judged, _ = run(traffic, seed, weight=2_000, count=1_500, promotes=False)
        assert judged.verdict is not Verdict.ROLL_BACK, judged.gates


def test_a_candidate_whose_replicas_crash_again_and_again_is_rolled_back() -> None:
    """None of its calls meets a warm replica, and a third of them are lost with one."""
    rollout = make_rollout(weights=(2_000,), gates=GATES)
    counted, dealer, rng = Counted(rollout), Dealer(rollout), Random(3)
    for _ in range(300):
        begun = dealer.begin(0)
        is_mine = toss(begun.rollout, begun.call_id, 2_000) == CANDIDATE
        has_failed = is_mine and rng.random() < 0.3
        flags = [Flag.COLD.value, Flag.WARMING.value] if is_mine else [Flag.WARMING.value]
        outcome = Outcome.UPSTREAM_CUT if has_failed else Outcome.OK
        counted.add([begun, dealer.end(begun, outcome=outcome, flags=flags)])
    judged = look(rollout, counted)
    assert (judged.verdict, judged.cause) == (Verdict.ROLL_BACK, Cause.EVIDENCE)
    assert judged.gates == ("error",)
    assert judged.left_out == 1.0


def test_a_dead_candidate_is_rolled_back_at_once_and_a_shared_fault_is_held() -> None:
    dead, calls = run(Traffic(worse=1_000), 1, weight=2_000, count=400)
    assert dead.verdict is Verdict.ROLL_BACK
    assert calls <= 200
    rollout = make_rollout(weights=(2_000,), gates=GATES)
    counted = Counted(rollout)
    for both in make_calls(rollout, Traffic(outage=(0.0, 1.0)), Random(2), 300):
        counted.add(both)
    judged = look(rollout, counted)
    assert (judged.verdict, judged.cause) == (Verdict.HOLD, Cause.SHARED_FAULT)


def test_without_any_bad_unit_the_objective_promotes_but_only_once_it_was_probed() -> None:
    """459 clean units of the candidate show less than 1 % at alpha / 2."""
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS, replace(LOST, limit=0.01)))
    counted, dealer = Counted(rollout), Dealer(rollout)
    counted.add(frame for _ in range(1_100) for frame in dealer.call(0))
    assert add_units(counted.measure().measurement.whole["error"].units).candidate > 459
    assert look(rollout, counted).verdict is Verdict.HOLD
    counted.add(make_probes(rollout))
    assert look(rollout, counted).verdict is Verdict.PROMOTE


def test_sessions_that_have_just_begun_promote_nothing() -> None:
    """Each of the candidate's fails at its third turn, half a minute after its first."""
    gates = (ERRORS,)
    rollout = make_rollout(weights=(5_000,), gates=gates, least_us=60_000_000)
    counted, dealer = Counted(rollout), Dealer(rollout)
    counted.add(make_probes(rollout))
    for turn in range(3):
        now_us = turn * 15_000_000
        for number in range(1_200):
            begun = dealer.begin(0, f"session_{number}", at_us=now_us)
            is_bad = turn == 2 and toss(begun.rollout, begun.unit, 5_000) == CANDIDATE
            outcome = Outcome.UPSTREAM_ERROR if is_bad else Outcome.OK
            counted.add([begun, dealer.end(begun, outcome=outcome)])
            if turn == 2 and number > 40:
                break
        found = counted.measure(0, now_us)
        judged = judge(gates, found.measurement, found.ranks, rollout.plan.risk)
        assert judged.verdict is (Verdict.ROLL_BACK if turn == 2 else Verdict.HOLD)


@pytest.mark.parametrize(("reason", "verdict"), [("stop", Verdict.PROMOTE), ("", Verdict.HOLD)])
def test_who_never_says_why_an_answer_ended_has_not_shown_that_none_is_filtered(
    reason: str, verdict: Verdict
) -> None:
    rollout = make_rollout(weights=(5_000,), gates=(replace(FILTERED, limit=0.02),))
    counted, dealer = Counted(rollout), Dealer(rollout)
    counted.add(make_probes(rollout))
    for _ in range(800):
        begun = dealer.begin(0)
        counted.add([begun, dealer.end(begun, finish_reason=reason)])
    assert look(rollout, counted).verdict is verdict


@pytest.mark.parametrize(("sessions", "calls"), [(0, 2_400), (40, 6_000)])
def test_a_candidate_half_of_whose_calls_hang_is_not_promoted_by_the_others(
    sessions: int, calls: int
) -> None:
    """What has not ended is missing from no arm, and from every gate."""
    rollout = make_rollout(weights=(5_000,), gates=(ERRORS, replace(LOST, limit=0.01)))
    counted, dealer, rng = Counted(rollout), Dealer(rollout), Random(1)
    counted.add(make_probes(rollout))
    late: list[Ended] = []
    for number in range(calls):
        unit = f"{number % sessions}-{number // (5 * sessions)}" if sessions else ""
        begun = dealer.begin(0, unit)
        ended = dealer.end(begun)
        hangs = ended.assigned == CANDIDATE and rng.random() < 0.5
        counted.add([begun] if hangs else [begun, ended])
        late += [ended] if hangs else []
    first_seen = counted.measure().measurement.first_seen
    assert ratio.show_mismatch(first_seen) < math.log(1 / ratio.ALPHA)
    judged = look(rollout, counted)
    assert all(gate.is_fine for gate in judged.looks)
    assert (judged.verdict, judged.cause) == (Verdict.HOLD, Cause.HANGING)
    counted.add(late)
    assert look(rollout, counted).verdict is Verdict.PROMOTE


def test_a_gateway_that_deals_by_another_weight_is_found_out() -> None:
    rollout = make_rollout(weights=(1_000,), gates=GATES)
    counted, dealer = Counted(rollout), Dealer(rollout)
    for _ in range(1_500):
        begun = dealer.begin(0)
        really = toss(begun.rollout, begun.call_id, 1_800)
        counted.add([begun, dealer.end(begun, assigned=really)])
    judged = look(rollout, counted)
    assert (judged.verdict, judged.cause) == (Verdict.HOLD, Cause.RATIO_MISMATCH)
