"""What a look of a rollout decides.

One process of evidence per gate runs through the whole rollout towards rolling back, and the gates
share the risk among them (Bonferroni: bounds are ``m / alpha``; as units of one gate reveal the
arms of another's, neither mean nor product of their evidence would be evidence). Evidence for
promotion starts anew at each step, and every gate has to give it: as all must be shown fine,
nothing has to be shared. Before any comparison counts, the units must have been dealt as they
should.

An experiment has a goal: one of its gates, by which the candidate has to be better, not just no
worse. That is the same test as for being worse, with the arms in each other's place; of a mean it
is the one for being fine, without a margin, as dear values have to count there in full.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pilotage.core.gates import means, pairs, power, ratio
from pilotage.core.gates.events import LEAST_UNITS, show_below, show_not_worse, show_worse
from pilotage.core.gates.pairs import Pairs
from pilotage.core.gates.ranks import Ranks
from pilotage.core.gates.types import Counts, Samples, Units, Values, Weight, add_units
from pilotage.core.sketch import Sketch
from pilotage.rollouts.types import (
    Cause,
    Gate,
    GateKind,
    GateLook,
    Judgement,
    Measurement,
    Risk,
    Signal,
    Streak,
    Tally,
    Verdict,
)

STREAK = 10  # of the candidate's units, all bad: no statistics are needed
STREAK_BASELINE = 3  # units of the baseline in the same span; fewer tell nothing
SHARED = 0.5  # of them bad: then it is not the candidate
SUSPECT = math.log(20)  # evidence of a mismatch from which no other is believed for the moment
MOST_OPEN, OPEN_RATIO = 3, 2.0  # of the candidate's calls, where the baseline has none; and others
FORECAST_FROM = 0.1  # of a step's time; before, a forecast is a guess
HORIZON_S = 7 * 86_400.0  # what a step that has no end ought to be decided in
HORIZON_FROM_S = 3_600.0


def judge(
    gates: Sequence[Gate],
    measured: Measurement,
    ranks: Mapping[str, Ranks],
    risk: Risk,
    goal: str = "",
) -> Judgement:
    """Return the verdict of a look; ``ranks`` are the frozen references of gates of ranks.

    ``goal`` names the gate by which the candidate has to be better.
    """
    looks = tuple(
        look_at(gate, measured, ranks, risk, len(gates), is_goal=gate.name == goal)
        for gate in gates
    )
    mismatch = ratio.show_mismatch(measured.first_seen)
    verdict, cause, names = _decide(looks, measured, mismatch)
    etas = [look.eta_s for look in looks if not look.is_fine]
    known = [eta for eta in etas if eta is not None]
    return Judgement(
        verdict=verdict,
        cause=cause,
        gates=names,
        looks=looks,
        mismatch=mismatch,
        left_out=measured.left_out,
        eta_s=max(known) if known and len(known) == len(etas) else None,
    )


def judge_alone(streak: Streak) -> Judgement:
    """Return the verdict of a look when the candidate has all traffic: there is no comparison."""
    is_bad = streak.candidate_bad >= STREAK
    return Judgement(
        verdict=Verdict.ROLL_BACK if is_bad else Verdict.HOLD,
        cause=Cause.ALL_BAD if is_bad else Cause.COLLECTING,
    )


def judge_pairs(gate: Gate, marks: Pairs, measured: Measurement, risk: Risk) -> Judgement:
    """Return the verdict on answers to calls and to their copies; ``marks`` are differences."""
    count = sum(marks.values())
    look = GateLook(
        gate=gate.name,
        candidate_units=count,
        baseline_units=count,
        candidate_bad=0,
        baseline_bad=0,
        ratio=None,
        worse=pairs.show_worse(marks),
        worse_bound=math.log(1 / risk.roll_back),
        fine=pairs.show_not_worse(marks, gate.margin),
        fine_bound=math.log(1 / risk.promote),
    )
    look = _look_ahead(look, _extrapolate(count, look), count, measured)
    verdict, cause, names = _decide((look,), measured, 0.0)
    return Judgement(verdict=verdict, cause=cause, gates=names, looks=(look,), eta_s=look.eta_s)


def _decide(
    looks: Sequence[GateLook], measured: Measurement, mismatch: float
) -> tuple[Verdict, Cause, tuple[str, ...]]:
    streak = _judge_streak(measured.streak)
    if streak is Cause.ALL_BAD:
        return Verdict.ROLL_BACK, streak, ()
    if streak is not None:
        return Verdict.HOLD, streak, ()
    if mismatch >= math.log(1 / ratio.ALPHA):
        return Verdict.HOLD, Cause.RATIO_MISMATCH, ()
    if mismatch >= SUSPECT:  # means are moved by a wrong weight long before it is shown
        return _judge_time(looks, measured)
    worse = tuple(look.gate for look in looks if look.is_worse)
    if worse:
        return Verdict.ROLL_BACK, Cause.EVIDENCE, worse
    has_stood = measured.elapsed_s >= measured.least_s
    if has_stood and all(look.is_fine for look in looks) and not _hangs(measured):
        return Verdict.PROMOTE, Cause.EVIDENCE, tuple(look.gate for look in looks)
    return _judge_time(looks, measured)


def _judge_streak(streak: Streak) -> Cause | None:
    if streak.candidate_bad < STREAK or streak.baseline_units < STREAK_BASELINE:
        return None
    shared = streak.baseline_bad >= SHARED * streak.baseline_units
    return Cause.SHARED_FAULT if shared else Cause.ALL_BAD


def _judge_time(
    looks: Sequence[GateLook], measured: Measurement
) -> tuple[Verdict, Cause, tuple[str, ...]]:
    """Return whether there is time enough; a gate without a forecast gets nowhere by then."""
    left_s, from_s = HORIZON_S, HORIZON_FROM_S
    if measured.step_s:
        left_s, from_s = measured.step_s - measured.elapsed_s, FORECAST_FROM * measured.step_s
    if left_s <= 0:
        return Verdict.HOLD, Cause.OUT_OF_TIME, ()
    slow = tuple(
        look.gate
        for look in looks
        if not look.is_fine and (look.eta_s is None or look.eta_s > left_s)
    )
    is_late = measured.elapsed_s >= from_s
    if slow and is_late:
        return Verdict.UNDERPOWERED, Cause.TOO_SLOW, slow
    if _hangs(measured):  # by then it is no burst: its calls may just take that much longer
        return Verdict.UNDERPOWERED if is_late else Verdict.HOLD, Cause.HANGING, ()
    return Verdict.HOLD, Cause.COLLECTING, ()


def _hangs(measured: Measurement) -> bool:
    """Say whether clearly more of the candidate's calls are open than those of the baseline say.

    Gates know of what has ended, and a call that never answers may be open for long: a part of
    them would be left out of every gate.
    """
    hanging = expected = 0.0
    for weight, begun in measured.begun.items():
        ended = measured.ended[weight]
        hanging += begun.candidate - ended.candidate
        if begun.baseline:
            expected += (begun.baseline - ended.baseline) * begun.candidate / begun.baseline
    return hanging > MOST_OPEN + OPEN_RATIO * expected


def look_at(
    gate: Gate,
    measured: Measurement,
    ranks: Mapping[str, Ranks],
    risk: Risk,
    family: int,
    *,
    is_goal: bool = False,
) -> GateLook:
    """Return what one gate says; ``family`` is how many gates share the risk."""
    whole, step = measured.whole[gate.name], measured.step[gate.name]
    units, bad = add_units(whole.units), add_units(whole.bad)
    frozen = ranks.get(gate.name)
    worse = _show_worse(gate, whole, frozen)
    has_limit = gate.kind is GateKind.EVENTS and gate.limit is not None and not is_goal
    bound = math.log((2 if has_limit else 1) / risk.promote)
    fine = _show_better(gate, step, frozen) if is_goal else _show_fine(gate, step, frozen)
    seen = sum(candidate.count for candidate, _ in step.values.values())
    if gate.signal is Signal.COST and seen < means.LEAST_VALUES:  # it has no greatest value
        fine = min(fine, bound * seen / means.LEAST_VALUES)
    look = GateLook(
        gate=gate.name,
        candidate_units=units.candidate,
        baseline_units=units.baseline,
        candidate_bad=bad.candidate,
        baseline_bad=bad.baseline,
        ratio=_estimate(gate, whole, units, bad),
        worse=worse,
        worse_bound=math.log(family / risk.roll_back),
        fine=fine,
        fine_bound=bound,
    )
    counted = add_units(step.units).total
    if is_goal or gate.kind is not GateKind.EVENTS:
        needed = _extrapolate(counted, look)
    else:
        needed = _forecast(gate, step, look)
    return _look_ahead(look, needed, counted, measured)


def _show_worse(gate: Gate, whole: Tally, frozen: Ranks | None) -> float:
    """Return the evidence that the candidate is worse."""
    if gate.kind is GateKind.MEANS:
        worse = means.show_higher(whole.values, gate.cap)
        mine, theirs = means.weigh_means(whole.values)
        return worse if mine > theirs else min(worse, 0.0)
    if gate.kind is GateKind.RANKS:  # the baseline may not have had enough values yet
        return frozen.show_higher(whole.values) if frozen else 0.0
    worse = show_worse(whole.bad)
    return min(worse, 0.0) if add_units(whole.bad).candidate < LEAST_UNITS else worse


def _show_better(gate: Gate, step: Tally, frozen: Ranks | None) -> float:
    """Return the evidence that the candidate is better than the baseline."""
    if gate.kind is GateKind.MEANS:
        return means.show_not_higher(step.values, gate.cap, 0.0)
    return _show_worse(gate, _swap(step), frozen)


def _show_fine(gate: Gate, step: Tally, frozen: Ranks | None) -> float:
    """Return the evidence that the candidate is good enough."""
    if gate.kind is GateKind.MEANS:
        return means.show_not_higher(step.values, gate.cap, gate.margin)
    if gate.kind is GateKind.RANKS:
        return frozen.show_not_higher(step.values, gate.margin) if frozen else 0.0
    fine = show_not_worse(step.bad, gate.margin)
    if gate.limit is not None and step.probed:
        bad = add_units(step.bad).candidate + step.again_bad
        units = add_units(step.units).candidate + step.again - step.young
        fine = max(fine, show_below(bad, max(bad, units), gate.limit))
    return fine


def _swap(tally: Tally) -> Tally:
    """Return a tally with the arms in each other's place."""
    return Tally(
        units=_swap_counts(tally.units),
        bad=_swap_counts(tally.bad),
        values={
            Weight(weight.baseline, weight.candidate): Values(both.baseline, both.candidate)
            for weight, both in tally.values.items()
        },
        probed=tally.probed,
    )


def _swap_counts(counts: Counts) -> Counts:
    return {
        Weight(weight.baseline, weight.candidate): Units(units.baseline, units.candidate)
        for weight, units in counts.items()
    }


def _estimate(gate: Gate, tally: Tally, units: Units, bad: Units) -> float | None:
    """Return how many times as bad the candidate is: in shares, medians or means."""
    if gate.kind is GateKind.EVENTS:
        if not units.candidate or not bad.baseline:
            return None
        return bad.candidate / units.candidate / (bad.baseline / units.baseline)
    if gate.kind is GateKind.MEANS:
        mean, base = means.weigh_means(tally.values)
        return mean / base if base else None
    both = merge_values(tally.values)
    mine, theirs = both.candidate.quantile(0.5), both.baseline.quantile(0.5)
    return mine / theirs if mine is not None and theirs else None


def merge_values(samples: Samples) -> Values:
    """Return the values of all weights together."""
    both = Values(Sketch(buckets={}), Sketch(buckets={}))
    for candidate, baseline in samples.values():
        both.candidate.merge(candidate)
        both.baseline.merge(baseline)
    return both


def _look_ahead(
    look: GateLook, needed: float | None, counted: int, measured: Measurement
) -> GateLook:
    """Return a look with its forecast, by how fast the step's units have come."""
    counted_s = measured.counted_s or measured.elapsed_s
    eta_s = None
    if needed is not None and counted and counted_s:
        eta_s = needed * counted_s / counted
    return replace(look, needed=needed, eta_s=eta_s)


def _extrapolate(counted: int, look: GateLook) -> float | None:
    """Return how many more units are needed if evidence grows as it did, None if it does not."""
    if look.is_fine:
        return 0.0
    return counted * (look.fine_bound - look.fine) / look.fine if look.fine > 0 else None


def _forecast(gate: Gate, step: Tally, look: GateLook) -> float | None:
    """Return how many more units a gate of events needs, None where it has counted nothing."""
    if look.is_fine:
        return 0.0
    units, fine, bound = add_units(step.units), look.fine, look.fine_bound
    if not units.total:
        return None
    share = _weigh(step.units)
    base = (add_units(step.bad).total + 0.5) / (units.total + 1)
    alpha = math.exp(-bound)
    left = 1 - max(0.0, fine) / bound
    needed = power.count_units_to_show_not_worse(share, base, gate.margin, alpha) * left
    if gate.limit is not None and step.probed and base < gate.limit:
        clean = power.count_clean_units(gate.limit, alpha) / share
        needed = min(needed, max(0.0, clean - units.total))
    return needed


def _weigh(units: Counts) -> float:
    """Return the candidate's share over all weights of a step, by units."""
    total = sum(each.total for each in units.values())
    return sum(weight.share * each.total for weight, each in units.items()) / total
