"""Conditions that could never hold are refused; those that could are not."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.condition.evaluator import COMPARATORS, evaluate
from pilotage.core.condition.parser import parse
from pilotage.core.condition.ranges import Range, can_be, find_range
from pilotage.core.condition.types import Comparison, ConditionError, Labels

NEVER = [
    # beyond what a metric can be
    ("error_rate > 5", "from 0 to 1, the right side 5", "Did you mean 5%?"),
    ("5 < error_rate", "the left side is 5", "Did you mean 5%?"),
    ("error_rate > 100%", "from 0 to 1", ""),
    ("error_rate == 150%", "from 0 to 1", ""),
    ("p95_latency < 0s", "at least 0", ""),
    ("-cost > 1", "at most 0", ""),
    ("-cost > 1 + cost", "at most 0", ""),
    ("error_rate * 2 > 200%", "from 0 to 2", ""),
    ("error_rate - 1 > 0", "from -1 to 0", ""),
    ("error_rate / 2 >= 60%", "from 0 to 0.5", ""),
    ("-1 / (error_rate + 1) < -1", "from -1 to -0.5", ""),
    ("cost * 0 != 0", "the left side is 0, the right side 0", ""),
    ("cost > cost", "both sides are the same", ""),
    ("cost * 2 != cost * 2", "both sides are the same", ""),
    # bounds that exclude each other
    ("cost > 2 and cost < 1", "cannot be both", "Did you mean or?"),
    ("cost > 2 and 2 > cost", "cannot be both", "Did you mean or?"),
    ("cost >= 2 and 2 > cost", "cannot be both", "Did you mean or?"),
    ("cost == 2 and cost == 3", "cannot be both", "Did you mean or?"),
    ("cost > 1 and error_rate > 1% and cost < 1", "cannot be both", ""),
    ("cost > 1 and (error_rate > 1% and cost <= 1)", "cannot be both", ""),
    ("(cost > 1 unless error_rate > 1%) and cost < 1", "cannot be both", ""),
    ("error_rate > 1% and (cost > 1 and cost < 9) and cost > 10", "cannot be both", ""),
    # a side that shuts out the other
    ("absent(cost) and cost > 1", "cannot be absent and have a value", "Did you mean or?"),
    ("cost * 2 > -budget and absent(budget)", "cannot be absent", ""),
    ("(absent(budget) unless error_rate > 1%) and daily_cost > budget", "cannot be absent", ""),
    ("(error_rate > 1% and absent(cost)) and (cost > 1 unless budget > 1)", "cannot be", ""),
    ("cost > 2 unless cost > 1", "whenever the left side holds", ""),
    ("cost > 2 unless cost >= 2", "whenever the left side holds", ""),
    ("cost == 2 unless cost <= 2", "whenever the left side holds", ""),
    ("absent(cost) unless absent(cost)", "whenever the left side holds", ""),
    # filters that nothing passes
    ('cost{alias="a", alias="b"} > 1', "one value", ""),
    ('cost{alias!="b", alias="a"} > 1', "one value", ""),
    ('cost{alias=~"a|b", alias!="a", alias!~"b.*"} > 1', "no series can pass", ""),
    ('cost{alias=~"a|b", alias=~"c"} > 1', "no series can pass", ""),
    ('cost{alias=~""} > 1', "no series can pass", ""),
    # longer than the sum goes on
    ("daily_cost > $5 for 1d", "begins at 0 again after 1d", "shorter"),
    ("error_rate > 1% and daily_cost{alias!=''} > $5 for 2d", "begins at 0 again", ""),
    ("hourly_cost >= 0.01 for 1h", "begins at 0 again after 1h", ""),
]


@pytest.mark.parametrize(("text", "said", "advised"), NEVER)
def test_what_can_never_hold_is_refused(text: str, said: str, advised: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse(text)
    assert said in refused.value.detail
    assert advised in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "error_rate >= 100%",
        "p95_latency <= 0s",
        "error_rate * 200% > 100%",
        "error_rate - 50% < -40%",
        "error_count / request_count > 100%",  # one may be counted before the other
        "1 / (error_rate - 0.5) > 1000",
        "1 / (error_rate - 1) < -1000",
        "cost > 1 and cost < 2",
        "cost >= 2 and cost <= 2",
        "cost > 1 and cost[5m] < 1",
        "cost{tenant!=''} > 1 and cost < 1",
        "cost > 2 and cost != 3",
        "cost > 2 or cost < 1",
        "cost > 1 unless cost > 2",
        "cost > 1 unless budget > 2",
        "cost > 1 unless (cost > 0 and budget > 2)",
        "absent(cost) or cost > 1",
        "absent(cost) and absent(budget)",
        "(absent(budget) or budget > 1) and daily_cost > 0",
        "daily_cost > $5 for 23h",
        "daily_cost >= 0 for 1d",
        "daily_cost < $5 for 1d",
        "daily_cost > $5 or cost > 1 for 1d",
        "budget > 5 for 2d",
        'cost{alias=~"a|b", alias!="a"} > 1',
        'cost{alias=~"a.*", alias!="a"} > 1',
        'cost{alias!="a", alias!="b"} > 1',
    ],
)
def test_what_could_hold_is_taken(text: str) -> None:
    assert parse(text).text == text


def test_bounds_of_other_series_do_not_exclude_each_other() -> None:
    """The project's cost pairs with every alias, and what one alias is says nothing of another."""
    text = "(daily_cost > 1 and p95_latency > 2s) and p95_latency < 1s"
    now: dict[str, dict[Labels, float]] = {
        "daily_cost": {(): 5.0},
        "p95_latency": {(("alias", "slow"),): 3.0, (("alias", "fast"),): 0.5},
    }
    assert evaluate(parse(text), lambda ref: now[ref.name]) == {(): 5.0}


FORMS = [
    "-error_rate",
    "error_rate + budget_used",
    "error_rate - budget_used",
    "error_rate * refusal_rate",
    "(error_rate - 0.5) * budget_used",
    "(error_rate - 0.5) * (refusal_rate - 1)",
    "2 / (error_rate + 1)",
    "1 / error_rate",
    "1 / (error_rate - 1)",
    "1 / (error_rate - 0.5)",
    "budget_used / (refusal_rate - 1)",
    "0 / budget_used",
    "budget_used * 0",
]


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e9))
def test_values_are_where_they_are_said_to_be(
    form: str, error_rate: float, refusal_rate: float, budget_used: float
) -> None:
    now = {"error_rate": error_rate, "refusal_rate": refusal_rate, "budget_used": budget_used}
    text = form.replace("error_rate", 'error_rate{alias=""}')
    condition = parse(text.replace("refusal_rate", 'refusal_rate{alias=""}') + " != 12345")
    assert isinstance(condition.root, Comparison)
    low, high = find_range(condition.root.left)
    for value in evaluate(condition, lambda ref: {(): now[ref.name]}).values():
        assert math.isnan(value) or low <= value <= high


INTERVALS = st.tuples(st.integers(-3, 3), st.integers(0, 3)).map(
    lambda made: Range(made[0], made[0] + made[1])
)


@settings(deadline=None)
@given(st.sampled_from(sorted(COMPARATORS)), INTERVALS, INTERVALS)
def test_a_comparison_can_hold_if_it_does_for_some_pair(op: str, left: Range, right: Range) -> None:
    points = [at / 2 for at in range(-6, 13)]
    pairs = product(
        [at for at in points if left.low <= at <= left.high],
        [at for at in points if right.low <= at <= right.high],
    )
    assert can_be(op, left, right) == any(COMPARATORS[op](*pair) for pair in pairs)
