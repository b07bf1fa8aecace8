"""What messages look like at their limits, whatever alerts say."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from notified import T0, make_alert, resolve
from pilotage.monitoring.alerts.types import AlertChange, Severity
from pilotage.monitoring.notify.messages import (
    make_mail,
    make_pagerduty,
    make_slack,
    make_text,
    make_title,
    make_webhook,
)
from pilotage.monitoring.notify.types import Message, Notice, NoticeState, RouteKind

TEXTS = st.text(max_size=4000) | st.sampled_from(["\r\nBcc: x@y", "<!here>", "", "ü" * 3000])


def make_notice(*alerts: AlertChange, **more: Any) -> Notice:  # noqa: ANN401 - of a message
    message = Message(
        group_id="ngr_1", route="risk", kind=RouteKind.PAGE, key={}, alerts=alerts, **more
    )
    return Notice(
        id="ntc_1",
        rev=1,
        project_id="prj_1",
        channel_id="chn_1",
        channel="hook",
        group_id="ngr_1",
        message=message,
        state=NoticeState.WAITING,
        attempts=1,
        due_at_us=T0,
        created_at_us=T0,
    )


@st.composite
def notices(draw: st.DrawFn) -> Notice:
    alerts = [
        replace(
            make_alert(f"alt_{number}", severity=draw(st.sampled_from(list(Severity)))),
            rule=draw(TEXTS) or "a",
            summary=draw(TEXTS),
            team=draw(TEXTS),
            value=draw(st.none() | st.floats()),
            labels=draw(st.dictionaries(st.sampled_from(["alias", "tenant", "x"]), TEXTS)),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    ended = draw(st.integers(0, len(alerts)))
    alerts[:ended] = [resolve(alert, T0 + 1) for alert in alerts[:ended]]
    return make_notice(*alerts)


@settings(max_examples=40, deadline=None)
@given(notices())
def test_whatever_alerts_say_the_limits_of_channels_are_kept(notice: Notice) -> None:
    message = notice.message
    title = make_title(message)
    assert "\n" not in title
    assert 0 < len(title) <= 200

    slack = make_slack(message)
    assert len(slack["blocks"]) <= 50
    for block in slack["blocks"][1:]:
        assert len(block["text"]["text"]) <= 3000
        assert "<!" not in block["text"]["text"]

    event = make_pagerduty(notice, "R" * 32)
    assert len(event["payload"]["summary"]) <= 1024
    assert event["payload"]["severity"] in {"critical", "error", "warning", "info"}

    mail = make_mail(notice, "a@b.example", ["c@d.example"])
    assert mail.get_all("bcc") is None
    assert mail.as_bytes().isascii()
    assert max(map(len, mail.as_bytes().split(b"\n"))) <= 998

    hook = make_webhook(notice)
    assert len(hook["alerts"]) == len(message.alerts)
    assert all(hook["alerts"][0]["labels"].values())


def test_a_title_says_how_many_and_which() -> None:
    two = make_notice(make_alert(), make_alert("alt_2", "failing")).message
    assert make_title(two) == "[FIRING:2] slow and 1 more (alias=chat, team=serving)"
    assert make_title(replace(two, is_repeat=True)).startswith("[FIRING:2] (still) slow")
    assert make_title(replace(two, more_firing=5, more_ended=3)).startswith("[FIRING:7] slow")
    assert make_title(replace(two, is_test=True)) == "[TEST] A test of this channel"
    apart = make_notice(make_alert(team="", alias="a"), make_alert("b", team="", alias="b"))
    assert make_title(apart.message) == "[FIRING:2] slow"
    over = make_notice(resolve(make_alert(), T0 + 1)).message
    assert make_title(replace(over, more_firing=4)).startswith("[FIRING:4] slow")
    assert make_title(replace(over, more_ended=4)).startswith("[RESOLVED:5] slow")
    assert make_title(over) == "[RESOLVED:1] slow (alias=chat, team=serving)"


def test_a_text_has_a_paragraph_for_each_alert_and_counts_the_others() -> None:
    bare = replace(
        make_alert(), summary="", condition="", labels={}, team="", runbook="", value=None
    )
    over = resolve(bare, T0 + 1_000_000)

    text = make_text(make_notice(bare, over, more_firing=2, more_ended=1).message)

    since = "since: 2023-11-14T22:13:20.000000Z"
    assert text.split("\n\n") == [
        "[FIRING:3] slow",
        f"FIRING slow (warning)\n{since}",
        f"RESOLVED slow (warning)\n{since}\nuntil: 2023-11-14T22:13:21.000000Z",
        "and 3 more alerts\n",
    ]


def test_a_number_is_shown_as_it_is() -> None:
    hook = make_webhook(make_notice(replace(make_alert(), value=0.1 + 0.2)))
    assert hook["alerts"][0]["annotations"]["value"] == "0.30000000000000004"
    text = make_text(make_notice(replace(make_alert(), value=0.1 + 0.2)).message)
    assert "condition: p95_latency > 2s for 5m (now 0.3)" in text
