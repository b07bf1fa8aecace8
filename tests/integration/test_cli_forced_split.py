"""Splits while a rollout runs: refused, and with force only once it has been rolled back."""

from pathlib import Path

import pytest

from command_line import CommandLine

SERVED = """\
{kind: Upstream, name: gpu, provider: openai, base_url: "http://127.0.0.1:9/v1"}
---
{kind: Price, model: small, input: 0.5, output: 1.5}
---
{kind: Price, model: large, input: 0.5, output: 1.5}
---
kind: Endpoint
name: chat
deployments:
  - {model: small, upstream: gpu, share: 100}
  - {model: large, upstream: gpu, share: 0}
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_rollout_is_rolled_back_before_somebody_else_splits(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)
    (tmp_path / "served.yaml").write_text(SERVED)
    pilotage.ok("apply", "-f", "served.yaml")
    begun = pilotage.json("rollout", "start", "chat", "gpu/large", "--reason", "release 7")
    step = pilotage.json("endpoints", "show", "chat")["rollout"]
    assert step.partition("/")[0] == begun["id"]
    assert step in pilotage.ok("endpoints", "show", "chat").out
    split = ("endpoints", "split", "chat", "gpu/small=50", "gpu/large=50")
    refused = pilotage(*split)
    assert refused.code == 1
    assert f"The rollout {begun['id']} moves the traffic of 'chat'" in refused.err
    assert f"pilotage rollout rollback {begun['id']}" in refused.err.replace("\n", " ")
    moved = pilotage.json(*split, "--force", "--reason", "an outage")
    assert {item["model"]: item["percent"] for item in moved["deployments"]} == {
        "gpu/small": 50,
        "gpu/large": 50,
    }
    assert moved["rollout"] == ""
    ended = pilotage.json("rollout", "show", begun["id"])
    assert (ended["state"], ended["percent"]) == ("rolled_back", 0)
