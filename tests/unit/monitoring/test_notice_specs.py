"""What channels, routes, inhibitions and silences can be, and what is told of what they cannot."""

from dataclasses import replace
from typing import Any

import pytest

from pilotage.core.errors import PilotageError
from pilotage.monitoring.notify.spec_rules import (
    LONGEST_SILENCE_US,
    PAGERDUTY_URL,
    check_channel,
    check_inhibition,
    check_match,
    check_route,
    check_span_of_silence,
    is_loopback,
    read_mail_server,
)
from pilotage.monitoring.notify.types import (
    DAY_US,
    HOUR_US,
    SECOND_US,
    ChannelKind,
    ChannelSpec,
    Encryption,
    InhibitionSpec,
    RouteSpec,
)

HOOK = ChannelSpec(
    kind=ChannelKind.WEBHOOK, url="https://a.example/b", secret="env:PILOTAGE_NOTICE_A"
)
PAGER = ChannelSpec(kind=ChannelKind.PAGERDUTY, secret="file:/run/key")
SLACK = ChannelSpec(kind=ChannelKind.SLACK, url="env:PILOTAGE_NOTICE_SLACK")
MAIL = ChannelSpec(
    kind=ChannelKind.EMAIL,
    url="smtp://mail.example",
    sender="pilotage@example.org",
    to=("ann@example.org",),
)
SIGNED_IN = replace(MAIL, username="ann", secret="env:PILOTAGE_NOTICE_A")
ROUTE = RouteSpec(channels=("hook",))


def refuse(check: Any, *args: Any, **more: Any) -> str:  # noqa: ANN401 - any of the checks
    """Return the field that is refused."""
    with pytest.raises(PilotageError) as caught:
        check(*args, **more)
    assert caught.value.code == "invalid_request"
    assert caught.value.detail.startswith(f"{caught.value.param}: ")
    return str(caught.value.param)


def test_what_a_channel_can_be() -> None:
    assert check_channel(ChannelSpec(kind=ChannelKind.LOG)) == ChannelSpec(kind=ChannelKind.LOG)
    assert check_channel(replace(HOOK, url="HTTP://A.example/b/")).url == "http://a.example/b"
    assert check_channel(replace(HOOK, url="file:/run/url")).url == "file:/run/url"
    assert check_channel(PAGER).url == PAGERDUTY_URL
    assert check_channel(replace(PAGER, url="http://127.0.0.1:1/x")).url == "http://127.0.0.1:1/x"
    assert check_channel(SLACK) == SLACK
    assert check_channel(MAIL) == MAIL
    assert check_channel(SIGNED_IN) == SIGNED_IN
    relay = replace(SIGNED_IN, url="smtp://[::1]:2525", encryption=Encryption.NONE)
    assert check_channel(relay) == relay


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (replace(HOOK, to=("ann@example.org",)), "to"),
        (ChannelSpec(kind=ChannelKind.LOG, url="https://a.example"), "url"),
        (replace(SLACK, secret="env:PILOTAGE_NOTICE_A"), "secret"),
        (replace(HOOK, url=""), "url"),
        (replace(HOOK, url="ftp://a.example"), "url"),
        (replace(HOOK, url="https://ann:b@a.example"), "url"),
        (replace(HOOK, url="https://a.example/?key=1"), "url"),
        (replace(HOOK, url="https://10.0.0.256/hook"), "url"),
        (replace(HOOK, url="env:HOOK_URL"), "url"),
        (replace(HOOK, secret="env:DATABASE_PASSWORD"), "secret"),
        (replace(PAGER, url="env:PAGER_URL"), "url"),
        (replace(SLACK, url="env:SLACK_URL"), "url"),
        (replace(MAIL, url="smtp://1.2.3.04"), "url"),
        (replace(HOOK, secret=""), "secret"),
        (replace(HOOK, secret="the secret itself"), "secret"),
        (replace(HOOK, ca_file="ca.pem"), "ca_file"),
        (replace(PAGER, url="http://pager.example/v2"), "url"),
        (replace(PAGER, secret=""), "secret"),
        (replace(SLACK, url="https://hooks.slack.com/services/T/B/X"), "url"),
        (replace(SLACK, url=""), "url"),
        (replace(MAIL, url="https://mail.example"), "url"),
        (replace(MAIL, url="smtp://mail.example:99999"), "url"),
        (replace(MAIL, url="smtp://ann:b@mail.example"), "url"),
        (replace(MAIL, url="smtp://mail.example/x"), "url"),
        (replace(MAIL, url="smtp://" + "m" * 400), "url"),
        (replace(MAIL, url="smtp://m\nx"), "url"),
        (replace(MAIL, sender="nobody"), "sender"),
        (replace(MAIL, sender="a@b\r\nBcc: c@d"), "sender"),
        (replace(MAIL, to=()), "to"),
        (replace(MAIL, to=("ann@example.org",) * 2), "to"),
        (replace(MAIL, to=tuple(f"a{n}@b.example" for n in range(51))), "to"),
        (replace(MAIL, to=("a@b> SIZE=1",)), "to"),
        (replace(MAIL, username="ann"), "username"),
        (replace(MAIL, secret="env:PILOTAGE_NOTICE_A"), "username"),
        (replace(SIGNED_IN, username="a n n"), "username"),
        (replace(SIGNED_IN, encryption=Encryption.NONE), "encryption"),
    ],
)
def test_what_a_channel_cannot_be(spec: ChannelSpec, param: str) -> None:
    assert refuse(check_channel, spec) == param


def test_what_is_refused_of_a_secret_is_not_shown() -> None:
    for spec in (replace(HOOK, secret="hunter2 hunter2"), replace(SLACK, url="https://h/hunter2")):
        with pytest.raises(PilotageError) as caught:
            check_channel(spec)
        assert "hunter2" not in f"{caught.value.detail} {caught.value.hint}"


def test_a_mail_server_has_the_port_of_its_encryption() -> None:
    for encryption, port in ((Encryption.STARTTLS, 587), (Encryption.TLS, 465)):
        assert read_mail_server(replace(MAIL, encryption=encryption)) == ("mail.example", port)
    assert read_mail_server(replace(MAIL, url="smtp://[::1]:26")) == ("::1", 26)


def test_this_machine_is_known_by_its_spelling() -> None:
    assert [is_loopback(host) for host in ("127.0.0.9", "::1", "localhost", "10.0.0.1", "a")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_what_a_route_can_be() -> None:
    assert check_route(ROUTE) == ROUTE
    each = replace(ROUTE, group_by=("*",), match={"severity": "err*|critical", "tenant": ""})
    assert check_route(each) == each


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": ("No Name",)}, "name of a channel"),
        ({"group_by": ()}, "group_by"),
        ({"group_by": ("*", "rule")}, "group_by"),
        ({"group_by": ("no label",)}, "group_by"),
        ({"match": {"no label": "x"}}, "match"),
        ({"match": {"alias": "x" * 501}}, "match"),
        ({"match": {"alias": "a\nb"}}, "match"),
        ({"match": {"alias": " "}}, "match"),
        ({"match": {f"a{n}": "b" for n in range(51)}}, "match"),
        ({"match": {"severity": "error|crit"}}, "match"),
        ({"settle_us": HOUR_US + 1}, "settle"),
        ({"interval_us": SECOND_US - 1}, "interval"),
        ({"interval_us": DAY_US + 1}, "interval"),
        ({"repeat_us": SECOND_US}, "repeat"),
        ({"interval_us": 2 * HOUR_US, "repeat_us": HOUR_US}, "repeat"),
    ],
)
def test_what_a_route_cannot_be(change: dict[str, Any], param: str) -> None:
    if param == "name of a channel":
        with pytest.raises(PilotageError, match="'No Name' is not a name") as caught:
            check_route(replace(ROUTE, **change))
        assert caught.value.param == "channels"
    else:
        assert refuse(check_route, replace(ROUTE, **change)) == param


def test_what_an_inhibition_can_and_cannot_be() -> None:
    spec = InhibitionSpec(source={"rule": "down"}, target={"rule": "slow"}, equal=("alias",))
    assert check_inhibition(spec) == spec
    assert refuse(check_inhibition, replace(spec, source={})) == "source"
    assert refuse(check_inhibition, replace(spec, target={})) == "target"
    assert refuse(check_inhibition, replace(spec, target=spec.source)) == "target"
    assert refuse(check_inhibition, replace(spec, equal=("a b",))) == "equal"


def test_a_silence_fits_something_and_ends() -> None:
    assert refuse(check_match, {}, "match") == "match"
    check_span_of_silence(0, LONGEST_SILENCE_US, 0)
    check_span_of_silence(5, LONGEST_SILENCE_US + 5, 0)
    assert refuse(check_span_of_silence, 0, LONGEST_SILENCE_US + 1, 0) == "ends_at"
    assert refuse(check_span_of_silence, 7, 7, 0) == "ends_at"
    assert refuse(check_span_of_silence, 0, 5, 9) == "ends_at"
