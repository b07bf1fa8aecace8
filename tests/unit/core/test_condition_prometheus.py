"""Conditions as rules of Prometheus, as fields, and the catalogue both are made from."""

import math

import pytest
import yaml

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.fields import COMPARISONS, FIELDS, write_fields
from pilotage.core.condition.parser import parse
from pilotage.core.condition.prometheus import make_rule_file, to_prometheus, write_expr
from pilotage.core.condition.units import BYTES, RATIO, USD, format_unit, give_example
from pilotage.core.errors import PilotageError


def test_a_rule_of_prometheus_says_what_the_condition_says() -> None:
    rule = to_prometheus(
        "slow",
        parse("p95_latency > 2s for 5m"),
        project="default",
        labels={"severity": "warning"},
        annotations={"summary": "p95 over {{ 2s"},
        keep_firing_us=60_000_000,
    )
    assert rule == {
        "alert": "slow",
        "expr": 'max by (alias) (pilotage_p95_latency{project="default", window="1m", alias!="", '
        'tenant="", arm="", version="", model=""}) > 2',
        "for": "5m",
        "keep_firing_for": "1m",
        "labels": {"project": "default", "severity": "warning"},
        "annotations": {"summary": 'p95 over {{"{{"}} 2s'},
    }
    assert make_rule_file({"alerts": [rule]}, 15_000_000) == {
        "groups": [{"name": "alerts", "interval": "15s", "rules": [rule]}]
    }


def test_a_rule_that_waits_for_nothing_says_so_by_silence() -> None:
    rule = to_prometheus("dear", parse("budget > 1"), project="p", labels={}, annotations={})
    assert rule.keys() == {"alert", "expr", "labels", "annotations"}


BUDGET = 'max by () (pilotage_budget{project="p", alias="", tenant="", model="", feature=""})'
ACME = (
    'max by (tenant) (pilotage_budget{project="p", alias="", model="", feature="", tenant="acme"})'
)
ALIASES = (
    'max by (alias) (pilotage_budget{project="p", alias!="", tenant="", model="", feature=""})'
)


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("budget > -1.50", f"{BUDGET} > -(1.5)"),
        ("2 * (budget + 1) > 3", f"2 * ({BUDGET} + 1) > 3"),
        ('budget{tenant="acme"} > budget', f"{ACME} > on() group_left() {BUDGET}"),
        ('budget < budget{tenant="acme"}', f"{BUDGET} < on() group_right() {ACME}"),
        ('budget > 1 and budget{tenant="acme"} > 2', f"{BUDGET} > 1 and on() {ACME} > 2"),
        ('budget > 1 or budget{tenant="acme"} > 2', f"{BUDGET} > 1 or {ACME} > 2"),
        (
            'absent(budget{tenant="acme"})',
            f"max by (tenant) (absent({ACME.removeprefix('max by (tenant) (')})",
        ),
        (
            'budget{alias!=""} > 1 unless budget{tenant="acme"} > 2',
            f"{ALIASES} > 1 unless on() {ACME} > 2",
        ),
    ],
)
def test_operators_name_the_labels_they_look_at(text: str, expr: str) -> None:
    assert write_expr(parse(text), "p") == expr


def test_filters_and_windows_are_handed_on() -> None:
    expr = write_expr(parse('cost{arm!~"old.*", alias=~"a|b"}[1h] > 1'), "p")
    assert expr == (
        'max by (alias, arm) (pilotage_cost{project="p", window="1h", alias!="", tenant="", '
        'arm!="", version="", model="", arm!~"old.*", alias=~"a|b"}) > 1'
    )


def test_a_rule_file_is_yaml() -> None:
    rule = to_prometheus("a", parse("budget > 1"), project="p", labels={}, annotations={})
    made = make_rule_file({"all": [rule]}, 1_000_000)
    assert yaml.safe_load(yaml.safe_dump(made)) == made


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("latency_p95", "gt", 500.0), "p95_latency > 500ms"),
        (("error_rate", "gt", 0.01), "error_rate > 0.01"),
        (("p95_latency", "gte", 2), "p95_latency >= 2s"),
        (("accelerator_duty_cycle", "lt", 5), "gpu_usage < 5%"),
        (("throughput_qps", "lte", 1e-7), "request_rate <= 0.0000001"),
        (("accuracy", "lt", 0.9), "accuracy < 0.9"),
        (("monthly_cost", "eq", 1e9), "monthly_cost == 1000000000"),
    ],
)
def test_fields_are_a_condition(fields: tuple[str, str, float], text: str) -> None:
    assert write_fields(*fields) == text
    assert parse(text).for_us == 0


@pytest.mark.parametrize("name", sorted(FIELDS.keys() | METRICS.keys()))
def test_every_name_of_a_field_makes_a_condition(name: str) -> None:
    assert parse(write_fields(name, "gt", 0.5)).metrics


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        (("latency_p59", "gt", 1.0), "metric_name", "latency_p95"),
        (("zzzz", "gt", 1.0), "metric_name", "The metrics are listed"),
        (("error_rate", "above", 1.0), "comparison", ", ".join(COMPARISONS)),
        (("error_rate", "gt", math.nan), "threshold", ""),
        (("error_rate", "gt", math.inf), "threshold", ""),
    ],
)
def test_fields_that_are_none_are_refused(
    fields: tuple[str, str, float], param: str, hint: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        write_fields(*fields)
    assert refused.value.param == param
    assert hint in refused.value.hint


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_be_asked_for_with_the_example_of_its_unit(name: str) -> None:
    metric = METRICS[name]
    assert set(metric.split_by) <= set(metric.labels)
    assert metric.gauge == f"pilotage_{metric.name}"
    assert metric.unit_name == format_unit(metric.unit)
    for example in give_example(metric.unit).split(" or "):
        condition = parse(f"{metric.name} > {example}")
        assert condition.metrics[0].by == tuple(sorted(metric.split_by))
        assert condition.metrics[0].window_us == metric.window_us


def test_units_have_names() -> None:
    assert [format_unit(unit) for unit in (RATIO, USD, BYTES)] == ["ratio", "USD", "bytes"]
    assert format_unit((("s", -1),)) == "1/s"
    assert format_unit((("USD", 1), ("s", 2))) == "USD*s^2"
