"""Promotion, gates, the release policy and the past by command, by two people."""

from pathlib import Path

import pytest

from command_line import CommandLine

pytestmark = pytest.mark.slow  # every command opens an installation
TO_PRODUCTION = "registry.version.promote:production"


@pytest.fixture(scope="module")
def pilotage(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder: Path = tmp_path_factory.mktemp("stages")
    return CommandLine(folder)


def hire(pilotage: CommandLine, name: str, role: str) -> CommandLine:
    pilotage.ok("principals", "create", name)
    pilotage.ok("roles", "grant", name, role, "--project", "default")
    secret = pilotage.json("credentials", "create", name)["secret"]
    return CommandLine(
        pilotage.folder, PILOTAGE_CONTROL_CREDENTIAL="env:CREDENTIAL", CREDENTIAL=secret
    )


@pytest.fixture(scope="module")
def approver(pilotage: CommandLine) -> CommandLine:
    return hire(pilotage, "ann", "approver")


@pytest.fixture(scope="module")
def engineer(pilotage: CommandLine) -> CommandLine:
    return hire(pilotage, "bea", "ml_engineer")


def test_a_model_comes_to_production_and_the_past_tells_how(
    pilotage: CommandLine, engineer: CommandLine, approver: CommandLine
) -> None:
    pilotage.ok("models", "register", "chat@1.0.0", "--base", "gemini")
    dry = pilotage("models", "promote", "chat@1.0.0", "production", "--dry-run")
    assert dry.code == 1
    assert "next_stage     failed" in dry.out
    assert f"pilotage approvals request {TO_PRODUCTION} chat@1.0.0" in dry.err
    staged = pilotage.ok("models", "promote", "chat@1.0.0", "staging")
    assert staged.out == "chat@1.0.0: development -> staging.\n"
    assert staged.err.startswith("decision dec_")
    early = pilotage("models", "promote", "chat@1.0.0", "production")
    assert (early.code, "needs an approval" in early.err) == (1, True)
    # one asks, and another approves who cannot be the same
    asked = engineer.json("approvals", "request", TO_PRODUCTION, "chat@1.0.0", "--reason", "June")
    approver.ok("approvals", "approve", asked["id"], "--reason", "read the report")

    made = pilotage.json("models", "promote", "chat@1.0.0", "production", "--reason", "release 1")

    past = pilotage.json("as-of")
    (version,) = past["versions"]
    assert (version["ref"], version["stage"]) == ("chat@1.0.0", "production")
    change = version["change"]
    assert (change["decision_id"], change["reason"]) == (made["decision"], "release 1")
    assert [item["id"] for item in change["approvals"]] == [asked["id"]]
    assert "chat@1.0.0  production" in pilotage.ok("as-of").out
    assert "No version had left development" in pilotage.ok("as-of", "2020-01-01").out
    assert pilotage("as-of", "2999-01-01").code == 1


def test_traffic_names_its_record_and_waits_for_agreement(pilotage: CommandLine) -> None:
    pilotage.ok(
        *("upstreams", "create", "cloud", "--provider", "openai"),
        *("--url", "https://api.openai.com/v1"),
    )
    pilotage.ok("endpoints", "create", "help")
    first = pilotage.ok("endpoints", "deploy", "help", "--upstream", "cloud", "--model", "gpt-4o")
    assert "decision dec_" in first.err
    shown = pilotage.json("release-policy", "set", "--approvals", "1")
    assert (shown["serve_from_stage"], shown["approvals"]) == ("development", 1)

    refused = pilotage("endpoints", "split", "help", "gpt-4o=100")

    assert refused.code == 1
    assert "approvals request endpoints.traffic.split 'help cloud/gpt-4o=100'" in refused.err
    assert "cloud/gpt-4o 100 %" in pilotage.ok("as-of", "--endpoint", "help").out
    assert "approvals    1" in pilotage.ok("release-policy", "show").out


def test_gates_are_set_by_words(pilotage: CommandLine) -> None:
    checks = ("accuracy min=0.9 min_n=100", "licence allowed=MIT,Apache-2.0", "card")
    words = [word for check in checks for word in ("--check", check)]

    changed = pilotage.json("gates", "set", "staging", *words, "--approvals", "2")

    assert [item["name"] for item in changed["checks"]] == ["accuracy", "licence", "card"]
    assert changed["checks"][1]["allowed"] == ["MIT", "Apache-2.0"]
    assert "min=0.9 min_n=100" in pilotage.ok("gates", "show", "staging").out
    assert "accuracy, licence, card" in pilotage.ok("gates", "list").out
    for wrong in ("accuracy min", "accuracy min_n=x", "accuracy min=1 min=2", "accuracy colour=1"):
        assert pilotage("gates", "set", "staging", "--check", wrong).code == 2
    assert pilotage("gates", "set", "staging").code == 2
    assert pilotage("gates", "set", "production", "--approvals", "0").code == 1
