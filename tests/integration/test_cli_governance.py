"""Approvals, the calendar and decisions by commands, each person with a credential of their own."""

import json
import shutil
from pathlib import Path

import pytest

from command_line import CommandLine
from pilotage.kit.clock import SystemClock, rfc3339

pytestmark = pytest.mark.slow  # every command opens an installation

TOMORROW = rfc3339(SystemClock().now_us() + 86_400_000_000)
PROMOTE = "registry.version.promote:production"


class Desk:
    """An installation with a deployed model, and the command lines of its people."""

    def __init__(self, folder: Path, gguf: Path) -> None:
        self.admin = CommandLine(folder)
        shutil.copy(gguf, folder / "tiny.gguf")
        for words in (
            "models add tiny.gguf --name tiny",
            "models add tiny.gguf --name tiny --version 1.1.0",
            "endpoints create chat",
            "endpoints deploy chat tiny@1.0.0",
            "endpoints deploy chat tiny@1.1.0",
        ):
            self.admin.ok(*words.split())

    def hire(self, name: str, role: str) -> CommandLine:
        """Return the command line of a new person."""
        self.admin.ok("principals", "create", name)
        self.admin.ok("roles", "grant", name, role)
        secret = self.admin.json("credentials", "create", name)["secret"]
        return CommandLine(
            self.admin.folder, PILOTAGE_CONTROL_CREDENTIAL="env:CREDENTIAL", CREDENTIAL=secret
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), tiny_gguf)


@pytest.fixture(scope="module")
def ada(desk: Desk) -> CommandLine:
    return desk.hire("ada", "ml_ops")


@pytest.fixture(scope="module")
def bob(desk: Desk) -> CommandLine:
    return desk.hire("bob", "approver")


def test_every_command_shows_json(ada: CommandLine, bob: CommandLine, tmp_path: Path) -> None:
    asked = [ask(ada) for _ in range(4)]
    split = json.dumps({"split": {"tiny@1.1.0": 100}})
    decision = ada.json("decisions", "list")[-1]["id"]
    file = str(tmp_path / "decision.json")
    why = ("--reason", "because")
    freeze = ("--from", "2099-01-01", "--to", "2099-01-02", "--override-role", "ml_ops", *why)
    release = ada.json(
        *("calendar", "schedule", "endpoints.traffic.split", "chat", "--at", TOMORROW),
        *("--with", split, *why),
    )

    shown = {
        "approvals approve": bob.json("approvals", "approve", asked[0], *why)["state"],
        "approvals revoke": bob.json("approvals", "revoke", asked[0], *why)["state"],
        "approvals reject": bob.json("approvals", "reject", asked[1], *why)["state"],
        "approvals withdraw": ada.json("approvals", "withdraw", asked[2], *why)["state"],
        "approvals show": ada.json("approvals", "show", asked[3])["state"],
        "calendar freeze": ada.json("calendar", "freeze", "far", *freeze)["name"],
        "calendar override": ada.json("calendar", "override", "far", "chat", *why)["subject"],
        "calendar lift": ada.json("calendar", "lift", "far", *why)["lifted"],
        "calendar cancel": ada.json("calendar", "cancel", release["id"])["state"],
        "decisions show": ada.json("decisions", "show", decision)["id"],
        "decisions note": ada.json("decisions", "note", decision, "well")["kind"],
        "decisions bundle": ada.json("decisions", "bundle", decision, "--out", file)["file"],
        "verify bundle": ada.json("verify", "bundle", file)["is_good"],
    }

    assert list(shown.values()) == [
        *("approved", "revoked", "rejected", "withdrawn", "pending"),
        *("far", "chat", "far", "cancelled"),
        *(decision, "note", file, True),
    ]
    assert ada.json("approvals", "list", "--state", "pending")[-1]["id"] == asked[3]
    assert set(ada.json("calendar", "list")) == {"freezes", "releases"}
    assert decision in {item["decision_id"] for item in ada.json("decisions", "log")}


def ask(who: CommandLine, **more: str) -> str:
    options = [word for name, value in more.items() for word in (f"--{name}", value)]
    words = ("approvals", "request", PROMOTE, "tiny@1.1.0", "--reason", "June", *options)
    return str(who.json(*words)["id"])


def test_one_asks_and_another_approves(ada: CommandLine, bob: CommandLine) -> None:
    asked = ask(ada, needed="1", expires="2d")

    refused = ada("approvals", "approve", asked, "--reason", "mine is good")
    approved = bob.ok("approvals", "approve", asked, "--reason", "read the report")
    shown = bob.ok("approvals", "show", asked)
    listed = ada.ok("approvals", "list", "--state", "approved")
    revoked = bob.json("approvals", "revoke", asked, "--reason", "wrong data")

    assert refused.code == 1
    assert "Whoever asks for an approval cannot give it." in refused.err
    assert approved.out == f"{asked} is approved (1 of 1 approvals).\n"
    assert "read the report" in shown.out
    assert asked in listed.out
    assert revoked["state"] == "revoked"


@pytest.mark.parametrize(("who", "verdict"), [("bob", "reject"), ("ada", "withdraw")])
def test_a_request_is_ended(ada: CommandLine, bob: CommandLine, who: str, verdict: str) -> None:
    asked = ask(ada)
    people = {"ada": ada, "bob": bob}

    ended = people[who].json("approvals", verdict, asked, "--reason", "no")

    assert ended["state"] == {"reject": "rejected", "withdraw": "withdrawn"}[verdict]
    assert ada.json("approvals", "show", asked)["state"] == ended["state"]


def test_a_freeze_is_set_passed_and_lifted(desk: Desk, ada: CommandLine, tmp_path: Path) -> None:
    ada.ok(
        *("calendar", "freeze", "close", "--from", "2020-01-01", "--to", "2020-01-08"),
        *("--weekly", "--zone", "Europe/Berlin", "--override-role", "ml_ops", "--of", "chat"),
        *("--reason", "quarter end"),
    )
    listed = ada.ok("calendar", "list")
    stopped = desk.admin("endpoints", "split", "chat", "1.0.0=50", "1.1.0=50")
    taken = ada.json("calendar", "override", "close", "chat", "--reason", "outage 17")
    moved = ada("endpoints", "split", "chat", "1.0.0=50", "1.1.0=50", "--reason", "outage 17")
    ada.ok("calendar", "list", "--ics", str(tmp_path / "changes.ics"))
    lifted = ada.json("calendar", "lift", "close", "--reason", "closed early")
    overruled = ada.json("decisions", "log", "--interventions")

    assert "quarter end" in listed.out
    assert stopped.code == 1
    assert "the freeze 'close' lasts until" in stopped.err
    assert "pilotage calendar override close chat" in stopped.err
    assert moved.code == 0, moved.err
    assert taken["subject"] == "chat"
    assert lifted == {"lifted": "close"}
    assert "Freeze close: chat" in (tmp_path / "changes.ics").read_text()
    assert [(item["what"], item["reason"]) for item in overruled] == [
        ("freeze_override", "outage 17"),
        ("forced", "closed early"),
    ]


def test_a_release_is_planned_and_cancelled(ada: CommandLine) -> None:
    told = json.dumps({"split": {"tiny@1.1.0": 100}})
    plan = ("calendar", "schedule", "endpoints.traffic.split", "chat", "--with", told)

    made = ada.json(*plan, "--at", TOMORROW, "--reason", "June")
    listed = ada.json("calendar", "list")
    cancelled = ada.ok("calendar", "cancel", made["id"], "--reason", "not ready")
    every = ada.json("calendar", "list", "--all")
    wrong = ada(*plan[:-1], "{", "--at", TOMORROW, "--reason", "June")

    assert [item["id"] for item in listed["releases"]] == [made["id"]]
    assert cancelled.out == f"{made['id']} is cancelled.\n"
    assert every["releases"][-1]["state"] == "cancelled"
    assert wrong.code == 2


def test_a_decision_is_read_kept_and_checked_elsewhere(ada: CommandLine, tmp_path: Path) -> None:
    words = ("decisions", "list", "--subject", "chat", "--kind", "deploy")
    decision = str(ada.json(*words)[0]["id"])
    file, page = tmp_path / "decision.json", tmp_path / "decision.html"

    shown = ada.ok("decisions", "show", decision)
    ada.ok("decisions", "note", decision, "see the wiki")
    ada.ok("decisions", "show", decision, "--html", str(page))
    markdown = ada.ok("decisions", "show", decision, "--markdown")
    logged = ada.ok("decisions", "log", "--subject", "chat")
    ada.ok("decisions", "bundle", decision, "--out", str(file))
    key = str(ada.data / "keys" / "audit.pub")
    elsewhere = CommandLine(tmp_path)
    good = elsewhere("verify", "bundle", str(file), "--key", key)
    alone = elsewhere.json("verify", "bundle", str(file))
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    bad = elsewhere("verify", "bundle", str(file), "--key", key)

    assert "What could go wrong?" in shown.out
    assert "No fact recorded: an alert rule" in shown.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "see the wiki" in markdown.out
    assert decision in logged.out
    assert (good.code, good.out.count("ok "), good.err) == (0, 8, "")
    assert alone["is_good"]
    assert bad.code == 1
    assert bad.out.startswith("WRONG  form: ")
    assert not elsewhere.data.exists()


@pytest.mark.parametrize("words", ["bundle missing.json", "bundle here.json --key nonsense"])
def test_what_cannot_be_checked_is_a_mistake_of_the_call(tmp_path: Path, words: str) -> None:
    (tmp_path / "here.json").write_text("{}")

    said = CommandLine(tmp_path)("verify", *words.split())

    assert said.code == 2
    assert said.err.startswith("error: ")
