"""``pilotage metrics`` on calls that were made."""

import time
from pathlib import Path
from typing import Any

import pytest

from calls import make_call, open_writer, put_calls
from command_line import CommandLine
from pilotage.cli.metrics import draw_bars
from pilotage.core.frames import Outcome
from pilotage.kit.clock import SystemClock

PATIENCE_S = 60


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A data folder whose calls are counted."""
    made = CommandLine(tmp_path_factory.mktemp("counted"))
    made.ok("init")
    (tenant,) = made.json("tenants", "list")
    mine = {"project_id": tenant["project_id"], "tenant_id": tenant["id"]}
    version = made.json("models", "register", "small@1.0.0", "--base", "small")["id"]
    now_us = SystemClock().now_us()
    calls = [
        make_call(**mine, at_us=now_us, duration_us=100_000, feature="search", version_id=version),
        make_call(**mine, at_us=now_us, duration_us=2_500_000, outcome=Outcome.DEADLINE),
        make_call(**mine, at_us=now_us, alias="code", outcome=Outcome.REFUSED, ttft_us=-1),
    ]
    with open_writer(Path(made.data) / "spool") as spool:
        put_calls(spool, calls)
    end_s = time.monotonic() + PATIENCE_S
    while len(list_groups(made)) < 2:
        assert time.monotonic() < end_s
    return made


def list_groups(made: CommandLine, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.json("metrics", *words)["groups"]
    return found


@pytest.mark.parametrize("words", ["metrics --by version", "cost show --by version"])
def test_versions_are_called_by_their_names(counted: CommandLine, words: str) -> None:
    assert "small@1.0.0" in counted.ok(*words.split()).out


def test_a_line_for_each_group(counted: CommandLine) -> None:
    head, chat, code = counted.ok("metrics").out.splitlines()
    assert head.split()[:4] == ["alias", "calls", "per", "s"]
    assert chat.split()[:6] == ["chat", "2", "0.00", "50.0%", "0.0%", "101ms"]
    assert "2.5s" in chat
    assert code.split()[:4] == ["code", "1", "0.00", "100.0%"]
    assert chat.endswith("█")


def test_groups_and_filters_are_those_of_the_api(counted: CommandLine) -> None:
    (group,) = list_groups(counted, "--by", "tenant,model", "--where", "alias=chat")
    assert group["calls"] == 2
    (line,) = counted.ok("metrics", "--by", "tenant").out.splitlines()[1:]
    assert line.split()[:2] == ["default", "3"]  # the tenant's name, not its id
    refused = counted("metrics", "--by", "weather")
    assert refused.code != 0
    assert "There are: project, tenant, alias, arm, version, model." in refused.err


def test_calls_of_customers_by_feature(counted: CommandLine) -> None:
    head, none, search = counted.ok("metrics", "--by", "tenant,feature").out.splitlines()
    assert head.split() == ["tenant", "feature", "calls", "per", "s", "share"]
    assert none.split() == ["default", "(none)", "2", "0.00", "66.7%"]
    assert search.split() == ["default", "search", "1", "0.00", "33.3%"]
    found = counted.json("metrics", "--by", "feature", "--where", "alias=chat")["features"]
    assert [(item["groups"], item["calls"]) for item in found] == [
        ({"feature": ""}, 1),
        ({"feature": "search"}, 1),
    ]
    nothing = counted.ok("metrics", "--by", "feature", "--where", "alias=none").out
    assert nothing.startswith("There were no calls in the last 1h.")


def test_bars_are_as_high_as_their_share_of_the_highest() -> None:
    assert draw_bars([0, 1, 2, 7]) == "▁▂▃█"
    assert draw_bars([0, 0]) == "▁▁"
    assert draw_bars([]) == ""
