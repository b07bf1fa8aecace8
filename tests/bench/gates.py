"""How often rollouts in simulated worlds end wrongly, and how soon rightly, as tables.

    python tests/bench/gates.py [--runs 2000] [--units 4000] [--shares 10] [--only worlds]

``worlds`` are those in which the candidate is no worse, ``truths`` those in which it may be, in one
step, ``steps`` in the usual three, ``errors`` those of one signal, whose units are calls. The
numbers of docs/explanation/rollouts.md are what this prints; the same draws give the same numbers.
"""

import argparse
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from rollout_trials import LATE, Trial, tell, try_errors, try_steps, try_truth, try_world
from rollout_worlds import EQUAL, NULL_WORLDS, Truth

PARTS = ("worlds", "truths", "steps", "errors")
TRUTHS = {
    "nothing worse": EQUAL,
    "half the errors": Truth(errors=0.5),
    "twice the errors": Truth(errors=2),
    "three times": Truth(errors=3),
    "ten times": Truth(errors=10),
    "latency 20 % higher": Truth(latency=1.2),
    "latency 50 % higher": Truth(latency=1.5),
    "5 % of units five times as slow": Truth(tail=0.05),
    "cost 20 % higher": Truth(cost=1.2),
    "cost 50 % higher": Truth(cost=1.5),
    "1 % of units a hundred times as dear": Truth(dear=0.01),
}
STEPS = {
    "nothing worse": (EQUAL, EQUAL, EQUAL),
    "twice the errors": (Truth(errors=2),) * 3,
    "three times the errors from 25 % on": LATE,
}


def list_trials(parts: list[str], units: int, shares: list[float]) -> dict[str, Trial]:
    """Return what is tried, by what it is called."""
    trials: dict[str, Trial] = {}
    for share in shares:
        at = f"{share:.0%}"
        if "worlds" in parts:
            trials |= {
                f"{name}, {at}": try_world(name, units=units, share=share) for name in NULL_WORLDS
            }
        if "truths" in parts:
            trials |= {f"{name}, {at}": try_truth(truth, share) for name, truth in TRUTHS.items()}
    if "steps" in parts:
        trials |= {f"{name}, in steps": try_steps(truths) for name, truths in STEPS.items()}
    if "errors" in parts:
        for ratio, share, family in ((10, 0.1, 1), (10, 0.1, 7), (3, 0.1, 1), (1, 0.5, 1)):
            name = f"{ratio} times as many errors, {share:.0%}, {family} gate(s)"
            trials[name] = try_errors(ratio, share, family=family)
    return trials


def show(trials: dict[str, Trial], runs: int, pool: Executor) -> None:
    """Print a row for each trial as it ends."""
    print(f"| of {runs:,} runs | promoted | rolled back | units (median) |\n|---|---|---|---|")
    for name, trial in trials.items():
        told = tell(trial, runs, pool)
        parts = f"{told.promoted / runs:.1%} | {told.rolled_back / runs:.1%}"
        print(f"| {name} | {parts} | {told.units:,.0f} |", flush=True)


def main() -> None:
    """Read the arguments, try, print."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=2_000)
    asked.add_argument("--units", type=int, default=4_000, help="of each world")
    asked.add_argument("--shares", type=float, nargs="+", default=[10.0], help="in percent")
    asked.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    asked.add_argument("--jobs", type=int, default=2)
    said = asked.parse_args()
    began = time.monotonic()
    trials = list_trials(said.only, said.units, [share / 100 for share in said.shares])
    with ProcessPoolExecutor(said.jobs) as pool:
        show(trials, said.runs, pool)
    print(f"{time.monotonic() - began:.0f} s with {said.jobs} processes")


if __name__ == "__main__":
    main()
