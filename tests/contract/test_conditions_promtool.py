"""Conditions hold here when their rules hold in Prometheus: both are asked, step by step."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.evaluator import evaluate
from pilotage.core.condition.prometheus import to_prometheus
from pilotage.core.condition.types import Condition, Labels, MetricRef
from pilotage.monitoring.alerts.rules import begin_standing, move_standing
from pilotage.monitoring.alerts.types import AlertState, Standing
from promtool import INTERVAL_US, Case, World, judge
from random_conditions import Writer, draw_series, draw_values

STEPS = 20
RULES = 100  # of one world
pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not installed"
)


def test_random_rules_fire_at_the_same_steps_as_in_prometheus(tmp_path: Path) -> None:
    assert compare_world(tmp_path, seed=1, rules=50)["steps that hold"] > 50


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_random_rules_fire_at_the_same_steps_as_in_prometheus(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(10, 21):
        seen += compare_world(tmp_path, seed=seed, rules=RULES)
    assert seen["rules"] >= 1_000
    # Agreement on silence alone would prove little.
    assert seen["rules that fire"] > seen["rules"] / 4
    assert seen["rules that stop"] > seen["rules"] / 10
    print(", ".join(f"{count:,} {what}" for what, count in seen.items()))


def compare_world(folder: Path, seed: int, rules: int) -> Counter[str]:
    """Ask promtool about random rules on random series; return what there was to agree on."""
    chance = Random(seed)
    writer = Writer(chance)
    conditions = [writer.make() for _ in range(rules)]
    world = make_world(chance, conditions)
    cases = [make_case(f"rule {at}", each, world) for at, each in enumerate(conditions)]
    said = judge(folder, world, "default", cases)
    assert said == "", said[:4000]
    return count_agreement(cases) + Counter({"texts refused": writer.refused})


def make_world(chance: Random, conditions: list[Condition]) -> World:
    """Return values of all that conditions ask for."""
    world: World = {}
    for ref in (ref for condition in conditions for ref in condition.metrics):
        series = world.setdefault((ref.name, ref.window_us), {})
        for labels in draw_series(chance, ref):
            if labels not in series:
                series[labels] = draw_values(chance, METRICS[ref.name], STEPS)
    return world


def make_case(name: str, condition: Condition, world: World) -> Case:
    """Return what a rule does in a world, step by step, as we see it."""
    found = [evaluate(condition, partial(look, world, step)) for step in range(STEPS)]
    return Case(
        rule=to_prometheus(name, condition, project="default", labels={}, annotations={}),
        firing=list_firing(condition, found),
        samples=[None if is_excepted(samples) else samples for samples in found],
    )


def look(world: World, step: int, ref: MetricRef) -> dict[Labels, float]:
    """Return all series of a metric at a step, also those that a reference does not mean."""
    series = world[ref.name, ref.window_us].items()
    return {labels: now for labels, values in series if (now := values[step]) is not None}


def list_firing(
    condition: Condition, found: Sequence[Mapping[Labels, float]]
) -> list[list[Labels]]:
    """Return the series that fire at each step, by the rules of our own alerts."""
    standings: dict[Labels, Standing] = {}
    firing = []
    for step, held in enumerate(found):
        now_us = step * INTERVAL_US
        moved = {
            labels: move_standing(
                before,
                is_held=labels in held,
                now_us=now_us,
                for_us=condition.for_us,
                keep_us=0,
                vouched_us=INTERVAL_US,
            )
            for labels, before in standings.items()
        }
        standings = {
            labels: after
            for labels, after in moved.items()
            if after is not None and after.state is not AlertState.RESOLVED
        }
        for labels in held:
            standings.setdefault(labels, begin_standing(now_us, condition.for_us))
        firing.append([each for each, now in standings.items() if now.state is AlertState.FIRING])
    return firing


def is_excepted(samples: Mapping[Labels, float]) -> bool:
    """Say whether samples are ``0 / 0 != x``: it holds in both, but promtool finds NaN unlike NaN.

    That is the one exception; alerts are compared there, too.
    """
    return any(math.isnan(value) for value in samples.values())


def count_agreement(cases: Sequence[Case]) -> Counter[str]:
    """Return how much there was that could have been different."""
    firing = [[bool(labels) for labels in case.firing] for case in cases]
    return Counter(
        {
            "rules": len(cases),
            "rules that fire": sum(any(steps) for steps in firing),
            "rules that stop": sum((True, False) in pairwise(steps) for steps in firing),
            "steps": len(cases) * STEPS,
            "steps that hold": sum(bool(step) for case in cases for step in case.samples),
            "steps that fire": sum(sum(steps) for steps in firing),
            "steps of 0 / 0": sum(step is None for case in cases for step in case.samples),
        }
    )
