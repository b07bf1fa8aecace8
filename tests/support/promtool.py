"""``promtool test rules`` as a judge: what rules make of series, step by step."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.prometheus import Rule, make_rule_file
from pilotage.core.condition.types import Labels
from pilotage.core.duration import format_duration

INTERVAL_US = 15_000_000
World = dict[tuple[str, int], dict[Labels, list[float | None]]]  # series by (metric, window)


@dataclass
class Case:
    """What one rule is expected to do.

    ``firing`` are, step by step, the labels of the alerts that fire; ``samples`` are the values for
    which its condition holds, None where they cannot be compared.
    """

    rule: Rule
    firing: Sequence[Sequence[Labels]]
    samples: Sequence[Mapping[Labels, float] | None]


def judge(folder: Path, world: World, project: str, cases: Sequence[Case]) -> str:
    """Return what promtool says against what is expected of rules, "" if it agrees."""
    rules = make_rule_file({"all": [case.rule for case in cases]}, INTERVAL_US)
    (folder / "rules.json").write_text(json.dumps(rules))
    interval = format_duration(INTERVAL_US)
    tests = {
        "rule_files": ["rules.json"],
        "evaluation_interval": interval,
        "tests": [
            {
                "interval": interval,
                "input_series": _list_input(world, project),
                "alert_rule_test": [test for case in cases for test in _list_alerts(case)],
                "promql_expr_test": [test for case in cases for test in _list_samples(case)],
            }
        ],
    }
    path = folder / "tests.json"
    path.write_text(json.dumps(tests).replace("Infinity", ".inf"))  # YAML but for that word
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _list_input(world: World, project: str) -> list[dict[str, str]]:
    """Return the series as one of two scrapes would show them, and another project's beside."""
    made = []
    for (name, window_us), series in world.items():
        for labels, values in series.items():
            shown = dict(labels) | {"instance": "control:8081", "job": "pilotage"}
            if window_us:
                shown["window"] = format_duration(window_us)
            gauge = METRICS[name].gauge
            made += [
                _write_series(gauge, shown | {"project": project}, values),
                _write_series(gauge, shown | {"project": "other"}, values[::-1]),
            ]
    return made


def _write_series(
    name: str, labels: Mapping[str, str], values: Sequence[float | None]
) -> dict[str, str]:
    """Return a series; a value that is missing ends it, as a scrape without it does."""
    shown = ("stale" if value is None else repr(value) for value in values)
    return {"series": name + _write_labels(labels), "values": " ".join(shown)}


def _write_labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def _list_alerts(case: Case) -> list[dict[str, object]]:
    fixed = case.rule["labels"]
    assert isinstance(fixed, dict)
    return [
        {
            "eval_time": _write_time(step),
            "alertname": case.rule["alert"],
            "exp_alerts": [{"exp_labels": fixed | dict(labels)} for labels in firing],
        }
        for step, firing in enumerate(case.firing)
    ]


def _list_samples(case: Case) -> list[dict[str, object]]:
    return [
        {
            "expr": case.rule["expr"],
            "eval_time": _write_time(step),
            "exp_samples": [
                {"labels": _write_labels(dict(labels)), "value": value}
                for labels, value in samples.items()
            ],
        }
        for step, samples in enumerate(case.samples)
        if samples is not None
    ]


def _write_time(step: int) -> str:
    return format_duration(step * INTERVAL_US)
