"""When a series is pending, fires and is over: against a plain model, and with wrong clocks."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Labels
from pilotage.core.errors import PilotageError
from pilotage.monitoring.alerts.rules import (
    HOUR_US,
    MOST_ENDS,
    MOST_KEPT_US,
    MOST_SERIES,
    VOUCHED_US,
    Ends,
    Move,
    begin_standing,
    check_rule,
    count_left_out,
    count_passed,
    end_alert,
    find_type,
    look_at_rule,
    move_standing,
    refill_ends,
    spend_ends,
    tell,
)
from pilotage.monitoring.alerts.types import (
    Alert,
    AlertRule,
    AlertState,
    MetricType,
    RuleSpec,
    Standing,
)

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


@dataclass
class Model:
    """The alerting rule of Prometheus, retold: times of beginnings, and a clock that is right."""

    for_us: int
    keep_us: int
    active_at: int | None = None
    fired: bool = False
    gone_since: int | None = None

    def look(self, now_us: int, is_held: bool) -> AlertState | None:
        if is_held:
            self.gone_since = None
            if self.active_at is None:
                self.active_at = now_us
            self.fired = self.fired or now_us - self.active_at >= self.for_us
            return AlertState.FIRING if self.fired else AlertState.PENDING
        if self.active_at is None:
            return None
        if self.fired:
            self.gone_since = now_us if self.gone_since is None else self.gone_since
            if now_us - self.gone_since < self.keep_us:
                return AlertState.FIRING
        was_firing, self.fired, self.active_at, self.gone_since = self.fired, False, None, None
        return AlertState.RESOLVED if was_firing else None


@dataclass
class Watched:
    """A series as the evaluator keeps it from look to look."""

    for_us: int
    keep_us: int = 0
    vouched_us: int = VOUCHED_US
    standing: Standing | None = None
    fired_at: list[int] = field(default_factory=list)

    def look(self, now_us: int, is_held: bool) -> AlertState | None:
        before = self.standing
        if before is None:
            self.standing = begin_standing(now_us, self.for_us) if is_held else None
        else:
            self.standing = move_standing(
                before,
                is_held=is_held,
                now_us=now_us,
                for_us=self.for_us,
                keep_us=self.keep_us,
                vouched_us=self.vouched_us,
            )
        found = self.standing.state if self.standing else None
        if found is AlertState.RESOLVED:
            self.standing = None
        return found


looks = st.lists(st.tuples(st.integers(1, 15), st.booleans()), max_size=60)
spans = st.integers(0, 60)


@given(looks, spans, spans)
def test_with_a_clock_that_is_right_it_does_what_prometheus_does(
    steps: list[tuple[int, bool]], for_s: int, keep_s: int
) -> None:
    watched = Watched(for_s * SECOND, keep_s * SECOND)
    model = Model(for_s * SECOND, keep_s * SECOND)
    now = NOW

    for passed, is_held in steps:
        now += passed * SECOND
        assert watched.look(now, is_held) == model.look(now, is_held)


@given(st.lists(st.integers(-7200, 7200), max_size=40), st.integers(1, 60))
def test_a_clock_that_jumps_fires_nothing_before_it_was_seen_to_hold_for_long_enough(
    jumps: list[int], for_s: int
) -> None:
    watched, now, seen_us = Watched(for_s * SECOND), NOW, 0

    for number, jump in enumerate(jumps):
        now += jump * SECOND
        state = watched.look(now, is_held=True)
        if number:
            seen_us += min(max(jump * SECOND, 0), VOUCHED_US)
        assert (state is AlertState.FIRING) == (seen_us >= for_s * SECOND)


@given(st.integers(0, 10**9), st.integers(1, 3600))
def test_the_time_in_which_nobody_looked_hardly_counts(down_s: int, for_s: int) -> None:
    watched = Watched(for_s * SECOND)
    watched.look(NOW, is_held=True)

    state = watched.look(NOW + down_s * SECOND, is_held=True)

    counted = min(down_s * SECOND, VOUCHED_US)
    assert (state is AlertState.FIRING) == (counted >= for_s * SECOND)


def test_a_firing_alert_lives_through_a_restart_and_is_resolved_after_it() -> None:
    firing = Standing(state=AlertState.FIRING, held_us=90, gone_us=None, seen_us=NOW)

    still = move_standing(firing, is_held=True, now_us=NOW + 10**10, for_us=50, keep_us=0)
    over = move_standing(firing, is_held=False, now_us=NOW + 10**10, for_us=50, keep_us=0)

    assert still is not None
    assert still.state is AlertState.FIRING
    assert over is not None
    assert over.state is AlertState.RESOLVED


def test_what_has_fired_goes_on_firing_when_its_rule_wants_to_see_more() -> None:
    firing = Standing(state=AlertState.FIRING, held_us=5, gone_us=None, seen_us=NOW)

    moved = move_standing(firing, is_held=True, now_us=NOW + 1, for_us=10**9, keep_us=0)

    assert moved is not None
    assert moved.state is AlertState.FIRING


@pytest.mark.parametrize(("now", "passed"), [(NOW - 1, 0), (NOW + 7, 7), (NOW + 99, 50)])
def test_what_passed_between_two_looks(now: int, passed: int) -> None:
    assert count_passed(NOW, now, 50) == passed


TYPES = {
    "p95_latency > 2s": MetricType.PERFORMANCE,
    "prediction_distribution_shift > 0.1": MetricType.QUALITY,
    "accuracy < 90% and error_rate > 1%": MetricType.QUALITY,
    "daily_cost > budget * 1.2": MetricType.COST,
    "budget_used > 90%": MetricType.COST,
    "cost_per_request > 1 and accuracy > 50%": MetricType.COST,
}


@pytest.mark.parametrize("condition", TYPES)
def test_what_a_condition_watches_over_is_told_by_its_metrics(condition: str) -> None:
    assert find_type(parse(condition)) is TYPES[condition]


RULE = AlertRule(
    id="alr_1",
    rev=1,
    project_id="prj_1",
    name="slow",
    condition="p95_latency > 2s",
    labels={"service": "chat", "alias": "told by the series"},
    created_at_us=1,
)
CHAT: Labels = (("alias", "chat"),)


def look(found: dict[Labels, float], *living: Alert, for_us: int = 0) -> list[Move]:
    return look_at_rule(RULE, for_us, living, found, NOW, lambda: "alt_1")


@pytest.mark.parametrize(("value", "kept"), [(2.5, 2.5), (math.inf, None), (math.nan, None)])
def test_an_alert_has_the_labels_of_series_and_rule_and_a_value_that_can_be_written(
    value: float, kept: float | None
) -> None:
    ((before, alert),) = look({CHAT: value})

    assert before is None
    assert alert is not None
    assert alert.labels == {"alias": "chat", "service": "chat"}
    assert (alert.value, alert.fired_at_us, alert.is_living) == (kept, NOW, True)
    assert alert.summary == "slow: p95_latency > 2s"


def test_what_is_pending_fires_once_it_was_seen_to_hold_for_long_enough() -> None:
    (begun,) = look({CHAT: 3.0}, for_us=SECOND)
    assert begun.after is not None

    (move,) = look_at_rule(RULE, SECOND, [begun.after], {CHAT: 3.0}, NOW + SECOND, str)

    assert move.after is not None
    assert (move.after.state, move.after.fired_at_us) == (AlertState.FIRING, NOW + SECOND)
    assert (move.after.rev, move.is_news) == (2, True)


def test_only_what_fires_or_is_over_is_told() -> None:
    (begun,) = look({CHAT: 3.0}, for_us=1)
    assert begun.after is not None
    (gone,) = look({}, begun.after, for_us=1)
    (fired,) = look({CHAT: 3.0})
    assert fired.after is not None
    (still,) = look({CHAT: 4.0}, fired.after)
    (over,) = look({}, fired.after)

    assert [tell(move) for move in (begun, gone, still)] == [None] * 3
    assert gone.after is None
    assert still.after is not None
    assert (still.is_news, still.after.value) == (False, 4.0)
    told = [tell(move) for move in (fired, over)]
    assert [change and change.state for change in told] == [
        AlertState.FIRING,
        AlertState.RESOLVED,
    ]


def test_an_alert_without_its_rule_is_over_or_was_never_told_of() -> None:
    (pending,), (firing,) = look({CHAT: 3.0}, for_us=1), look({CHAT: 3.0})
    assert pending.after is not None
    assert firing.after is not None

    assert end_alert(pending.after, NOW + 1).after is None
    over = end_alert(firing.after, NOW + 1).after
    assert over is not None
    assert (over.state, over.resolved_at_us, over.rev) == (AlertState.RESOLVED, NOW + 1, 2)


@pytest.mark.parametrize(("series", "living"), [(3, 2), (0, 0), (600, 0), (600, 300), (500, 500)])
def test_of_very_many_series_those_that_are_there_stay_and_the_rest_is_counted(
    series: int, living: int
) -> None:
    found: dict[Labels, float] = {(("alias", f"{number:04}"),): 3.0 for number in range(series)}
    there = look(dict(list(found.items())[-living:] if living else []))
    alerts = [move.after for move in there if move.after is not None]

    moves = look(found, *alerts)

    assert len(moves) == min(series, MOST_SERIES)
    assert {alert.labels["alias"] for alert in alerts} <= {
        move.after.labels["alias"] for move in moves if move.after is not None
    }
    assert count_left_out(moves, found) == max(0, series - MOST_SERIES)


WRONG = {
    "name": ("Not A Name", RuleSpec(condition="")),
    "team": ("a", RuleSpec(condition="", team="The Team")),
    "runbook": ("a", RuleSpec(condition="", runbook="a\nb")),
    "summary": ("a", RuleSpec(condition="", summary="x" * 1001)),
    "keep_firing_for": ("a", RuleSpec(condition="", keep_firing_us=MOST_KEPT_US + 1)),
    "labels": ("a", RuleSpec(condition="", labels={"severity": "high"})),
}


@pytest.mark.parametrize("param", WRONG)
def test_what_a_rule_cannot_say_is_refused_by_name(param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_rule(*WRONG[param])

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


@pytest.mark.parametrize(
    "labels", [{"": "a"}, {"ä": "a"}, {"__a": "a"}, {"a-b": "a"}, {"a": "\n"}, {"a": "x" * 1001}]
)
def test_labels_that_no_alert_can_have(labels: dict[str, str]) -> None:
    with pytest.raises(PilotageError, match="label"):
        check_rule("a", RuleSpec(condition="", labels=labels))


def test_a_rule_has_only_so_many_labels() -> None:
    most = {f"l{number}": "" for number in range(16)}

    check_rule("a", RuleSpec(condition="", labels=most, team="ops", keep_firing_us=5))
    with pytest.raises(PilotageError, match="at most 16"):
        check_rule("a", RuleSpec(condition="", labels=most | {"l16": ""}))


def test_ends_come_back_evenly_and_never_by_a_clock_that_went_back() -> None:
    fresh = refill_ends(None, NOW)
    spent = Ends(0, NOW)

    assert fresh == Ends(MOST_ENDS, NOW)
    assert refill_ends(spent, NOW + HOUR_US // 2).left == MOST_ENDS / 2
    assert refill_ends(spent, NOW + 10 * HOUR_US).left == MOST_ENDS
    assert refill_ends(spent, NOW - HOUR_US) == Ends(0, NOW - HOUR_US)


def test_what_cannot_be_over_goes_on_firing_and_is_over_at_its_turn() -> None:
    series: dict[Labels, float] = {(("alias", name),): 1.0 for name in "abc"}
    begun = look_at_rule(RULE, 0, [], series, NOW, str)
    firing = [move.after for move in begun if move.after is not None]

    moves = look_at_rule(RULE, 0, firing, {}, NOW + SECOND, str, most_ends=2)

    states = [move.after.state for move in moves if move.after is not None]
    assert states == [AlertState.RESOLVED, AlertState.RESOLVED, AlertState.FIRING]
    assert spend_ends(Ends(2, NOW), moves).left == 0
    (rest,) = [move.after for move in moves if move.after is not None and move.after.is_living]
    (last,) = look_at_rule(RULE, 0, [rest], {}, NOW + 2 * SECOND, str, most_ends=1)
    assert last.after is not None
    assert last.after.state is AlertState.RESOLVED
