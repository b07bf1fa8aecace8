"""Rollouts from the command line and from files, from their beginning to their end."""

from pathlib import Path
from typing import Any

import pytest

from command_line import CommandLine

RELEASE = """\
{kind: Upstream, name: gpu, provider: openai, base_url: "http://127.0.0.1:9/v1"}
---
{kind: Price, model: small, input: 0.5, output: 1.5}
---
{kind: Price, model: large, input: 0.5, output: 1.5}
---
kind: Endpoint
name: chat
labels: {team: help}
region: eu-west4
scaling: {min_replicas: 0, max_replicas: 3}
deployments:
  - {model: small, upstream: gpu, share: 100}
  - {model: large, upstream: gpu, share: 0}
---
kind: Rollout
endpoint: chat
candidate: gpu/large
reason: release 12
steps: [{weight: 5%, at_least: 10m}, {weight: 50%, approval: true}]
gates: {latency: {margin: 10%}, cost: null}
"""
LOOKS = 40  # each is a command that opens the installation


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def apply(pilotage: CommandLine, text: str) -> dict[str, str]:
    (pilotage.folder / "release.yaml").write_text(text)
    found = pilotage.json("apply", "-f", "release.yaml")
    return {item["kind"]: item["result"] for item in found}


def wait(pilotage: CommandLine, state: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(LOOKS):
        found = pilotage.json("rollout", "show", "chat")
        if found["state"] == state:
            return found
    raise AssertionError(f"still {found['state']}")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_rollout_of_a_file_is_begun_once_and_promoted_by_hand(pilotage: CommandLine) -> None:
    assert set(apply(pilotage, RELEASE).values()) == {"created"}
    running = wait(pilotage, "running")
    assert (running["percent"], running["candidate"]) == (5, "gpu/large")
    assert set(running["plan"]["gates"]) == {"error", "lost", "latency"}
    assert set(apply(pilotage, RELEASE).values()) == {"unchanged"}
    (pilotage.folder / "release.yaml").write_text(RELEASE.replace("release 12", "release 13"))
    refused = pilotage("apply", "-f", "release.yaml")
    assert (refused.code, "another rollout runs: rol_" in refused.err) == (1, True)

    unexplained = pilotage("rollout", "promote", "chat")
    assert (unexplained.code, "needs a reason" in unexplained.err) == (2, True)
    promoted = pilotage.ok("rollout", "promote", "chat", "--reason", "seen enough")
    assert "chat: running, step 2 of 2: gpu/large 50 %, gpu/small 50 %." in promoted.out
    late = pilotage("rollout", "promote", "chat", "--step", "1", "--reason", "seen enough")
    assert (late.code, "has left that step" in late.err) == (1, True)
    ended = pilotage.json("rollout", "promote", running["id"], "--to-end", "--reason", "done")
    assert (ended["state"], ended["percent"]) == ("promoted", 100)
    watched = pilotage.ok("rollout", "watch", "chat", "--plain")
    assert "chat: promoted: gpu/large 100 %" in watched.out
    assert set(apply(pilotage, RELEASE).values()) == {"unchanged"}  # the rollout has the shares
    shown = pilotage.json("endpoints", "show", "chat")
    assert {item["model"]: item["percent"] for item in shown["deployments"]} == {
        "gpu/small": 0,
        "gpu/large": 100,
    }
    assert (shown["labels"], shown["region"]) == ({"team": "help"}, "eu-west4")
    assert (shown["scaling"]["min_replicas"], shown["scaling"]["max_replicas"]) == (0, 3)
    moved = pilotage("apply", "-f", write(pilotage, RELEASE.replace("eu-west4", "us")))
    assert (moved.code, "region: it is there already" in moved.err) == (1, True)


def write(pilotage: CommandLine, text: str) -> str:
    (pilotage.folder / "release.yaml").write_text(text)
    return "release.yaml"


def test_what_cannot_begin_is_said(pilotage: CommandLine) -> None:
    release = RELEASE.rpartition("---\n")[2]
    alone = pilotage("apply", "-f", write(pilotage, release))
    assert "endpoint: there is no endpoint 'chat'" in alone.err
    unknown = pilotage("apply", "-f", write(pilotage, release.replace("10%", "much")))
    assert "gates.latency.margin: 'much' is no share" in unknown.err
    nobody = pilotage("rollout", "show", "chat")
    assert (nobody.code, "There is no endpoint 'chat'" in nobody.err) == (1, True)
    assert pilotage("rollout", "start", "chat", "gpu/large").code == 2
