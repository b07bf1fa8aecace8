"""Every kind of channel against a real server on loopback, also one that misbehaves."""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from channel_files import (
    KEY,
    hook_spec,
    mail_spec,
    make_notice,
    make_secret,
    make_sender,
    put_file,
    refuse,
)
from hook_server import HookServer
from notified import T0, make_alert, resolve
from pilotage.kit.channel_settings import ChannelSettings
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import EgressPolicy
from pilotage.monitoring.alerts.types import Severity
from pilotage.monitoring.notify.backends.http_post import Reply, say_status
from pilotage.monitoring.notify.sender import Sender, make_notifiers
from pilotage.monitoring.notify.spec_rules import check_channel
from pilotage.monitoring.notify.types import (
    ARRIVED,
    ChannelKind,
    ChannelSpec,
)
from private_ca import PrivateAuthority
from smtp_server import SmtpServer

ROUTING_KEY = "R0UTINGKEY0123456789ABCDEFGHIJKL"


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
