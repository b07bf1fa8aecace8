"""Mail against a real server on loopback, also one that misbehaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from channel_files import (
    TO,
    mail_spec,
    make_notice,
    make_secret,
    make_sender,
    put_file,
    refuse,
)
from notified import T0, make_alert
from pilotage.kit.clock import ManualClock
from pilotage.monitoring.notify.sender import Sender
from pilotage.monitoring.notify.types import (
    ARRIVED,
    Arrival,
    Encryption,
)
from private_ca import PrivateAuthority
from smtp_server import SmtpServer


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return make_sender(tmp_path, ManualClock(T0))


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
    sender: Sender, tmp_path: Path, encryption: Encryption
) -> None:
    authority = PrivateAuthority()
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
