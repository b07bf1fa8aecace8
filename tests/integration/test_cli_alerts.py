"""``pilotage alerts`` and ``slos`` as people use them."""

import asyncio
from pathlib import Path

import pytest
import yaml

from command_line import CommandLine
from control_api import open_there, put_alert
from pilotage.kit.config import load_settings


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def test_a_mistake_in_a_condition_is_pointed_at_before_anything_is_sent(
    pilotage: CommandLine,
) -> None:
    failed = pilotage("alerts", "set", "slow", "p95_latncy > 2s for 5m")

    assert failed.code == 1
    first, marks, *_ = failed.err.splitlines()
    assert (first, marks) == ("p95_latncy > 2s for 5m", "^" * len("p95_latncy"))
    assert "p95_latency" in failed.err
    assert not pilotage.data.exists()


def test_a_rule_keeps_what_is_not_named_and_is_exported(
    pilotage: CommandLine, tmp_path: Path
) -> None:
    pilotage.ok("alerts", "set", "slow", "p95_latency>2s for 5m", "--team", "ops", "--label", "a=b")
    changed = pilotage.json("alerts", "set", "slow", "--severity", "critical")
    pilotage.ok("slos", "set", "chat", "--objective", "99.9", "--latency", "2s")

    assert changed["condition"] == "p95_latency > 2s for 5m"
    assert (changed["team"], changed["severity"], changed["labels"]) == (
        "ops",
        "critical",
        {"a": "b"},
    )
    assert "p95_latency > 2s for 5m" in pilotage.ok("alerts", "rules").out
    assert "99.9 % of calls take no longer than 2s" in pilotage.ok("slos", "list").out
    pilotage.ok("alerts", "export", "-o", str(tmp_path / "rules.yml"))
    (group,) = yaml.safe_load((tmp_path / "rules.yml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [
        "slow",
        *(f"chat-burn-{window}" for window in ("1h", "6h", "1d", "3d")),
    ]
    assert group["rules"][0]["for"] == "5m"
    assert group["rules"][0]["labels"]["team"] == "ops"


def test_misuse_is_explained(pilotage: CommandLine) -> None:
    for words, said in (
        (("alerts", "set", "a", "error_rate > 1%", "--label", "b"), "'b' is no label"),
        (("slos", "set", "a", "--latency", "1s", "--ttft", "1s"), "--latency or --ttft"),
    ):
        failed = pilotage(*words)
        assert failed.code == 2
        assert said in failed.err


async def put_one(pilotage: CommandLine) -> str:
    async with open_there(load_settings(None, pilotage.environment)) as api:
        return await put_alert(api, "chat")


def test_an_alert_is_listed_and_shown(pilotage: CommandLine) -> None:
    pilotage.ok("alerts", "list")
    alert_id = asyncio.run(put_one(pilotage))

    listed = pilotage.ok("alerts", "list").out
    shown = pilotage.ok("alerts", "show", alert_id).out

    assert "alias=chat" in listed
    assert "2.5" in listed
    assert "p95_latency > 2s" in shown
