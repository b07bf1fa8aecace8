"""Every kind of channel against a real server on loopback, also one that misbehaves."""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channel_files import make_sender, put_file
from hook_server import HookServer
from notified import T0, make_alert, resolve
from pilotage.core.errors import PilotageError
from pilotage.kit.channel_settings import ChannelSettings
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import EgressPolicy
from pilotage.monitoring.alerts.types import AlertChange, Severity
from pilotage.monitoring.notify.backends.http_post import Reply, say_status
from pilotage.monitoring.notify.sender import Sender, make_notifiers
from pilotage.monitoring.notify.spec_rules import check_channel
from pilotage.monitoring.notify.types import (
    ARRIVED,
    Arrival,
    ChannelKind,
    ChannelSpec,
    Encryption,
    Message,
    Notice,
    NoticeState,
    RouteKind,
)
from private_ca import PrivateAuthority
from smtp_server import SmtpServer

KEY = base64.b64encode(b"a key of 32 bytes, more or less.").decode()
ROUTING_KEY = "R0UTINGKEY0123456789ABCDEFGHIJKL"
TO = ("ann@bank.example.org", "ben@bank.example.org")


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return make_sender(tmp_path, ManualClock(T0))


@pytest.fixture
async def hooks() -> AsyncIterator[HookServer]:
    async with HookServer() as server:
        yield server


@pytest.fixture
def authority() -> PrivateAuthority:
    return PrivateAuthority()


def make_notice(*alerts: AlertChange, remaining: Sequence[str] = ()) -> Notice:
    return Notice(
        id="ntc_1",
        rev=1,
        project_id="prj_1",
        channel_id="chn_1",
        channel="on-call",
        group_id="ngr_1",
        message=Message(
            group_id="ngr_1",
            route="risk",
            kind=RouteKind.PAGE,
            key={"rule": "slow"},
            alerts=alerts or (make_alert(),),
        ),
        state=NoticeState.WAITING,
        attempts=1,
        due_at_us=T0,
        created_at_us=T0,
        remaining=tuple(remaining),
    )


def make_secret(folder: Path, text: str) -> str:
    return f"file:{put_file(folder, text)}"


def hook_spec(server: HookServer, folder: Path, ca_file: str = "") -> ChannelSpec:
    return check_channel(
        ChannelSpec(
            kind=ChannelKind.WEBHOOK,
            url=server.url,
            secret=make_secret(folder, f"whsec_{KEY}"),
            ca_file=ca_file,
        )
    )


def mail_spec(server: SmtpServer, **more: Any) -> ChannelSpec:  # noqa: ANN401 - any field
    fields: dict[str, Any] = {
        "kind": ChannelKind.EMAIL,
        "url": server.url,
        "encryption": Encryption.NONE,
        "sender": "pilotage@bank.example.org",
        "to": TO,
    }
    return check_channel(ChannelSpec(**fields | more))


async def refuse(sender: Sender, spec: ChannelSpec, notice: Notice | None = None) -> PilotageError:
    """Send what cannot be delivered; return why."""
    with pytest.raises(PilotageError) as caught:
        await sender.send(spec, notice or make_notice())
    return caught.value


# webhooks


async def test_a_webhook_gets_a_signed_notice_that_alertmanagers_receivers_understand(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    over = resolve(make_alert("alt_2", tenant="acme"), T0 + 5_000_000)

    assert await sender.send(hook_spec(hooks, tmp_path), make_notice(make_alert(), over)) == ARRIVED

    (hook,) = hooks.hooks
    signed = b"ntc_1." + hook.headers["webhook-timestamp"].encode() + b"." + hook.body
    expected = hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest()
    assert hook.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert hook.headers["webhook-id"] == "ntc_1"
    assert hook.headers["webhook-timestamp"] == str(T0 // 1_000_000)
    assert hook.headers["content-type"] == "application/json"
    assert hook.headers["host"] == f"127.0.0.1:{hooks.port}"
    said = hook.json
    assert (said["version"], said["status"], said["receiver"]) == ("4", "firing", "on-call")
    assert said["commonLabels"] == {"alertname": "slow", "severity": "warning", "team": "serving"}
    assert [alert["status"] for alert in said["alerts"]] == ["firing", "resolved"]
    assert said["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert said["alerts"][1]["endsAt"] == "2023-11-14T22:13:25.000000Z"
    assert said["alerts"][1]["labels"]["tenant"] == "acme"
    assert said["alerts"][0]["annotations"]["value"] == "2.5"
    assert said["kind"] == "page"


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_a_webhook_that_answers_otherwise_has_not_got_it(
    sender: Sender, hooks: HookServer, tmp_path: Path, status: int
) -> None:
    hooks.status, hooks.answer = status, b"come\x07 later"
    hooks.more = {"location": hooks.url, "retry-after": "17"}

    told = await refuse(sender, hook_spec(hooks, tmp_path))

    assert told.detail == f"127.0.0.1 answered {status}"
    assert (told.code, told.retry_after_s) == ("unavailable", 17.0)
    assert len(hooks.hooks) == 1  # a redirect is not followed


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("-1", None),
    ],
)
async def test_what_a_webhook_asks_for_is_read_in_both_forms(
    sender: Sender, hooks: HookServer, tmp_path: Path, text: str, seconds: float | None
) -> None:
    hooks.status, hooks.more = 429, {"retry-after": text}
    assert (await refuse(sender, hook_spec(hooks, tmp_path))).retry_after_s == seconds


async def test_what_a_public_address_answers_is_shown() -> None:
    answered = Reply(status=500, said="come later", retry_after="")
    assert say_status("hooks.example", answered) == "hooks.example answered 500: come later"


async def test_the_next_address_is_tried_where_one_is_dead(
    hooks: HookServer, tmp_path: Path
) -> None:
    clock, asked = ManualClock(T0), []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    sender = make_sender(tmp_path, clock, allow="two.example", lookup=look_up)
    spec = replace(hook_spec(hooks, tmp_path), url=f"http://two.example:{hooks.port}/hook")
    assert await sender.send(spec, make_notice()) == ARRIVED
    async with SmtpServer() as server:
        mail = mail_spec(server, url=f"smtp://two.example:{server.port}")
        assert await sender.send(mail, make_notice()) == ARRIVED
    assert len(server.mails) == 1
    before = len(asked)
    await refuse(sender, mail)
    await refuse(sender, mail)  # none answered: it may have others by now
    assert len(asked) == before + 1


@pytest.mark.parametrize("hangs", ["connect", "body", "answer", "drip"])
async def test_a_webhook_that_hangs_is_left_after_its_time(
    hooks: HookServer, tmp_path: Path, hangs: str
) -> None:
    sender = make_sender(tmp_path, ManualClock(T0), limit_s=0.3)
    hooks.drip, hooks.hangs = hangs == "drip", hangs
    hooks.answer = b"x" * 100
    began_s = asyncio.get_running_loop().time()

    told = await refuse(sender, hook_spec(hooks, tmp_path))

    assert told.detail in {
        "There was no answer within 0.3 s.",
        "127.0.0.1 could not be reached: got more than 102400 bytes without a header",
    }
    assert asyncio.get_running_loop().time() - began_s < 3.0


async def test_an_endless_answer_is_not_read(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    hooks.answer = b"y" * 50_000_000
    assert await sender.send(hook_spec(hooks, tmp_path), make_notice()) == ARRIVED


async def test_a_webhook_nobody_serves_is_told(sender: Sender, tmp_path: Path) -> None:
    async with HookServer() as closed:
        spec = hook_spec(closed, tmp_path)
    told = await refuse(sender, spec)
    assert told.detail.startswith("127.0.0.1 could not be reached: ")


async def test_a_channel_leads_nowhere_the_egress_policy_does_not_allow(
    hooks: HookServer, tmp_path: Path
) -> None:
    sender = make_sender(tmp_path, ManualClock(T0), allow="")
    told = await refuse(sender, hook_spec(hooks, tmp_path))
    assert told.code == "egress_denied"
    metadata = replace(hook_spec(hooks, tmp_path), url="http://169.254.169.254/latest")
    assert (await refuse(sender, metadata)).code == "egress_denied"
    async with SmtpServer() as server:
        assert (await refuse(sender, mail_spec(server))).code == "egress_denied"
        assert (hooks.connections, server.connections) == (0, 0)


async def test_a_certificate_is_checked_by_the_channels_own_authority(
    sender: Sender, tmp_path: Path, authority: PrivateAuthority
) -> None:
    async with HookServer(authority.serve_as("127.0.0.1")) as server:
        ca_file = authority.write(put_file(tmp_path, "", "ca.pem"))
        trusting = hook_spec(server, tmp_path, ca_file=ca_file)
        told = await refuse(sender, replace(trusting, ca_file=""))
        assert await sender.send(trusting, make_notice()) == ARRIVED
    assert "CERTIFICATE_VERIFY_FAILED" in told.detail
    for name, content, why in (
        ("none.pem", None, "No such file"),
        ("empty.pem", "", "holds no certificate"),
        ("other.pem", "no certificate", "holds no certificate"),
    ):
        path = put_file(tmp_path, content or "", name)
        if content is None:
            path.unlink()
        missing = await refuse(sender, replace(trusting, ca_file=str(path)))
        assert (missing.code, why in missing.detail) == ("invalid_config", True)


# secrets


async def test_a_secret_that_is_not_there_is_told_by_its_reference(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    spec = replace(hook_spec(hooks, tmp_path), secret="env:PILOTAGE_NOTICE_ABSENT")
    told = await refuse(sender, spec)
    assert (told.code, "PILOTAGE_NOTICE_ABSENT" in told.detail) == ("invalid_config", True)


@pytest.mark.parametrize("text", ["whsec_no base64!", "two\nlines", "ümlaut"])
async def test_a_secret_that_is_none_is_told_and_never_shown(
    sender: Sender, hooks: HookServer, tmp_path: Path, text: str
) -> None:
    spec = replace(hook_spec(hooks, tmp_path), secret=make_secret(tmp_path, text))
    told = await refuse(sender, spec)
    assert told.code == "invalid_config"
    assert text.partition("\n")[0] not in f"{told.detail} {told.hint}"


async def test_nothing_is_signed_with_no_key(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    spec = replace(hook_spec(hooks, tmp_path), secret=make_secret(tmp_path, "whsec_"))
    assert (await refuse(sender, spec)).code == "invalid_config"
    assert hooks.connections == 0


async def test_a_channel_names_nothing_but_what_was_put_there_for_its_project(
    sender: Sender, hooks: HookServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    theirs = put_file(tmp_path, "hunter2", project_id="prj_2")
    (tmp_path / "beside").write_text("hunter2")
    mine = put_file(tmp_path, "mine").parent
    (mine / "link").symlink_to(theirs)
    spec = hook_spec(hooks, tmp_path)
    around = mine / f"../{theirs.parent.name}/secret"
    for path in (theirs, tmp_path / "beside", mine / "link", around):
        told = await refuse(sender, replace(spec, secret=f"file:{path}"))
        assert told.detail == f"{path} may not be named by a channel of this project."
        assert told.hint == f"Put it into {mine}."
        https = replace(spec, url=spec.url.replace("http:", "https:"), ca_file=str(path))
        assert (await refuse(sender, https)).detail == told.detail
    told = await refuse(sender, replace(spec, secret="env:DATABASE_PASSWORD"))
    assert "PILOTAGE_NOTICE_" in told.hint
    assert hooks.connections == 0


async def test_without_a_folder_for_them_channels_name_no_file(
    hooks: HookServer, tmp_path: Path
) -> None:
    clock = ManualClock(T0)

    async def name(project_id: str) -> str:
        return project_id

    egress = EgressPolicy("127.0.0.0/8", clock)
    told = await refuse(
        Sender(make_notifiers(ChannelSettings(), egress, clock, name)), hook_spec(hooks, tmp_path)
    )
    assert "channels.files names no folder" in told.detail


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["secret", "ca_file"])
async def test_what_is_no_small_file_is_neither_waited_for_nor_read(
    sender: Sender, hooks: HookServer, tmp_path: Path, what: str
) -> None:
    folder = put_file(tmp_path, "x").parent
    os.mkfifo(folder / "pipe")
    put_file(tmp_path, "x" * 65_537, "large")
    spec = replace(hook_spec(hooks, tmp_path), url=hooks.url.replace("http:", "https:"))
    for name, why in (
        ("pipe", "is no plain file."),
        ("large", "is larger than 64 KiB."),
        (".", "is no plain file."),
    ):
        path = f"{folder}/{name}"
        named = replace(spec, ca_file=path)
        if what == "secret":
            named = replace(spec, secret=f"file:{path}")
        told = await refuse(sender, named)
        assert (told.code, told.detail) == ("invalid_config", f"{path} {why}")
    assert hooks.connections == 0


# Slack and PagerDuty


async def test_slack_gets_blocks_at_the_address_that_is_its_secret(
    sender: Sender, hooks: HookServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTAGE_NOTICE_SLACK", f"{hooks.url}/T0/B0/x?y=1")
    spec = check_channel(ChannelSpec(kind=ChannelKind.SLACK, url="env:PILOTAGE_NOTICE_SLACK"))
    marked = replace(make_alert(), summary="<!channel> a & b")

    await sender.send(spec, make_notice(*[marked] * 30))

    (hook,) = hooks.hooks
    assert hook.path == "/hook/T0/B0/x?y=1"
    said = hook.json
    assert said["text"].startswith("[FIRING:30] slow (alias=chat, team=serving)")
    header, *sections = said["blocks"]
    assert header["text"] == {"type": "plain_text", "text": said["text"], "emoji": False}
    assert len(said["blocks"]) == 22
    assert len(header["text"]["text"]) <= 150
    assert "&lt;!channel&gt; a &amp; b" in sections[0]["text"]["text"]
    assert sections[-1]["elements"][0]["text"] == "and 10 more alerts"


async def test_what_goes_wrong_at_slack_does_not_show_its_address(
    sender: Sender, hooks: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = check_channel(ChannelSpec(kind=ChannelKind.SLACK, url="env:PILOTAGE_NOTICE_SLACK"))
    for url in (f"{hooks.url}/T0PSECRET", "http://example.org/T0PSECRET", "T0PSECRET"):
        monkeypatch.setenv("PILOTAGE_NOTICE_SLACK", url)
        hooks.status = 404
        told = await refuse(sender, spec)
        assert "T0PSECRET" not in f"{told.detail} {told.hint}"
    assert len(hooks.hooks) == 1


async def test_a_routing_key_goes_to_pagerduty_alone(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    spec = ChannelSpec(
        kind=ChannelKind.PAGERDUTY,
        url=hooks.url.replace("127.0.0.1", "127.0.0.2"),
        secret=make_secret(tmp_path, ROUTING_KEY),
    )
    for url in (spec.url, "https://pagerduty.com.example.org/v2", "https://notpagerduty.com/v2"):
        told = await refuse(sender, replace(spec, url=url))
        assert (told.code, "channels.pagerduty_hosts" in told.hint) == ("invalid_config", True)


async def test_an_incident_of_which_some_fires_silenced_stays_open(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    secret = make_secret(tmp_path, ROUTING_KEY)
    spec = check_channel(ChannelSpec(kind=ChannelKind.PAGERDUTY, url=hooks.url, secret=secret))
    over = make_notice(resolve(make_alert(), T0 + 1))
    some = replace(over, message=replace(over.message, muted=1))

    assert await sender.send(spec, some) == ARRIVED
    assert hooks.hooks == []
    assert await sender.send(spec, over) == ARRIVED
    assert [hook.json["event_action"] for hook in hooks.hooks] == ["resolve"]


async def test_pagerduty_gets_one_incident_for_all_that_is_said_of_a_group(
    sender: Sender, hooks: HookServer, tmp_path: Path
) -> None:
    hooks.status = 202
    spec = ChannelSpec(
        kind=ChannelKind.PAGERDUTY, url=hooks.url, secret=make_secret(tmp_path, ROUTING_KEY)
    )
    spec = check_channel(spec)
    worst = replace(make_alert("alt_2"), severity=Severity.CRITICAL)

    await sender.send(spec, make_notice(make_alert(), worst))
    await sender.send(spec, make_notice(resolve(worst, T0 + 1)))

    trigger, resolved = (hook.json for hook in hooks.hooks)
    assert trigger["routing_key"] == resolved["routing_key"] == ROUTING_KEY
    assert (trigger["event_action"], resolved["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolved["dedup_key"] == "ngr_1"
    payload = trigger["payload"]
    assert payload["severity"] == "critical"
    assert payload["summary"].startswith("[FIRING:2] slow")
    assert payload["source"] == "pilotage/prj_1"
    assert (payload["component"], payload["group"], payload["class"]) == ("chat", "serving", "slow")
    assert payload["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert payload["custom_details"]["notice"] == "ntc_1"
    assert trigger["links"] == [{"href": "https://runbooks.example.org/slow", "text": "Runbook"}]


# the log


async def test_the_log_has_a_line_for_each_alert(
    sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pilotage.notices")
    bad = replace(make_alert(), severity=Severity.CRITICAL, summary="two\nlines")

    await sender.send(
        ChannelSpec(kind=ChannelKind.LOG), make_notice(bad, resolve(make_alert(), T0))
    )

    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("ERROR", "INFO")
    assert "slow: two lines; alias=chat rule=slow severity=critical" in first.getMessage()
    assert "(notice ntc_1)" in second.getMessage()


# mail


async def test_a_mail_reaches_everybody_as_one_thread(sender: Sender) -> None:
    async with SmtpServer() as server:
        alerts = [
            replace(make_alert(), summary=".\nline after a dot\n..x"),
            make_alert("alt_2", rule="größer"),
        ]
        assert await sender.send(mail_spec(server), make_notice(*alerts)) == ARRIVED

    (mail,) = server.mails
    assert (mail.sender, mail.to) == ("pilotage@bank.example.org", TO)
    assert mail.content["subject"] == "[FIRING:2] slow and 1 more (alias=chat, team=serving)"
    assert mail.content["message-id"] == "<ntc_1@bank.example.org>"
    assert mail.content["references"] == "<ngr_1@bank.example.org>"
    assert mail.content["auto-submitted"] == "auto-generated"
    assert mail.content["date"].datetime.isoformat() == "2023-11-14T22:13:20+00:00"
    text = mail.content.get_content().replace("\r\n", "\n")
    assert "FIRING slow (warning)\n.\nline after a dot\n..x\ncondition: p95_latency > 2s" in text
    assert "FIRING größer (warning)\n" in text


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
async def test_a_mail_is_encrypted_before_anybody_signs_in(
    sender: Sender, tmp_path: Path, authority: PrivateAuthority, encryption: Encryption
) -> None:
    tls, is_tls = authority.serve_as("127.0.0.1"), encryption == Encryption.TLS
    async with SmtpServer(tls, is_tls=is_tls) as server:
        spec = mail_spec(
            server,
            encryption=encryption,
            username="pilotage",
            secret=make_secret(tmp_path, "pass word"),
            ca_file=authority.write(put_file(tmp_path, "", "ca.pem")),
        )
        assert await sender.send(spec, make_notice()) == ARRIVED
        told = await refuse(sender, replace(spec, ca_file=""))

    assert server.encrypted == [True]
    assert server.signed_in == [("pilotage", "pass word")]
    assert "cannot be trusted" in told.detail


async def test_a_server_without_starttls_gets_no_password_and_no_mail(
    sender: Sender, tmp_path: Path
) -> None:
    async with SmtpServer() as server:
        spec = mail_spec(
            server,
            encryption=Encryption.STARTTLS,
            username="pilotage",
            secret=make_secret(tmp_path, "password"),
        )
        told = await refuse(sender, spec)
    assert told.detail == "127.0.0.1 refused: the server offers no STARTTLS"
    assert (server.mails, server.signed_in) == ([], [])


async def test_what_somebody_says_in_the_clear_after_starttls_is_not_believed(
    sender: Sender,
) -> None:
    async with SmtpServer(refuse=inject) as server:
        told = await refuse(sender, mail_spec(server, encryption=Encryption.STARTTLS))
    assert told.detail == "127.0.0.1 refused: the server went on in the clear after STARTTLS"


def inject(line: str) -> str:
    if line.startswith("EHLO"):
        return "250-here\r\n250 STARTTLS"
    return "220 go on\r\n250 AUTH PLAIN" if line == "STARTTLS" else ""


async def test_an_old_server_is_signed_in_to_by_login(sender: Sender, tmp_path: Path) -> None:
    said = {"EHLO": "502 what?", "HELO": "250-here\r\n250 AUTH LOGIN"}
    async with SmtpServer(refuse=lambda line: said.get(line.partition(" ")[0], "")) as server:
        spec = mail_spec(server, username="ann", secret=make_secret(tmp_path, "x"))
        assert await sender.send(spec, make_notice()) == ARRIVED
    assert server.signed_in == [("ann", "x")]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("EHLO pilotage", "HELO pilotage: 550"),
        ("MAIL", "MAIL FROM:<pilotage@bank.example.org>: 550"),
        ("RCPT", "ann@bank.example.org: 550; ben@bank.example.org: 550"),
        ("DATA", "DATA: 550"),
        ("AUTH", "AUTH: 550"),
    ],
)
async def test_a_server_that_refuses_is_told_by_its_own_words(
    sender: Sender, tmp_path: Path, word: str, why: str
) -> None:
    words = {word, word.replace("EHLO", "HELO")}
    async with SmtpServer(
        refuse=lambda line: "550 no" if any(line.startswith(one) for one in words) else ""
    ) as server:
        spec = mail_spec(server, username="ann", secret=make_secret(tmp_path, "hidden"))
        told = await refuse(sender, spec)
    assert told.detail == f"127.0.0.1 refused: {why}"
    assert server.mails == []


async def test_who_was_refused_is_told_and_the_others_do_not_get_it_again(sender: Sender) -> None:
    async with SmtpServer(refuse=lambda line: "450 later" if "ben@" in line else "") as server:
        spec = mail_spec(server)
        assert await sender.send(spec, make_notice()) == Arrival(later=(TO[1],))
        server.refuse = lambda _: ""
        assert await sender.send(spec, make_notice(remaining=[TO[1]])) == ARRIVED
    assert [mail.to for mail in server.mails] == [TO[:1], TO[1:]]


async def test_who_is_refused_for_good_is_named_apart(sender: Sender) -> None:
    async with SmtpServer(refuse=lambda line: "550 no such" if "ben@" in line else "") as server:
        spec = mail_spec(server)
        assert await sender.send(spec, make_notice()) == Arrival(never=(TO[1],))
        assert await sender.send(spec, make_notice(remaining=[TO[1]])) == Arrival(never=(TO[1],))
    assert [mail.to for mail in server.mails] == [TO[:1]]


async def test_whatever_goes_wrong_in_a_library_is_a_failure_of_the_attempt(
    sender: Sender, hooks: HookServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for url in ("https://10.0.0.256/hook", "https://1.2.3.04/"):
        told = await refuse(sender, replace(hook_spec(hooks, tmp_path), url=url))
        assert (told.code, told.detail) == (
            "internal_error",
            "It could not be sent: InvalidURL.",
        )
    assert "ntc_1 could not be sent to on-call" in caplog.text


@pytest.mark.parametrize("hangs_at", ["EHLO", "RCPT", "DATA", ".", "drip"])
async def test_a_mail_server_that_hangs_is_left_after_its_time(
    tmp_path: Path, hangs_at: str
) -> None:
    sender = make_sender(tmp_path, ManualClock(T0), limit_s=0.3)
    async with SmtpServer(hangs_at=hangs_at, drip=hangs_at == "drip") as server:
        told = await refuse(sender, mail_spec(server))
    assert told.detail == "There was no answer within 0.3 s."


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        ("HTTP/1.1 200 OK", "the server says no SMTP"),
        ("220-more\r\n" * 200 + "220", "the server's reply has no end"),
        ("2" * 100_000, "the server closed the connection or says no SMTP"),
        ("421 too busy", "the greeting: 421"),
    ],
)
async def test_what_says_no_smtp_is_told(sender: Sender, greeting: str, why: str) -> None:
    async with SmtpServer(greeting=greeting) as server:
        told = await refuse(sender, mail_spec(server))
    assert told.detail == f"127.0.0.1 refused: {why}"


async def test_a_mail_server_nobody_serves_is_told(sender: Sender) -> None:
    async with SmtpServer() as server:
        spec = mail_spec(server)
    told = await refuse(sender, spec)
    assert told.detail.startswith("127.0.0.1 could not be reached: ")
