"""When alerts are told and to whom: settle, group, inhibit, silence, repeat, try again."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notified import (
    T0,
    Telling,
    make_alert,
    make_inhibition,
    make_route,
    make_silence,
    resolve,
)
from pilotage.monitoring.alerts.types import AlertChange, AlertState, Severity
from pilotage.monitoring.notify.messages import make_title
from pilotage.monitoring.notify.rules import (
    GIVE_UP_US,
    LONGEST_PAUSE_US,
    MOST_TOLD,
    choose_pause_us,
    choose_rank,
    choose_wait_us,
    fits,
    is_newer,
    make_key,
    merge_messages,
    say_absent,
)
from pilotage.monitoring.notify.types import (
    ARRIVED,
    PACES,
    SECOND_US,
    Arrival,
    Message,
    RouteKind,
    RouteSpec,
)

S = SECOND_US


def names(message: Message) -> tuple[list[str], list[str]]:
    return (
        [alert.alert_id for alert in message.firing],
        [alert.alert_id for alert in message.ended],
    )


# who is concerned


@pytest.mark.parametrize(
    ("pattern", "text", "is_it"),
    [
        ("chat", "chat", True),
        ("chat", "chats", False),
        ("chat*", "chats", True),
        ("*at*", "chats", True),
        ("c*a*t", "chaat", True),
        ("c*a*t", "cht", False),
        ("a*b*a", "aba", True),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("b|c*", "cat", True),
        ("b|c*", "a", False),
        ("[a]", "a", False),
        ("*x*y", "ab", False),
    ],
)
def test_a_pattern_is_a_text_with_stars_and_alternatives(
    pattern: str, text: str, *, is_it: bool
) -> None:
    assert fits({"alias": pattern}, {"alias": text}) == is_it


def test_a_label_that_is_not_there_is_empty() -> None:
    assert fits({"tenant": ""}, {"alias": "chat"})
    assert not fits({"tenant": "acme"}, {"alias": "chat"})
    assert fits({}, {"alias": "chat"})


def test_an_alert_takes_every_route_that_fits_it() -> None:
    telling = Telling(
        make_route("risk", match={"team": "risk"}),
        make_route("critical", match={"severity": "error|critical"}),
        make_route("chat", match={"alias": "ch*"}),
        make_route("else", match={"alias": "else"}),
    )
    telling.take(make_alert(severity=Severity.CRITICAL, team="risk"))

    told = telling.run(T0, T0 + 11 * S)

    assert sorted(message.route for message in told) == ["chat", "critical", "risk"]


def test_an_alert_that_no_route_takes_is_told_in_the_log_at_once() -> None:
    telling = Telling(make_route("risk", match={"team": "risk"}))
    telling.take(make_alert("alt_1", rule="a"), make_alert("alt_2", rule="a"))

    told = telling.tell(T0)

    assert [(message.route, names(message)) for message in told] == [
        ("", (["alt_1"], [])),
        ("", (["alt_2"], [])),
    ]


def test_the_own_fields_of_an_alert_win_over_its_labels() -> None:
    alert = make_alert(severity=Severity.INFO, team="serving", alias="chat")
    liar = replace(alert, labels={"severity": "critical", "alias": "chat"})

    assert make_key(RouteSpec(group_by=("severity", "alias", "tenant")), liar) == {
        "severity": "info",
        "alias": "chat",
        "tenant": "",
    }


# when


def test_a_group_settles_then_tells_news_at_intervals_then_repeats() -> None:
    telling = Telling(make_route())
    telling.take(make_alert("alt_1"))
    assert telling.run(T0, T0 + 10 * S) == []
    (first,) = telling.run(T0 + 10 * S, T0 + 20 * S)
    assert (names(first), first.is_repeat) == ((["alt_1"], []), False)

    telling.take(make_alert("alt_2", at_us=T0 + 20 * S, alias="small"))
    assert telling.run(T0 + 20 * S, T0 + 70 * S) == []
    (second,) = telling.run(T0 + 70 * S, T0 + 80 * S)
    assert names(second) == (["alt_1", "alt_2"], [])
    assert second.group_id == first.group_id

    assert telling.run(T0 + 80 * S, T0 + 670 * S) == []
    (third,) = telling.run(T0 + 670 * S, T0 + 700 * S)
    assert (names(third), third.is_repeat) == ((["alt_1", "alt_2"], []), True)


def test_what_is_over_before_it_settled_is_never_told() -> None:
    telling = Telling(make_route())
    telling.take(make_alert())
    telling.run(T0, T0 + 5 * S)
    assert len(telling.groups) == 1
    telling.take(resolve(make_alert(), T0 + 5 * S))

    assert telling.run(T0 + 5 * S, T0 + 100 * S) == []
    assert (telling.alerts, telling.groups) == ({}, {})


def test_that_an_alert_is_over_is_told_once_and_then_nothing_is_left() -> None:
    telling = Telling(make_route())
    telling.take(make_alert())
    telling.run(T0, T0 + 11 * S)
    telling.take(resolve(make_alert(), T0 + 30 * S))

    (ended,) = telling.run(T0 + 30 * S, T0 + 900 * S)

    assert (names(ended), ended.is_firing) == (([], ["alt_1"]), False)
    assert (telling.alerts, telling.groups) == ({}, {})


def test_what_still_fires_is_listed_with_what_is_over() -> None:
    telling = Telling(make_route())
    telling.take(make_alert("alt_1"), make_alert("alt_2", severity=Severity.CRITICAL))
    (first,) = telling.run(T0, T0 + 11 * S)
    assert names(first)[0] == ["alt_2", "alt_1"]  # the worst first
    telling.take(resolve(make_alert("alt_2", severity=Severity.CRITICAL), T0 + 20 * S))

    (second,) = telling.run(T0 + 20 * S, T0 + 100 * S)

    assert (names(second), second.is_firing) == ((["alt_1"], ["alt_2"]), True)
    assert list(telling.alerts) == ["alt_1"]


def test_alerts_are_told_together_by_what_they_have_in_common() -> None:
    telling = Telling(make_route(group_by=("alias",)), make_route("each", group_by=("*",)))
    telling.take(
        make_alert("alt_1", alias="chat"),
        make_alert("alt_2", "failing", alias="chat"),
        make_alert("alt_3", alias="small"),
    )

    told = telling.run(T0, T0 + 11 * S)

    together = sorted(sorted(names(m)[0]) for m in told if m.route == "all")
    assert together == [["alt_1", "alt_2"], ["alt_3"]]
    assert sorted(names(m)[0] for m in told if m.route == "each") == [
        ["alt_1"],
        ["alt_2"],
        ["alt_3"],
    ]


def test_a_message_lists_some_of_very_many_and_says_how_many_more() -> None:
    telling = Telling(make_route())
    telling.take(*(make_alert(f"alt_{number:04}") for number in range(MOST_TOLD + 7)))

    (message,) = telling.run(T0, T0 + 11 * S)

    assert (len(message.alerts), message.more) == (MOST_TOLD, 7)
    (news,) = telling.run(T0 + 11 * S, T0 + 80 * S)
    rest = {f"alt_{number:04}" for number in range(MOST_TOLD, MOST_TOLD + 7)}
    assert rest <= set(names(news)[0])
    assert (len(news.alerts), news.more_firing, news.is_repeat) == (MOST_TOLD, 7, False)
    assert telling.run(T0 + 80 * S, T0 + 600 * S) == []  # all are named now


def test_of_very_many_each_hears_that_it_is_over_if_it_was_named() -> None:
    telling = Telling(make_route())
    alerts = [make_alert(f"alt_{number:04}") for number in range(3 * MOST_TOLD)]
    telling.take(*alerts)
    telling.run(T0, T0 + 80 * S)
    telling.take(*(resolve(alert, T0 + 80 * S) for alert in alerts[10:]))

    told = telling.run(T0 + 80 * S, T0 + 500 * S)

    assert make_title(told[0]).startswith("[FIRING:10]")
    named = {alert_id for _, message in telling.told for alert_id in names(message)[0]}
    ended = [alert_id for message in told for alert_id in names(message)[1]]
    assert len(named) == 2 * MOST_TOLD
    assert sorted(ended) == sorted(named - {alert.alert_id for alert in alerts[:10]})
    assert all(len(message.alerts) <= MOST_TOLD for message in told)
    telling.take(*(resolve(alert, T0 + 500 * S) for alert in alerts[:10]))
    telling.run(T0 + 500 * S, T0 + 600 * S)
    assert (telling.alerts, telling.groups) == ({}, {})


def test_a_route_that_is_gone_leaves_no_group() -> None:
    telling = Telling(make_route("one"), make_route("two"))
    telling.take(make_alert())
    telling.run(T0, T0 + 11 * S)
    telling.routes = telling.routes[:1]
    telling.tell(T0 + 12 * S)
    assert [group.route_id for group in telling.groups.values()] == ["nrt_one"]


def test_a_kind_of_route_has_a_pace_of_its_own() -> None:
    page = RouteSpec(kind=RouteKind.PAGE, repeat_us=7 * S)
    assert page.pace.settle_us == PACES[RouteKind.PAGE].settle_us
    assert page.pace.repeat_us == 7 * S
    assert RouteSpec(kind=RouteKind.FINANCE).pace == PACES[RouteKind.FINANCE]


# what waits


def make_message(*alerts: AlertChange, **more: Any) -> Message:  # noqa: ANN401 - any field
    return Message(
        **{"group_id": "ngr_1", "route": "all", "kind": RouteKind.TICKET, "key": {}}
        | {"alerts": alerts}
        | more
    )


def test_of_two_messages_that_wait_the_newer_and_all_ends_are_left() -> None:
    a, b, c = (make_alert(f"alt_{name}", at_us=T0 + at) for at, name in enumerate("abc"))
    waiting = make_message(a, b, resolve(c, T0 + 9), more_ended=1)
    news = make_message(a, resolve(b, T0 + 9), more_firing=2, muted=3)

    both = merge_messages(waiting, news)

    assert names(both) == (["alt_a"], ["alt_b", "alt_c"])
    assert (both.more_firing, both.more_ended, both.muted) == (2, 0, 3)


def test_of_very_many_ends_those_are_left_that_were_told_of_first() -> None:
    alerts = [make_alert(f"alt_{number:03}", at_us=T0 + number) for number in range(150)]
    ended = [resolve(alert, T0 + 999) for alert in alerts]

    both = merge_messages(make_message(*ended[100:]), make_message(alerts[149], *ended[:100]))

    assert names(both)[0] == ["alt_149"]
    assert names(both)[1] == [alert.alert_id for alert in alerts[:99]]
    assert (len(both.alerts), both.more_firing, both.more_ended) == (MOST_TOLD, 0, 50)


def test_what_is_urgent_goes_first() -> None:
    assert choose_rank(make_message(make_alert(), kind=RouteKind.PAGE)) == 0
    assert choose_rank(make_message(make_alert(), make_alert(severity=Severity.CRITICAL))) == 0
    assert choose_rank(make_message(make_alert())) == 1


def test_who_does_not_have_a_notice_is_named() -> None:
    assert say_absent(ARRIVED) == ""
    assert say_absent(Arrival(never=("a@b",))) == "refused: a@b"
    both = Arrival(later=("a@b", "c@d"), never=("e@f",))
    assert say_absent(both) == "put off: a@b, c@d; refused: e@f"


# what is not told


def test_what_is_silenced_is_told_when_the_silence_is_over() -> None:
    telling = Telling(
        make_route(), silences=[make_silence(T0 - S, T0 + 100 * S, alias="chat", rule="slow")]
    )
    telling.take(make_alert(), make_alert("alt_2", "failing"))
    told = telling.run(T0, T0 + 50 * S)
    assert [names(message) for message in told] == [(["alt_2"], [])]

    told = telling.run(T0 + 50 * S, T0 + 150 * S)
    assert [names(message) for message in told] == [(["alt_1"], [])]


def test_that_it_is_over_is_told_in_a_silence_to_whoever_was_told_of_it() -> None:
    telling = Telling(make_route(), silences=[make_silence(T0 + 20 * S, T0 + 900 * S, rule="*")])
    telling.take(make_alert())
    (first,) = telling.run(T0, T0 + 20 * S)
    assert telling.run(T0 + 20 * S, T0 + 750 * S) == []  # not repeated
    telling.take(resolve(make_alert(), T0 + 750 * S))

    (ended,) = telling.run(T0 + 750 * S, T0 + 800 * S)

    assert names(ended) == ([], ["alt_1"])
    assert ended.group_id == first.group_id
    assert telling.groups == {}


def test_what_is_silenced_after_it_was_told_is_missing_from_news_and_not_forgotten() -> None:
    telling = Telling(
        make_route(), silences=[make_silence(T0 + 20 * S, T0 + 900 * S, alias="small")]
    )
    telling.take(make_alert("alt_1"), make_alert("alt_2", alias="small"))
    telling.run(T0, T0 + 20 * S)
    telling.take(make_alert("alt_3", alias="large"))
    (news,) = telling.run(T0 + 20 * S, T0 + 100 * S)
    assert names(news) == (["alt_1", "alt_3"], [])
    telling.take(resolve(make_alert("alt_2", alias="small"), T0 + 100 * S))

    (ended,) = telling.run(T0 + 100 * S, T0 + 200 * S)

    assert names(ended) == (["alt_1", "alt_3"], ["alt_2"])


def test_what_was_silenced_when_the_rest_ended_is_told_when_the_silence_ends() -> None:
    silence = make_silence(T0 + 100 * S, T0 + 200 * S, alias="a")
    telling = Telling(make_route(repeat_us=86_400 * S), silences=[silence])
    telling.take(make_alert("alt_a", alias="a"), make_alert("alt_b", alias="b"))
    telling.run(T0, T0 + 150 * S)
    telling.take(resolve(make_alert("alt_b", alias="b"), T0 + 150 * S))

    (over,) = telling.run(T0 + 150 * S, T0 + 200 * S)
    (again,) = telling.run(T0 + 200 * S, T0 + 300 * S)

    assert (names(over), over.is_firing, over.muted) == (([], ["alt_b"]), False, 1)
    assert (names(again), again.is_repeat, again.muted) == ((["alt_a"], []), False, 0)
    assert again.group_id == over.group_id


def test_a_clock_that_was_ahead_holds_nothing_up() -> None:
    telling = Telling(make_route())
    telling.take(make_alert("alt_1"))
    telling.run(T0 + 86_400 * S, T0 + 86_411 * S)
    telling.take(make_alert("alt_2", alias="small"))

    (news,) = telling.run(T0, T0 + 5 * S)  # the clock is set right

    assert names(news)[0] == ["alt_1", "alt_2"]
    telling.take(make_alert("alt_3", alias="large"))
    assert len(telling.run(T0 + 5 * S, T0 + 70 * S)) == 1

    ahead = Telling(make_route())
    ahead.take(make_alert("alt_1"))
    ahead.tell(T0 + 86_400 * S)
    assert len(ahead.tell(T0)) == 1


def test_an_inhibited_alert_is_not_told_while_its_cause_fires() -> None:
    cause = make_inhibition({"rule": "down"}, {"rule": "slow"}, "alias")
    telling = Telling(make_route(group_by=("*",)), inhibitions=[cause])
    down = make_alert("alt_1", "down", alias="chat")
    telling.take(down, make_alert("alt_2", alias="chat"), make_alert("alt_3", alias="small"))

    told = telling.run(T0, T0 + 11 * S)
    assert sorted(names(message)[0] for message in told) == [["alt_1"], ["alt_3"]]

    telling.take(resolve(down, T0 + 20 * S))
    told = telling.run(T0 + 20 * S, T0 + 100 * S)
    assert sorted(names(message) for message in told) == [([], ["alt_1"]), (["alt_2"], [])]


def test_alerts_that_fit_both_sides_do_not_keep_each_other_quiet() -> None:
    worse = make_inhibition({"severity": "*"}, {"severity": "warning"})
    telling = Telling(make_route(group_by=("*",)), inhibitions=[worse])
    telling.take(make_alert("alt_1"), make_alert("alt_2", "other"))
    assert len(telling.run(T0, T0 + 11 * S)) == 2

    telling.take(make_alert("alt_3", "third", severity=Severity.CRITICAL))
    telling.take(make_alert("alt_4", "fourth"))
    told = telling.run(T0 + 11 * S, T0 + 30 * S)
    assert [names(message)[0] for message in told] == [["alt_3"]]


# whatever happens


@st.composite
def histories(draw: st.DrawFn) -> list[list[AlertChange]]:
    """Draw what happens to a few alerts at each of some moments."""
    firing: dict[str, AlertChange] = {}
    made, steps = 0, []
    for at in range(draw(st.integers(3, 25))):
        over = [alert_id for alert_id in firing if draw(st.integers(0, 3)) == 0]
        changes = [resolve(firing.pop(alert_id), T0 + at * 7 * S) for alert_id in over]
        if draw(st.booleans()):
            made += 1
            alias = draw(st.sampled_from(["chat", "small"]))
            new = make_alert(f"alt_{made:03}", at_us=T0 + at * 7 * S, alias=alias)
            firing[new.alert_id] = new
            changes.append(new)
        steps.append(changes)
    steps.append([resolve(alert, T0 + len(steps) * 7 * S) for alert in firing.values()])
    return steps


@settings(max_examples=40, deadline=None)
@given(histories(), st.booleans(), st.sampled_from([("alias",), ("rule",), ("*",)]))
def test_whatever_happens_who_hears_that_it_fires_hears_that_it_is_over(
    steps: list[list[AlertChange]],
    is_silenced: bool,
    group_by: tuple[str, ...],
) -> None:
    silence = make_silence(T0 + 20 * S, T0 + 60 * S, alias="chat")
    telling = Telling(make_route(group_by=group_by), silences=[silence] * is_silenced)
    for number, changes in enumerate(steps):
        telling.take(*changes)
        telling.run(T0 + number * 7 * S, T0 + (number + 1) * 7 * S)
    end_us = T0 + len(steps) * 7 * S
    telling.run(end_us, end_us + 200 * S)

    known: dict[str, str] = {}
    last_us: dict[str, int] = {}
    for at_us, message in telling.told:
        news = {alert.alert_id for alert in message.firing if alert.alert_id not in known}
        ended = {alert.alert_id for alert in message.ended}
        assert news or ended, "nothing is repeated within ten minutes"
        assert all(known[alert_id] == AlertState.FIRING for alert_id in ended)
        known |= dict.fromkeys(news, AlertState.FIRING) | dict.fromkeys(ended, "over")
        if message.group_id in last_us:
            assert at_us - last_us[message.group_id] >= 60 * S
        last_us[message.group_id] = at_us
    assert set(known.values()) <= {"over"}
    assert (telling.alerts, telling.groups) == ({}, {})


# what is taken


def test_only_what_is_new_of_an_alert_is_taken() -> None:
    alert = make_alert()
    over = resolve(alert, T0 + S)

    assert is_newer(None, alert)
    assert not is_newer(None, replace(alert, state=AlertState.PENDING))
    assert not is_newer(alert, alert)
    assert is_newer(alert, over)
    assert is_newer(alert, replace(alert, at_us=T0 + S))
    assert not is_newer(over, over)
    assert not is_newer(over, alert)


# tried again


@given(st.text(min_size=1), st.integers(1, 60))
def test_pauses_double_to_five_minutes_and_spread_over_their_second_half(
    notice_id: str, attempts: int
) -> None:
    longest = min(LONGEST_PAUSE_US, 2 * S * 2 ** (attempts - 1))

    pause_us = choose_pause_us(notice_id, attempts)

    assert longest // 2 <= pause_us <= longest
    assert pause_us == choose_pause_us(notice_id, attempts)


def test_pauses_of_many_notices_are_spread() -> None:
    pauses = sorted(choose_pause_us(f"ntc_{number}", 9) for number in range(200))
    assert pauses[0] < LONGEST_PAUSE_US * 0.53
    assert pauses[-1] > LONGEST_PAUSE_US * 0.97
    assert 0.7 < sum(pauses) / 200 / LONGEST_PAUSE_US < 0.8


def test_whoever_asks_for_time_gets_it_up_to_an_hour() -> None:
    assert choose_wait_us("ntc_1", 1, 0, 30 * S) == 30 * S
    assert choose_wait_us("ntc_1", 1, 0, 90 * 86_400 * S) == 3600 * S
    assert choose_wait_us("ntc_1", 9, 0, 0) == choose_pause_us("ntc_1", 9)
    assert choose_wait_us("ntc_1", 9, 0, None) == choose_pause_us("ntc_1", 9)


def test_after_a_day_of_trying_a_notice_is_given_up() -> None:
    assert choose_wait_us("ntc_1", 9, GIVE_UP_US - 1, None) is not None
    assert choose_wait_us("ntc_1", 9, GIVE_UP_US, None) is None
