"""Rollouts tried again and again, each time with other draws: how often they end in what."""

import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from pilotage.rollouts.types import Verdict
from rollout_worlds import EQUAL, GATES, NULL_WORLDS, End, Truth, make_world, run, run_steps

SEED = 20_261_121
STEPS = (0.05, 0.25, 0.5)  # the usual ones
LATE = (EQUAL, Truth(errors=3), Truth(errors=3))  # what fails more once it has more traffic
MOST_UNITS = 40_000  # of a step; a rollout that is not decided by then is held
Trial: TypeAlias = Callable[[int], End]


@dataclass(frozen=True, kw_only=True)
class Told:
    """How many runs ended in which verdict, and the median number of units that they took."""

    runs: int
    promoted: int
    rolled_back: int
    units: float


def tell(trial: Trial, runs: int, pool: Executor | None = None) -> Told:
    """Return how the runs of a trial ended, which a pool may share."""
    numbers = range(runs)
    ends = list(pool.map(trial, numbers, chunksize=10) if pool else map(trial, numbers))
    return Told(
        runs=runs,
        promoted=sum(end.verdict is Verdict.PROMOTE for end in ends),
        rolled_back=sum(end.verdict is Verdict.ROLL_BACK for end in ends),
        units=statistics.median(end.units for end in ends),
    )


def try_world(name: str, *, units: int, share: float = 0.1, looks: float = 1.1) -> Trial:
    """Return a rollout of a harmless candidate that goes on to the end unless it is rolled back."""
    return partial(_run_world, name, units, share, looks)


def try_truth(truth: Truth, share: float) -> Trial:
    """Return a rollout in one step that ends when it is decided; units are sessions."""
    return partial(_run_truth, truth, share)


def try_steps(truths: Iterable[Truth], looks: float = 1.2) -> Trial:
    """Return a rollout in the usual steps, at each of which the candidate may be another."""
    return partial(_run_steps, tuple(truths), looks)


def try_errors(ratio: float, share: float, *, family: int = 1, looks: float = 1.05) -> Trial:
    """Return one whose gates look at errors only; units are calls, 1 % of which fail."""
    return partial(_run_errors, ratio, share, family, looks)


def _run_world(name: str, units: int, share: float, looks: float, number: int) -> End:
    world = NULL_WORLDS[name](_draw(number), units, share)
    return run(world, looks=looks, promotes=False)


def _run_truth(truth: Truth, share: float, number: int) -> End:
    return run(make_world(_draw(number), MOST_UNITS, share, truth))


def _run_steps(truths: tuple[Truth, ...], looks: float, number: int) -> End:
    draws = _draw(number)
    worlds = (
        make_world(draws, MOST_UNITS, share, truth)
        for share, truth in zip(STEPS, truths, strict=True)
    )
    return run_steps(worlds, looks=looks)


def _run_errors(ratio: float, share: float, family: int, looks: float, number: int) -> End:
    gates = tuple(replace(GATES[0], name=f"error-{index}") for index in range(family))
    world = make_world(_draw(number), MOST_UNITS, share, Truth(errors=ratio), turns=1.0)
    return run(world, gates, looks=looks)


def _draw(number: int) -> np.random.Generator:
    return np.random.default_rng([SEED, number])
