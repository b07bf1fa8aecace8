"""Alert rules of the Python API: fields or a condition, and what a value says of them."""

import pytest

from pilotage import AlertRule, AlertSeverity, MetricType


def test_fields_have_the_defaults_of_the_design_documents() -> None:
    rule = AlertRule(rule_name="slow", metric_name="latency_p95", threshold=500.0)

    assert (rule.metric_type, rule.severity) == (None, AlertSeverity.WARNING)
    assert (rule.comparison, rule.enabled) == ("gt", True)
    words = {"metric_type": "cost", "severity": "critical"}
    of_words = AlertRule(rule_name="a", condition="cost > 1", **words)  # type: ignore[arg-type]
    assert (of_words.metric_type, of_words.severity) == (MetricType.COST, AlertSeverity.CRITICAL)


@pytest.mark.parametrize(
    ("comparison", "broken"), [("gt", [501.0]), ("lt", [499.0]), ("eq", [500.0])]
)
def test_a_value_is_compared_in_the_metrics_own_unit(comparison: str, broken: list[float]) -> None:
    rule = AlertRule(rule_name="r", metric_name="x", threshold=500.0, comparison=comparison)

    assert [value for value in (499.0, 500.0, 501.0) if rule.evaluate(value)] == broken
    rule.enabled = False
    assert not any(rule.evaluate(value) for value in (499.0, 500.0, 501.0))


def test_a_threshold_of_nothing_is_a_threshold() -> None:
    rule = AlertRule(rule_name="any", metric_name="error_count", threshold=0)

    assert rule.evaluate(1)
    assert not rule.evaluate(0)


def test_a_condition_is_evaluated_on_the_value_of_its_metric() -> None:
    rule = AlertRule(rule_name="slow", condition="p95_latency > 2s for 5m")

    assert rule.evaluate(2.5)
    assert not rule.evaluate(2.0)
    both = AlertRule(rule_name="cost", condition="daily_cost > budget * 1.2")
    with pytest.raises(ValueError, match="daily_cost, budget"):
        both.evaluate(1.0)


@pytest.mark.parametrize(
    "filters", ['alias="chat",tenant="acme"', 'arm!="old"', 'arm=~"a|b"', 'arm!~"a|b"', 'arm=""']
)
def test_a_value_is_of_a_series_that_the_filters_mean(filters: str) -> None:
    rule = AlertRule(rule_name="one", condition=f"error_rate{{{filters}}} > 1%")

    assert rule.evaluate(0.02)
    assert not rule.evaluate(0.01)


def test_both_sides_may_ask_for_the_metric_and_no_value_is_absent() -> None:
    twice = 'error_rate{arm="a"} > 1% and error_rate{arm="a"} * 2 < 10%'
    rule = AlertRule(rule_name="between", condition=twice)

    assert [value for value in (0.01, 0.02, 0.06) if rule.evaluate(value)] == [0.02]
    assert not AlertRule(rule_name="gone", condition="absent(request_count)").evaluate(1.0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"metric_name": "x"},
        {"threshold": 1.0},
        {"metric_name": "x", "threshold": 1.0, "condition": "cost > 1"},
        {"metric_name": "x", "threshold": 1.0, "comparison": "above"},
        {"condition": "cost > 1", "severity": "dreadful"},
    ],
)
def test_a_rule_that_says_nothing_or_two_things_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"condition|comparison|dreadful"):
        AlertRule(rule_name="r", **fields)  # type: ignore[arg-type]
