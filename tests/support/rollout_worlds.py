"""Worlds to try rollouts in: traffic with known truths, dealt by coins and judged at every look.

A world is a sequence of units (sessions, unless said otherwise) in the order in which they end:
which arm each was dealt to and at what weight, whether it had an error, how long its first call
took in microseconds, and what that cost in nano-USD.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from pilotage.core.gates.ranks import Ranks
from pilotage.core.gates.types import Units, Values, Weight
from pilotage.core.sketch import GAMMA, Sketch
from pilotage.rollouts.rules import judge
from pilotage.rollouts.types import (
    Gate,
    GateKind,
    Judgement,
    Measurement,
    Risk,
    Signal,
    Tally,
    Verdict,
)

Array: TypeAlias = np.ndarray[Any, Any]
TYPICAL_US, SPREAD = 800_000.0, 0.8  # of log-normal latencies
TYPICAL_NANO = 40_000.0
CAP_NANO = 8 * TYPICAL_NANO
BASE = 0.01
TURNS = 4.0  # calls of a session, on average
REFERENCE = 2_000  # values of the baseline that are frozen
GATES = (
    Gate(name="error", signal=Signal.ERROR, kind=GateKind.EVENTS, margin=1.0),
    Gate(name="slow", signal=Signal.LATENCY, kind=GateKind.EVENTS, margin=0.5),
    Gate(name="latency", signal=Signal.LATENCY, kind=GateKind.RANKS, margin=0.2),
    Gate(name="cost", signal=Signal.COST, kind=GateKind.MEANS, margin=0.2, cap=CAP_NANO),
)


@dataclass(frozen=True, kw_only=True)
class World:
    """Units in order, and the values of the baseline from before.

    Of units that are not ``is_warm`` only errors count, whichever arm they were dealt to.
    """

    weights: list[Weight]
    weight: Array  # index into weights
    is_candidate: Array
    is_error: Array
    latency_us: Array
    cost_nano: Array
    is_warm: Array
    reference_us: Array


@dataclass(frozen=True, kw_only=True)
class Truth:
    """How many times as high the candidate's errors, latency and cost are.

    ``tail`` is the share of its units that take five times as long, ``dear`` of those that cost a
    hundred times as much.
    """

    errors: float = 1.0
    latency: float = 1.0
    cost: float = 1.0
    tail: float = 0.0
    dear: float = 0.0


EQUAL = Truth()
Maker: TypeAlias = Callable[[np.random.Generator, int, float], World]


def make_world(
    rng: np.random.Generator,
    units: int,
    share: float,
    truth: Truth = EQUAL,
    *,
    base: Array | float = BASE,
    pace: Array | float = 1.0,
    turns: float = TURNS,
) -> World:
    """Return sessions of a geometric number of calls; ``base`` and ``pace`` are by unit.

    ``base`` is the chance of an error of one call with the baseline, ``pace`` what its latency is
    multiplied by.
    """
    is_candidate = rng.random(units) < share
    calls = rng.geometric(1 / turns, units)
    chance = np.minimum(1.0, base * np.where(is_candidate, truth.errors, 1.0))
    is_error = rng.random(units) < 1 - (1 - chance) ** calls
    latency = draw_latency(rng, units) * pace * np.where(is_candidate, truth.latency, 1.0)
    latency = latency * np.where(is_candidate & (rng.random(units) < truth.tail), 5.0, 1.0)
    cost = rng.lognormal(math.log(TYPICAL_NANO), 0.5, units)
    cost = np.minimum(cost * np.where(is_candidate, truth.cost, 1.0), CAP_NANO)
    cost = cost * np.where(is_candidate & (rng.random(units) < truth.dear), 100.0, 1.0)
    return World(
        weights=[to_weight(share)],
        weight=np.zeros(units, dtype=int),
        is_candidate=is_candidate,
        is_error=is_error,
        latency_us=latency,
        cost_nano=cost,
        is_warm=np.ones(units, dtype=bool),
        reference_us=draw_latency(rng, REFERENCE),
    )


def draw_latency(rng: np.random.Generator, count: int) -> Array:
    """Return latencies of the baseline in microseconds."""
    return rng.lognormal(math.log(TYPICAL_US), SPREAD, count)


def to_weight(share: float) -> Weight:
    """Return a share as a weight."""
    return Weight(round(share * 10_000), round((1 - share) * 10_000))


# Worlds in which the candidate is no worse.


def calm(rng: np.random.Generator, units: int, share: float) -> World:
    """Nothing happens."""
    return make_world(rng, units, share)


def waves(rng: np.random.Generator, units: int, share: float) -> World:
    """Load comes in waves: errors and latency of both arms go up to three times as high."""
    height = 1 + 2 * np.sin(np.arange(units) / units * 12 * np.pi) ** 2
    return make_world(rng, units, share, base=BASE * height, pace=height)


def clustered_users(rng: np.random.Generator, units: int, share: float) -> World:
    """Three hundred users, a few of whom have nearly all the errors; a session is dealt anew."""
    rates = rng.beta(0.05, 4.95, 300)
    return make_world(rng, units, share, base=rates[rng.integers(0, 300, units)])


def whale(rng: np.random.Generator, units: int, share: float) -> World:
    """One user has a fifth of the traffic, and five times as many errors."""
    is_whale = rng.random(units) < 0.2
    return make_world(rng, units, share, base=np.where(is_whale, 5 * BASE, BASE))


def retries(rng: np.random.Generator, units: int, share: float) -> World:
    """Each failure is tried again up to four times, in the same session: one bad unit."""
    return make_world(rng, units, share, turns=2 * TURNS)


def ramp(rng: np.random.Generator, units: int, share: float) -> World:
    """Weights of 1, 5, 25 and 50 %; users stay where they are, and count once, when they fail."""
    del share
    shares = [0.01, 0.05, 0.25, 0.5]
    users = rng.integers(0, max(1, units // 5), units)
    point = rng.random(users.max() + 1)[users]
    step = np.arange(units) * len(shares) // units
    rates = rng.beta(0.05, 4.95, users.max() + 1)[users]
    world = make_world(rng, units, 0.5, base=rates)
    _, first = np.unique(np.where(world.is_error, users, -1 - np.arange(units)), return_index=True)
    counted = np.zeros(units, dtype=bool)
    counted[first] = True
    _, seen = np.unique(users, return_index=True)
    is_new = np.zeros(units, dtype=bool)
    is_new[seen] = True
    ramped = replace(
        world,
        weights=[to_weight(each) for each in shares],
        weight=step,
        is_candidate=point < np.array(shares)[step],
        is_error=world.is_error & counted,
    )
    return _take(ramped, is_new | ramped.is_error)


def shared_outage(rng: np.random.Generator, units: int, share: float) -> World:
    """What both arms depend on fails for a twentieth of the time."""
    at = np.arange(units) / units
    is_out = (at > 0.4) & (at < 0.45)
    return make_world(rng, units, share, base=np.where(is_out, 1.0, BASE))


def cold_starts(rng: np.random.Generator, units: int, share: float) -> World:
    """Replicas of both arms start anew; what each serves first is slow, until all are warm."""
    world = make_world(rng, units, share)
    is_cold, is_warm = np.zeros(units, dtype=bool), np.ones(units, dtype=bool)
    for start in (0, units // 2):
        for arm, replicas in ((True, 1), (False, 3)):
            served = np.flatnonzero(world.is_candidate == arm)
            first = served[served >= start][: 20 * replicas]
            is_cold[first] = True
            is_warm[start : first[-1] + 1] = False
    return _chill(world, is_cold, is_warm)


def scale_ups(rng: np.random.Generator, units: int, share: float) -> World:
    """Waves of load, in which calls fail; the baseline meets each with replicas that are cold."""
    in_wave = np.arange(units) / units * 10 % 1 < 0.4
    world = make_world(rng, units, share, base=np.where(in_wave, 5 * BASE, BASE))
    is_cold = in_wave & ~world.is_candidate & (rng.random(units) < 0.7)
    return _chill(world, is_cold, ~in_wave)


def _chill(world: World, is_cold: Array, is_warm: Array) -> World:
    """Return a world in which units of cold replicas take ten times as long."""
    latency = np.where(is_cold, 10.0, 1.0) * world.latency_us
    return replace(world, latency_us=latency, is_warm=is_warm)


def periodic_client(rng: np.random.Generator, units: int, share: float) -> World:
    """Every tenth unit comes from a client that always fails; arms are dealt by hash."""
    world = make_world(rng, units, share, base=np.where(np.arange(units) % 10 == 0, 1.0, 0.001))
    salt = rng.integers(0, 2**32)
    points = [_hash(f"{salt}|unit-{number}") for number in range(units)]
    return replace(world, is_candidate=np.array(points) < share)


def sticky_users(rng: np.random.Generator, units: int, share: float) -> World:
    """Users are the units: each is dealt once, and counts with the first of its errors."""
    users = rng.integers(0, max(1, units // 3), units)
    rates = rng.beta(0.05, 4.95, users.max() + 1)
    world = make_world(rng, units, share, base=rates[users])
    dealt = rng.random(users.max() + 1) < share
    ever = np.zeros(users.max() + 1, dtype=bool)
    np.logical_or.at(ever, users, world.is_error)
    _, first = np.unique(users, return_index=True)
    user_of = replace(world, is_candidate=dealt[users], is_error=ever[users])
    keep = np.zeros(units, dtype=bool)
    keep[first] = True
    return _take(user_of, keep)


NULL_WORLDS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        calm,
        waves,
        clustered_users,
        whale,
        retries,
        ramp,
        shared_outage,
        cold_starts,
        scale_ups,
        periodic_client,
        sticky_users,
    )
}


@dataclass(frozen=True, kw_only=True)
class End:
    """How a rollout ended: the verdict, after how many units, at which look and which step."""

    verdict: Verdict
    units: int
    judgement: Judgement
    step: int = 0


def run(
    world: World, gates: tuple[Gate, ...] = GATES, *, looks: float = 1.1, promotes: bool = True
) -> End:
    """Judge a world at every look, each when there are ``looks`` times the units of the last.

    Without ``promotes`` it goes on when the candidate was shown to be fine. Where the weight
    changes, a step begins.
    """
    state = _State(world.reference_us, gates)
    return _run_on(state, world, looks=looks, promotes=promotes)


def run_steps(
    worlds: Iterable[World], gates: tuple[Gate, ...] = GATES, *, looks: float = 1.1
) -> End:
    """Judge one world after the other, each of them a step that begins when the last promotes."""
    state, units, end = None, 0, None
    for step, world in enumerate(worlds):
        state = state or _State(world.reference_us, gates)
        state.begin_step()
        end = _run_on(state, world, looks=looks, promotes=True)
        units += end.units
        end = replace(end, units=units, step=step)
        if end.verdict is not Verdict.PROMOTE:
            return end
    assert end is not None
    return end


def _run_on(state: "_State", world: World, *, looks: float, promotes: bool) -> End:
    judgement = None
    for since, until in _list_looks(world, looks):
        if since and world.weight[since] != world.weight[since - 1]:
            state.begin_step()
        judgement = state.judge(world, since, until)
        if judgement.verdict is Verdict.ROLL_BACK or (
            promotes and judgement.verdict is Verdict.PROMOTE
        ):
            return End(verdict=judgement.verdict, units=until, judgement=judgement)
    assert judgement is not None
    return End(verdict=Verdict.HOLD, units=len(world.weight), judgement=judgement)


class _State:
    """Counts that grow from look to look: of the whole rollout, and of the step that runs."""

    def __init__(self, reference_us: Array, gates: tuple[Gate, ...]) -> None:
        frozen = Ranks(_sketch(reference_us))
        self._ranks = {gate.name: frozen for gate in gates if gate.kind is GateKind.RANKS}
        self._slow_us = float(np.quantile(reference_us, 0.95))
        self._gates = gates
        self._dealt: dict[Weight, Units] = {}
        self._whole = _Counts(gates)
        self._step = self._whole

    def begin_step(self) -> None:
        """Begin a step: what was counted of others does not count for it."""
        if self._dealt:
            self._step = _Counts(self._gates)

    def judge(self, world: World, since: int, until: int) -> Judgement:
        """Count some units more; return the verdict then."""
        for index, weight in enumerate(world.weights):
            at = np.flatnonzero(world.weight[since:until] == index) + since
            if not len(at):
                continue
            _count(self._dealt, weight, *map(len, _split(world, at)))
            for gate in self._gates:
                which = at if gate.signal is Signal.ERROR else at[world.is_warm[at]]
                counted = _tally(gate, world, which, self._slow_us)
                self._whole.add(gate, weight, counted)
                if self._step is not self._whole:
                    self._step.add(gate, weight, counted)
        whole = self._whole.tallies
        step = whole if self._step is self._whole else self._step.tallies
        measured = Measurement(
            whole=whole, step=step, first_seen=self._dealt, elapsed_s=float(until)
        )
        return judge(self._gates, measured, self._ranks, Risk())


class _Counts:
    """What gates have counted, by weight."""

    def __init__(self, gates: tuple[Gate, ...]) -> None:
        self._units: dict[str, dict[Weight, Units]] = {gate.name: {} for gate in gates}
        self._bad: dict[str, dict[Weight, Units]] = {gate.name: {} for gate in gates}
        self._values: dict[str, dict[Weight, Values]] = {gate.name: {} for gate in gates}

    def add(self, gate: Gate, weight: Weight, counted: tuple[Units, Units, Values]) -> None:
        """Add units, those of them that are bad, and their values."""
        units, bad, values = counted
        _count(self._units[gate.name], weight, *units)
        _count(self._bad[gate.name], weight, *bad)
        empty = Values(Sketch(buckets={}), Sketch(buckets={}))
        held = self._values[gate.name].setdefault(weight, empty)
        held.candidate.merge(values.candidate)
        held.baseline.merge(values.baseline)

    @property
    def tallies(self) -> dict[str, Tally]:
        """What there is to be judged, by gate."""
        return {
            name: Tally(units=units, bad=self._bad[name], values=self._values[name], probed=True)
            for name, units in self._units.items()
        }


def _tally(gate: Gate, world: World, which: Array, slow_us: float) -> tuple[Units, Units, Values]:
    """Return some units of both arms, those of them that are bad, and their values."""
    mine, theirs = _split(world, which)
    units = Units(len(mine), len(theirs))
    if gate.kind is GateKind.EVENTS:
        is_bad = world.is_error if gate.signal is Signal.ERROR else world.latency_us > slow_us
        bad = Units(int(is_bad[mine].sum()), int(is_bad[theirs].sum()))
        return units, bad, Values(Sketch(buckets={}), Sketch(buckets={}))
    numbers = world.cost_nano if gate.signal is Signal.COST else world.latency_us
    return units, Units(), Values(_sketch(numbers[mine]), _sketch(numbers[theirs]))


def _split(world: World, units: Array) -> tuple[Array, Array]:
    """Return some units by arm."""
    is_candidate = world.is_candidate[units]
    return units[is_candidate], units[~is_candidate]


def _count(counts: dict[Weight, Units], weight: Weight, mine: int, theirs: int) -> None:
    had = counts.get(weight, Units())
    counts[weight] = Units(had.candidate + mine, had.baseline + theirs)


def _sketch(values: Array) -> Sketch:
    """Make a sketch of many values at once."""
    numbers = np.maximum(1, np.floor(values))
    buckets = np.ceil(np.log(numbers) / math.log(GAMMA)).astype(int)
    found, counts = np.unique(buckets, return_counts=True)
    held = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return Sketch(total=int(numbers.sum()), buckets=held)


def _take(world: World, which: Array) -> World:
    return replace(
        world,
        weight=world.weight[which],
        is_candidate=world.is_candidate[which],
        is_error=world.is_error[which],
        latency_us=world.latency_us[which],
        cost_nano=world.cost_nano[which],
        is_warm=world.is_warm[which],
    )


def _list_looks(world: World, growth: float) -> Iterator[tuple[int, int]]:
    """Yield from and until which unit to count before each look; none spans two steps."""
    units = len(world.weight)
    begins = [*(np.flatnonzero(np.diff(world.weight)) + 1).tolist(), units]
    since, until = 0, min(20, units)
    while since < units:
        until = min(until, next(begin for begin in begins if begin > since))
        yield since, until
        since, until = until, min(units, max(until + 1, int(until * growth)))


def _hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
