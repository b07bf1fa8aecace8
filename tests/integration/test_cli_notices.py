"""The commands of channels, routes, silences and notices, as people use them."""

import asyncio
from pathlib import Path

import pytest
import yaml

from command_line import CommandLine
from control_api import open_there
from notice_cases import put_notice
from pilotage.kit.config import Settings


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    line = CommandLine(tmp_path)
    line.ok("channels", "set", "on-call", "--kind", "log")
    return line


def test_a_setting_that_is_there_keeps_what_is_not_named(pilotage: CommandLine) -> None:
    pilotage.ok(
        *[
            "channels",
            "set",
            "hook",
            "--kind",
            "webhook",
            "--url",
            "https://a.example",
            "--secret",
            "env:PILOTAGE_NOTICE_A",
        ]
    )
    said = pilotage.ok(
        *["channels", "set", "hook", "--url", "https://b.example/x", "--no-tells-end"]
    )
    assert said.out.splitlines() == [
        "hook: webhook https://b.example/x.",
        "Try it: pilotage channels test hook",
    ]
    shown = pilotage.json("channels", "show", "hook")
    assert (shown["secret"], shown["tells_end"]) == ("env:PILOTAGE_NOTICE_A", False)
    assert pilotage.json(*["channels", "set", "hook", "--kind", "log"])["url"] == ""

    pilotage.ok(
        *[
            "routes",
            "set",
            "page",
            "--kind",
            "page",
            "--to",
            "on-call",
            "--to",
            "hook",
            "--match",
            "team=risk",
        ]
    )
    changed = pilotage.json(*["routes", "set", "page", "--settle", "5s"])
    assert changed["match"] == {"team": "risk"}
    assert changed["pace"] == {"settle": "5s", "interval": "30s", "repeat": "1h"}


REFUSED = {
    "channels set new --url https://a.example": "There is no channel 'new' yet.",
    "channels set new --kind fax": "There is no kind 'fax'.",
    "routes set new --kind page": "There is no route 'new' yet.",
    "routes set new --kind fax": "There is no kind 'fax'.",
    "routes set new --to on-call --match team": "'team' is no LABEL=PATTERN",
    "routes set new --to nobody": "channels: there is no channel 'nobody'.",
    "routes set new --to on-call --match severity=crit": "No alert has the severity 'crit'",
    "routes set new --to on-call --settle soon": "settle: not a duration: 'soon'",
    "silences create --match a=b --reason x": "A silence lasts a time or until one.",
    "silences create --match a=b --reason x --for ever": "not a duration: 'ever'",
    "silences create --match a=b --reason x --until 2020-01-01": "It would be over before",
    "silences create --match a=b --reason x --for 91d": "A silence lasts 90 days at most.",
    "notices list --state lost": "There is no state 'lost'.",
    "channels test none": "There is no channel 'none'.",
}


def test_what_cannot_be_is_told_in_a_line(pilotage: CommandLine) -> None:
    for words, why in REFUSED.items():
        said = pilotage(*words.split())
        assert said.code in (1, 2), words
        assert why in said.err, words
        assert said.out == "", words


def test_a_test_says_whether_it_arrived(pilotage: CommandLine) -> None:
    assert "on-call took notice ntc_" in pilotage.ok("channels", "test", "on-call").out
    words = "channels set hook --kind webhook --url http://127.0.0.1:9/x"
    pilotage.ok(*words.split(), "--secret", "env:PILOTAGE_NOTICE_ABSENT")

    said = pilotage("channels", "test", "hook")

    assert said.code == 2
    assert "The variable PILOTAGE_NOTICE_ABSENT named by a secret reference is not set." in said.err


def test_routes_are_exported_with_what_has_to_be_done(pilotage: CommandLine) -> None:
    pilotage.ok(
        *[
            "channels",
            "set",
            "hook",
            "--kind",
            "webhook",
            "--url",
            "https://a.example",
            "--secret",
            "env:PILOTAGE_NOTICE_A",
        ]
    )
    pilotage.ok("routes", "set", "page", "--match", "severity=error|critical", "--to", "hook")
    path = pilotage.folder / "alertmanager.yml"

    said = pilotage.ok("routes", "export", "-o", str(path))

    config = yaml.safe_load(path.read_text())
    assert config["route"]["routes"][0]["matchers"] == [
        'project="default"',
        'severity=~"error|critical"',
    ]
    assert said.err.strip() == "hook: Alertmanager does not sign what it posts."
    assert yaml.safe_load(pilotage.ok("routes", "export").out) == config


def test_a_notice_that_was_given_up_is_seen_and_sent_again(pilotage: CommandLine) -> None:
    notice = asyncio.run(put_one(pilotage.data))
    listed = pilotage.ok("notices", "list", "--state", "failed").out
    assert notice in listed
    assert "away" in listed
    assert "state     failed" in pilotage.ok("notices", "show", notice).out
    assert "is on its way to on-call again." in pilotage.ok("notices", "send", notice).out
    assert pilotage.json("notices", "show", notice)["state"] in ("waiting", "delivered")


async def put_one(folder: Path) -> str:
    async with open_there(Settings(data_dir=str(folder))) as api:
        return await put_notice(api)
