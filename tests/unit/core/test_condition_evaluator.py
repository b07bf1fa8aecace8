"""For which series conditions hold, given what their metrics are."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.condition.evaluator import evaluate, select
from pilotage.core.condition.filters import passes
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Filter, Labels, Match, MetricRef

Now = dict[str, dict[str, float]]


def hold(text: str, now: Now) -> dict[str, float]:
    """Evaluate a condition; series are written ``alias=chat arm=new``."""
    found = evaluate(
        parse(text), lambda ref: {read(series): at for series, at in now[ref.name].items()}
    )
    return {" ".join("=".join(each) for each in labels): value for labels, value in found.items()}


def read(series: str) -> Labels:
    return tuple((name, value) for name, _, value in (e.partition("=") for e in series.split()))


CHAT_AND_CODE: Now = {
    "p95_latency": {
        "alias=chat": 3.0,
        "alias=code": 1.0,
        "": 2.5,
        "alias=chat tenant=acme": 9.0,
        "alias=chat arm=new": 4.0,
        "alias=chat arm=old": 2.0,
        "alias=code arm=new": 1.0,
    },
    "error_rate": {"alias=chat": 0.0, "alias=code": 0.05},
    "daily_cost": {"": 13.0, "alias=chat": 12.0},
    "budget": {"": 10.0},
    "cost": {},
    "refusal_rate": {
        "tenant=acme": 0.1,
        "alias=chat tenant=acme": 0.2,
        "alias=chat tenant=beta": 0.3,
    },
    "request_count": {"alias=chat": 0.0, "alias=code": 20.0},
    "error_count": {"alias=chat": 0.0, "alias=code": 1.0},
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # a metric is by alias, by what its filters name, or all together
        ("p95_latency > 2s", {"alias=chat": 3.0}),
        ('p95_latency{alias=""} > 2s', {"": 2.5}),
        ('p95_latency{tenant!=""} > 2s', {"alias=chat tenant=acme": 9.0}),
        ('p95_latency{arm=~"n.*"} >= 1s', {"alias=chat arm=new": 4.0, "alias=code arm=new": 1.0}),
        ('p95_latency{alias!~"ch.+"} > 0s', {"alias=code": 1.0}),
        ('p95_latency{alias="mail"} > 0s', {}),
        # every comparison
        ("p95_latency >= 3s", {"alias=chat": 3.0}),
        ("p95_latency < 3s", {"alias=code": 1.0}),
        ("p95_latency <= 3s", {"alias=chat": 3.0, "alias=code": 1.0}),
        ("p95_latency == 3s", {"alias=chat": 3.0}),
        ("p95_latency != 3s", {"alias=code": 1.0}),
        ("2s < p95_latency", {"alias=chat": 3.0}),
        # a label that each side fixes tells them apart
        ('p95_latency{arm="new"} > 1.5 * p95_latency{arm="old"}', {"alias=chat": 4.0}),
        ('p95_latency{arm="new"} > 2 * p95_latency{arm="old"}', {}),
        # one side for many series of the other
        ('p95_latency > p95_latency{alias=""}', {"alias=chat": 3.0}),
        ('p95_latency{alias=""} < p95_latency', {"alias=chat": 2.5}),
        ('2 * p95_latency - p95_latency{alias=""} > 3s', {"alias=chat": 3.5}),
        ('p95_latency{alias=""} - p95_latency > 1s', {"alias=code": 1.5}),
        (
            'refusal_rate{alias="", tenant!=""} < refusal_rate{tenant!=""}',
            {"alias=chat tenant=acme": 0.1},
        ),
        (
            'refusal_rate{tenant!=""} > refusal_rate{alias="", tenant!=""}',
            {"alias=chat tenant=acme": 0.2},
        ),
        # arithmetic
        ("daily_cost > budget * 1.2", {"": 13.0}),
        ("daily_cost > budget * 1.5", {}),
        ("-daily_cost < -10", {"": -13.0}),
        ("daily_cost + budget > 2 * 11.4", {"": 23.0}),
        ("100 USD / daily_cost < 10", {"": 100 / 13}),
        ("error_count / request_count > 1%", {"alias=code": 0.05}),
        ("p95_latency / error_rate > 100 s", {"alias=chat": math.inf}),
        ("-p95_latency / error_rate < -100 s", {"alias=chat": -math.inf}),
        # joined
        ("p95_latency > 2s and error_rate > 1%", {}),
        ("p95_latency > 2s or error_rate > 1%", {"alias=chat": 3.0, "alias=code": 0.05}),
        ("p95_latency > 2s or error_rate >= 0%", {"alias=chat": 3.0, "alias=code": 0.05}),
        ("p95_latency > 0s unless error_rate > 1%", {"alias=chat": 3.0}),
        ("p95_latency > 2s and daily_cost > budget", {"alias=chat": 3.0}),
        ("daily_cost > budget and error_rate > 1%", {"": 13.0}),
        ("daily_cost > budget unless error_rate > 1%", {}),
        ("daily_cost > 5 or error_rate > 1%", {"": 13.0, "alias=code": 0.05}),
        ('error_rate{alias="code"} > 1% and error_rate{alias="chat"} < 1%', {"alias=code": 0.05}),
        ("p95_latency > 2s and (error_rate < 1% or daily_cost{alias!=''} > 99)", {"alias=chat": 3}),
        ('(cost{alias="a"} > 1 or error_rate{alias="code"} > 1%) or p95_latency > 2s',
         {"alias=code": 0.05, "alias=chat": 3.0}),
        ('(p95_latency{alias="chat"} > 2s or error_rate{alias="chat"} > 1%) and budget > 1',
         {"alias=chat": 3.0}),
        # nothing there
        ("cost > 0", {}),
        ("cost + daily_cost{alias!=''} > 0", {}),
        ("absent(cost)", {"": 1.0}),
        ('absent(cost{alias="chat", tenant!="x"})', {"alias=chat": 1.0}),
        ("absent(budget)", {}),
        ('absent(cost{alias="chat"}) and p95_latency > 2s', {"alias=chat": 1.0}),
        ('absent(cost{alias="code"}) and p95_latency > 2s', {}),
        ("p95_latency > 2s and -(1 / budget) < 0", {"alias=chat": 3.0}),
    ],
)  # fmt: skip
def test_conditions_hold_for(text: str, found: dict[str, float]) -> None:
    assert hold(text, CHAT_AND_CODE) == pytest.approx(found)


def test_nothing_by_nothing_is_no_number() -> None:
    now: Now = {"error_count": {"alias=chat": 0.0}, "request_count": {"alias=chat": 0.0}}
    assert hold("error_count / request_count >= 0", now) == {}
    (value,) = hold("error_count / request_count != 1", now).values()
    assert math.isnan(value)


def test_a_divisor_that_is_no_number_gives_none() -> None:
    now: Now = {
        "error_count": {"alias=chat": 0.0},
        "request_count": {"alias=chat": 0.0},
        "cost": {"alias=chat": 1.0},
    }
    text = "cost / cost / (error_count / request_count) / (error_count / request_count) != 5"
    (value,) = hold(text, now).values()
    assert math.isnan(value)


@settings(deadline=None)
@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_comparison_and_its_opposite_share_the_series(one: float, other: float) -> None:
    now: Now = {"cost": {"alias=a": one, "alias=b": other}}
    above, below = hold("cost > 100", now), hold("cost <= 100", now)
    assert above.keys() | below.keys() == {"alias=a", "alias=b"}
    assert not above.keys() & below.keys()
    assert hold("cost > 100 or cost <= 100", now) == {"alias=a": one, "alias=b": other}
    assert hold("cost >= 0 unless cost > 100", now) == below


def test_series_with_other_labels_are_not_meant() -> None:
    ref = MetricRef(name="cost", by=("alias",))
    series = {read("alias=a"): 1.0, read("alias=a arm=b"): 2.0, read(""): 3.0}
    assert select(ref, series) == {read("alias=a"): 1.0}


@pytest.mark.parametrize(
    ("match", "pattern", "value", "is_passed"),
    [
        (Match.LIKE, "chat.*", "chat", True),
        (Match.LIKE, "chat.+", "chat", False),
        (Match.LIKE, "ch.t", "chat", True),
        (Match.LIKE, "ch.t", "cht", False),
        (Match.LIKE, "hat", "chat", False),
        (Match.LIKE, "code|chat", "chat", True),
        (Match.LIKE, "code|", "", True),
        (Match.LIKE, "a-b:c/d@e f", "a-b:c/d@e f", True),
        (Match.UNLIKE, "code|chat", "chat", False),
        (Match.UNLIKE, "code|chat", "mail", True),
        (Match.EQUAL, "a.b", "axb", False),
        (Match.UNEQUAL, "a", "a", False),
    ],
)
def test_filters_pass(match: Match, pattern: str, value: str, is_passed: bool) -> None:
    assert passes(Filter("alias", match, pattern), value) == is_passed
