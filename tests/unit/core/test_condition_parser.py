"""Conditions: what is read, what is refused, where, and with which advice."""

from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.lexer import MAX_LETTERS
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import (
    Comparison,
    Condition,
    ConditionError,
    Filter,
    Match,
    MetricRef,
    Number,
)
from pilotage.core.condition.units import RATIO, SECONDS, USD, Unit
from pilotage.core.condition.writer import write_condition
from random_conditions import Writer

MINUTE_US = 60_000_000


@pytest.mark.parametrize(
    ("text", "metrics", "for_us"),
    [
        ("p95_latency > 2s for 5m", ["p95_latency"], 5 * MINUTE_US),
        ("error_rate > 1% for 2m", ["error_rate"], 2 * MINUTE_US),
        ("prediction_distribution_shift > 0.1", ["prediction_distribution_shift"], 0),
        ("daily_cost > budget * 1.2", ["daily_cost", "budget"], 0),
    ],
)
def test_the_conditions_of_the_first_rules_are_read(
    text: str, metrics: list[str], for_us: int
) -> None:
    condition = parse(text)
    assert [ref.name for ref in condition.metrics] == metrics
    assert condition.for_us == for_us
    assert condition.text == text


def test_a_reference_says_which_series_it_means() -> None:
    asked = 'p95_latency{tenant="acme", arm!~"old.*"}[5m]'
    assert parse(f"{asked} > 2s").metrics == (
        MetricRef(
            name="p95_latency",
            filters=(
                Filter("tenant", Match.EQUAL, "acme"),
                Filter("arm", Match.UNLIKE, "old.*"),
            ),
            window_us=5 * MINUTE_US,
            by=("alias", "arm", "tenant"),
        ),
    )


def test_an_empty_label_takes_all_of_it_together() -> None:
    (ref,) = parse('request_rate{alias=""} > 10').metrics
    assert ref.by == ()


def test_what_is_asked_for_twice_is_listed_once() -> None:
    assert len(parse("cost > 1 and cost < 2 or cost[5m] > 9").metrics) == 2


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("p95_latency > 500ms", "0.5", SECONDS),
        ("p95_latency > 500 ms", "0.5", SECONDS),
        ("p95_latency > 1h30m", "5400", SECONDS),
        ("p95_latency > 0.5m", "30", SECONDS),
        ("error_rate > 5%", "0.05", RATIO),
        ("error_rate > 5 %", "0.05", RATIO),
        ("error_rate > 0.05", "0.05", None),
        ("daily_cost > $10.50", "10.50", USD),
        ("daily_cost > 10.50 $", "10.50", USD),
        ("daily_cost > 10.50 USD", "10.50", USD),
        ("request_rate > 10 req/s", "10", METRICS["request_rate"].unit),
        ("throughput > 10tokens/s", "10", METRICS["throughput"].unit),
        ("request_count > 10 req", "10", METRICS["request_count"].unit),
    ],
)
def test_numbers_are_kept_in_base_units(text: str, value: str, unit: Unit | None) -> None:
    assert read_number(parse(text)) == (Decimal(value), unit)


def read_number(condition: Condition) -> tuple[Decimal, Unit | None]:
    root = condition.root
    assert isinstance(root, Comparison)
    assert isinstance(root.right, Number)
    return root.right.value, root.right.unit


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("P95_latency>2s".lower(), "p95_latency > 2s"),
        ("  error_rate\n>\t1 %  FOR 120s", "error_rate > 1% for 2m"),
        ("((error_rate)) > ((1%))", "error_rate > 1%"),
        ("cost > 1 AND cost < 5 Or cost > 9", "cost > 1 and cost < 5 or cost > 9"),
        ("cost > 9 or (cost > 1 and cost < 5)", "cost > 9 or cost > 1 and cost < 5"),
        ("(cost > 9 or cost < 1) and cost > 0", "(cost > 9 or cost < 1) and cost > 0"),
        ("cost - (1 - 2) > 3", "cost - (1 - 2) > 3"),
        ("(cost - 1) - 2 > 3", "cost - 1 - 2 > 3"),
        ("cost * (1 + 2) / 2 > 3", "cost * (1 + 2) / 2 > 3"),
        ("-(cost + 1) < --1", "-(cost + 1) < --1"),
        ("cost[1m] > 1 unless absent(budget)", "cost > 1 unless absent(budget)"),
        ("cost{alias='a',}[60m] > 2.500", 'cost{alias="a"}[1h] > 2.5'),
        ("daily_cost > $100", "daily_cost > 100 USD"),
        ("request_rate > 100 req/s", "request_rate > 100 req/s"),
        ("error_rate > 150 ms / 2s", "error_rate > 0.15s / 2s"),
    ],
)
def test_every_condition_has_one_written_form(text: str, written: str) -> None:
    assert write_condition(parse(text)) == written


@settings(deadline=None)
@given(st.integers(0, 10**9))
def test_what_is_written_is_read_back(seed: int) -> None:
    condition = Writer(Random(seed)).make()
    written = write_condition(condition)
    again = parse(written)
    assert write_condition(again) == written
    assert (again.metrics, again.for_us) == (condition.metrics, condition.for_us)


REFUSED = [
    # text, what is marked, what is said, what is advised
    ("", "", "the end where a metric or a number should be", ""),
    ("p95_latncy > 2s", "p95_latncy", "no metric", "p95_latency"),
    ("latency_p95 > 2s", "latency_p95", "no metric", "p95_latency"),
    ("cpu > 2s", "cpu", "no metric", "cpu_usage"),
    ("zzzz > 2s", "zzzz", "no metric", "The metrics are listed"),
    ("p95_latency > 2", "2", "needs a unit: the other side is in seconds", "2s or 500ms"),
    ("2 < p95_latency", "2", "needs a unit", "2s or 500ms"),
    ("p95_latency + 1 > 2s", "1", "needs a unit", "2s"),
    ("p95_latency > 5%", "p95_latency > 5%", "seconds > ratio", "2s or 500ms"),
    ("daily_cost > 5s", "daily_cost > 5s", "USD > seconds", "10 USD or $10"),
    ("request_count > error_rate", "request_count > error_rate", "requests > ratio", "such as 10"),
    ("cost / request_count > $1", "cost / request_count > $1", "USD/request > USD", ""),
    ("1 / p95_latency > 2s", "1 / p95_latency > 2s", "1/s > seconds", ""),
    ("cost * cost > $1", "cost * cost > $1", "USD^2 > USD", ""),
    ("cost * p95_latency > $1", "cost * p95_latency > $1", "USD*s > USD", ""),
    ("p95_latency > 2 sec", "sec", "'sec' is no unit", "Write s."),
    ("p95_latency > 2 parsec", "parsec", "'parsec' is no unit", "Units are ms, s"),
    ("p95_latency > 1GiB", "p95_latency > 1GiB", "seconds > bytes", ""),
    ("p95_latency", "p95_latency", "not yet a condition", "p95_latency > 2s"),
    ("error_rate * 2 and cost > 1", "error_rate * 2", "not yet a condition", "it > 5%"),
    ("(cost > 1) * 2 > 1", "(cost > 1)", "no number", "and, or"),
    ("-(cost > 1) > 1", "(cost > 1)", "no number", ""),
    ("cost > 2 > 1", ">", "two sides", "a > b and b > c"),
    ("1 > 2", "1 > 2", "two constants", ""),
    ("cost / 0 > 1", "0", "divides by zero", ""),
    ("cost / (2 - 2) > 1", "(2 - 2)", "divides by zero", ""),
    ("cost > 1 &&", "&", "no meaning", "Write and."),
    ("cost ≥ 1", "≥", "no meaning", "Write >=."),
    ("cost > 1 ; drop", ";", "no meaning", ""),
    ('cost{alias="chat} > 1', '"', "no meaning", "Close the string"),
    ("cost > 1 for", "", "the end where a duration, as in for 5m", ""),
    ("cost > 1 for 5", "5", "a duration, as in for 5m", ""),
    ("cost > 1 for 5m or cost < 1", "or", "'or' where and, or, for or the end", ""),
    ("cost > 1 for 31d", "for 31d", "at most 30d", ""),
    ("cost > 1 for 0.5ms", "for 0.5ms", "whole milliseconds", ""),
    ("cost > 1 for 99999d", "99999d", "too long a duration", ""),
    ("cost[90s] > 1", "[90s]", "no window", "whole minutes, from 1m to 30d"),
    ("cost[31d] > 1", "[31d]", "no window", "30d"),
    ("cost[0s] > 1", "[0s]", "no window", "30d"),
    ("cost[5] > 1", "5", "a duration, as in [5m]", ""),
    ("cost[5m > 1", ">", "'>' where ] should be", ""),
    ("daily_cost[5m] > 1", "[5m]", "daily_cost has no window", "Leave it out."),
    ("cost[5m]{alias='a'} > 1", "{", "stand before the window", '{alias="chat"}[5m]'),
    ("cost{tenent='x'} > 1", "tenent", "no label 'tenent'", "tenant"),
    ("cost{zzz='x'} > 1", "zzz", "no label 'zzz'", "It has alias, tenant"),
    ("cost{'x'} > 1", "'x'", "a label or }", ""),
    ("cost{alias} > 1", "}", "= and what the label is", ""),
    ("cost{alias=chat} > 1", "chat", "a text in quotes", ""),
    ("cost{alias='a' tenant='b'} > 1", "tenant", "'tenant' where , or }", ""),
    ("cost{alias='a\\\\b'} > 1", "'a\\\\b'", "no label has such a value", ""),
    (f"cost{{alias='{'a' * 300}'}} > 1", f"'{'a' * 300}'", "no label has", ""),
    ("cost{alias=~'(a+)+'} > 1", "'(a+)+'", "a pattern is made of letters", "chat.*|code"),
    ("cost{alias=~'.*a.*b.*c.+'} > 1", "'.*a.*b.*c.+'", "at most 3", ""),
    ("absent cost > 1", "cost", "'cost' where ( should be", ""),
    ("absent(1) > 1", "1", "'1' where a metric", ""),
    ("absent(cost > 1", ">", "'>' where ) should be", ""),
    ("(cost > 1", "", "the end where ) should be", ""),
    ("cost > $", "", "an amount such as $10", ""),
    ("cost > 1" + "0" * 40, "1" + "0" * 40, "too many digits", ""),
    ("(" * 21 + "cost", "(", "nested too deeply", ""),
    ("cost > 0" + " + 0" * 200, "0", "at most 250 words", "several rules"),
    ("cost > 1" + " " * MAX_LETTERS, " " * 8, "at most 2000 letters", "several rules"),
    ("+".join(["cost"] * 33), "cost", "at most 32 metrics", ""),
    (
        "cost{alias='x', tenant=''} > budget{tenant='y'}",
        "cost{alias='x', tenant=''} > budget{tenant='y'}",
        "labels alias, those on the right tenant",
        'tenant=""',
    ),
    (
        "(cost > 1 or daily_cost > 1) and error_rate > 1%",
        "(cost > 1 or daily_cost > 1) and error_rate > 1%",
        "not clear what and looks at",
        "once for each side",
    ),
    (
        "error_rate > 1% unless (cost > 1 or daily_cost > 1)",
        "error_rate > 1% unless (cost > 1 or daily_cost > 1)",
        "not clear what unless looks at",
        "once for each side",
    ),
]


@pytest.mark.parametrize(("text", "marked", "said", "advised"), REFUSED)
def test_what_is_wrong_is_said_where_it_is(text: str, marked: str, said: str, advised: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse(text)
    error = refused.value
    assert text[error.start : error.end] == marked
    assert said in error.detail
    assert advised in error.hint
    assert (error.code, error.param) == ("invalid_request", "condition")


def test_an_error_points_at_the_letters() -> None:
    text = "error_rate > 1% and p95_latncy > 2s"
    with pytest.raises(ConditionError) as refused:
        parse(text)
    assert refused.value.point_at(text).splitlines() == [
        "error_rate > 1% and p95_latncy > 2s",
        "                    ^^^^^^^^^^",
    ]
    assert refused.value.detail == "At character 21: 'p95_latncy' is no metric."


WORDS = [
    *("p95_latency", "error_rate", "cost", "budget", "daily_cost", "absent", "alias", "tenant"),
    *("and", "or", "unless", "for", "(", ")", "{", "}", "[", "]", ",", "=", "!=", "=~", ">", "<"),
    *(">=", "==", "+", "-", "*", "/", "%", "$", "0", "1", "2.5", "5m", "2s", "1h30m", "req/s"),
    *("USD", '"a"', '""', '".*"'),
]


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_a_condition_or_refused_at_a_place_in_it(text: str) -> None:
    error = find_error(text)
    assert error is None or 0 <= error.start <= error.end <= len(text)


@settings(deadline=None)
@given(st.integers(0, 10**9), st.data())
def test_a_condition_that_lost_a_letter_is_still_read_or_refused(
    seed: int, data: st.DataObject
) -> None:
    text = Writer(Random(seed)).make().text
    at = data.draw(st.integers(0, len(text) - 1))
    error = find_error(text[:at] + text[at + 1 :])
    assert error is None or error.start < len(text)


def find_error(text: str) -> ConditionError | None:
    try:
        parse(text)
    except ConditionError as error:
        return error
    return None
