"""What is asked of metrics' values: names, a window, labels; and what is shown of a project."""

import pytest

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.errors import PilotageError
from pilotage.monitoring.alerts.values import Found, Picture, Wanted
from pilotage.monitoring.exports.http import read_wanted, show_values

MINUTE_US = 60_000_000


def test_everything_is_asked_for_as_it_usually_is() -> None:
    assert read_wanted("", "", "") == [Wanted.usual(name) for name in METRICS]


def test_a_window_is_that_of_metrics_that_have_one() -> None:
    rate, cost = read_wanted("request_rate, daily_cost", "5m", "")

    assert (rate.window_us, cost.window_us) == (5 * MINUTE_US, 0)
    assert (rate.by, cost.by) == (("alias",), ())


def test_labels_that_a_metric_does_not_have_are_passed_over() -> None:
    rate, cost = read_wanted("request_rate,budget", "", "arm, tenant")

    assert rate.by == ("arm", "tenant")
    assert set(cost.by) <= {"tenant"}


@pytest.mark.parametrize(
    ("metrics", "window", "param", "hint"),
    [
        ("p59_latency", "", "metrics", "p95_latency"),
        ("xyzzy", "", "metrics", "reference"),
        ("", "soon", "window", ""),
        ("", "0s", "window", ""),
        ("", "90s", "window", ""),
        ("", "400d", "window", ""),
    ],
)
def test_what_is_wrong_is_named(metrics: str, window: str, param: str, hint: str) -> None:
    with pytest.raises(PilotageError) as refused:
        read_wanted(metrics, window, "")

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert hint in refused.value.hint


def test_a_project_sees_its_own_and_of_one_alias_that_and_what_has_none() -> None:
    rate, cost = Wanted.usual("request_rate"), Wanted.usual("daily_cost")
    found: Found = {
        rate: {
            "prj_a": {(("alias", "chat"),): 2.0, (("alias", "other"),): 1.0},
            "prj_b": {(("alias", "chat"),): 9.0},
        },
        cost: {"prj_a": {(): 5.0}},
    }
    picture = Picture(1_000_000, found, frozenset({"gpu_usage"}))

    shown = show_values(picture, "prj_a", "chat")

    assert [(item.metric, item.labels, item.value) for item in shown.items] == [
        ("request_rate", {"alias": "chat"}, 2.0),
        ("daily_cost", {}, 5.0),
    ]
    assert (shown.items[0].window, shown.items[1].window) == ("1m", "")
    assert shown.unread == ["gpu_usage"]
    assert len(show_values(picture, "prj_a", "").items) == 3
    assert show_values(picture, "prj_c", "").items == []
