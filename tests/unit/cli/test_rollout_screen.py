"""How rollouts read on a screen and in lines, and how words become plans."""

import math
from typing import Any

import pytest
import typer
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from pilotage.cli.objects.kinds import GatePart, RolloutObject, StepPart
from pilotage.cli.objects.rollout import is_same
from pilotage.cli.rollout_screen import RolloutScreen, draw_weights
from pilotage.cli.rollout_text import (
    GATE_COLUMNS,
    describe_look,
    describe_plan,
    list_gates,
    sum_up,
    write_evidence,
    write_time,
)
from pilotage.cli.rollout_words import read_gates, read_step
from pilotage.core.errors import PilotageError

NEVER_S = 3_600.0  # looks happen when a test asks for one
PLAN: dict[str, Any] = {
    "strategy": "canary",
    "steps": [
        {"weight": "5%", "at_least": "10m", "at_most": "2h", "approval": False},
        {"weight": "50%", "at_least": "1m", "at_most": "", "approval": True},
    ],
    "gates": {"error": {"margin": "100%", "limit": "1%"}, "slow": {"margin": "50%", "over": "2s"}},
    "unit": "session",
    "ready_within": "10m",
    "keep_warm": "1h",
    "goal": "",
    "daily": "",
}


def make_gate(name: str, **more: object) -> dict[str, Any]:
    return {
        "gate": name,
        "candidate_units": 1200,
        "baseline_units": 22_800,
        "candidate_bad": 30,
        "baseline_bad": 57,
        "ratio": 10.0,
        "worse": math.log(500),
        "worse_bound": math.log(400),
        "fine": -3.0,
        "fine_bound": math.log(40),
        "is_worse": False,
        "is_fine": False,
        "needed": None,
        "eta_s": None,
    } | more


def make_rollout(**more: object) -> dict[str, Any]:
    return {
        "rev": 3,
        "id": "rol_1",
        "endpoint": "chat",
        "baseline": "tiny@1.0.0",
        "candidate": "tiny@1.1.0",
        "state": "running",
        "step": 0,
        "percent": 5.0,
        "said": "the candidate is ready",
        "since": "2026-11-21T12:00:00Z",
        "reason": "release 12",
        "plan": PLAN,
        "advice": ["error: the step is too short."],
        "look": {
            "at": "2026-11-21T12:01:00Z",
            "verdict": "roll_back",
            "cause": "evidence",
            "decided_by": ["error"],
            "eta_s": 130.0,
            "gates": [
                make_gate("error", is_worse=True),
                make_gate("slow", is_fine=True, ratio=None, needed=5000.4, eta_s=42.0),
            ],
        },
    } | more


class Control:
    """Answers looks with what it was given last, or fails."""

    def __init__(self) -> None:
        self.rollout = make_rollout()
        self.failure: PilotageError | None = None
        self.looks = 0

    async def read(self) -> dict[str, Any]:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return self.rollout


def table(pilot: Pilot[None], name: str) -> list[list[str]]:
    found: DataTable[Any] = pilot.app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in found.get_row_at(at)] for at in range(found.row_count)]


def said(pilot: Pilot[None], name: str) -> str:
    return str(pilot.app.query_one(f"#{name}", Static).render())


async def test_weights_gates_and_moves_are_shown() -> None:
    control = Control()
    screen = RolloutScreen(control.read, every_s=NEVER_S)
    async with screen.run_test(size=(160, 40)) as pilot:
        assert said(pilot, "summary").startswith("chat: running, step 1 of 2: tiny@1.1.0 5 %")
        assert "5 % candidate, 95 % baseline" in said(pilot, "weights")
        assert "roll back: evidence (error), about 2 min to go" in said(pilot, "look")
        assert said(pilot, "advice") == "error: the step is too short."
        assert table(pilot, "gates") == [
            ["error", "1,200", "30", "22,800", "57", "10.00", "500 of 400", "0.0498 of 40",
             "", "", "worse"],
            ["slow", "1,200", "30", "22,800", "57", "", "500 of 400", "0.0498 of 40",
             "5,000", "42 s", "fine"],
        ]  # fmt: skip
        assert table(pilot, "moves") == [["running", "5 %", "the candidate is ready"]]
        control.rollout = make_rollout(rev=4, state="rolled_back", percent=0.0, said="worse: error")
        await screen.look()
        assert table(pilot, "moves")[1:] == [["rolled_back", "0 %", "worse: error"]]
        await screen.look()
        assert (screen.has_ended, control.looks) == (True, 2)


async def test_a_look_that_fails_is_said_and_repeated() -> None:
    control = Control()
    control.failure = PilotageError("unavailable", "The control plane is away.")
    screen = RolloutScreen(control.read, every_s=NEVER_S)
    async with screen.run_test(size=(160, 40)) as pilot:
        assert "The control plane is away." in said(pilot, "look")
        control.failure = None
        await screen.look()
        assert "evidence" in said(pilot, "look")
        await pilot.press("q")
    assert not screen.is_running


def test_what_is_not_known_is_left_out() -> None:
    fresh = make_rollout(state="preparing", step=-1, percent=0.0, look=None)
    assert sum_up(fresh) == "chat: preparing: tiny@1.1.0 0 %, tiny@1.0.0 100 %"
    assert describe_look(None) == "No look yet."
    assert list_gates(None) == []
    assert all(len(row) == len(GATE_COLUMNS) for row in list_gates(make_rollout()["look"]))
    assert write_evidence(1000.0, math.log(40)) == "1e434 of 40"
    assert [write_time(s) for s in (None, 89.0, 600.0, 7200.0, 200_000.0)] == [
        "", "89 s", "10 min", "2.0 h", "2.3 d",
    ]  # fmt: skip


def test_a_plan_reads_as_it_was_written() -> None:
    fields = describe_plan(PLAN)
    assert fields["steps"] == "5% for 10m to 2h, 50% for 1m, then a person"
    assert fields["gates"] == "error margin 100% limit 1%; slow margin 50% over 2s"
    assert describe_plan(PLAN | {"goal": "cost"})["goal"] == "cost"


def test_a_plan_is_not_said_to_have_what_its_strategy_does_not_know() -> None:
    switch = PLAN | {"strategy": "blue_green", "steps": [], "gates": {}, "keep_warm": ""}
    assert describe_plan(switch) == {
        "strategy": "blue_green",
        "steps": "all at once",
        "gates": "none",
        "ready within": "10m",
        "keep warm": "no",
    }
    shadow = describe_plan(PLAN | {"strategy": "shadow", "keep_warm": "", "daily": "5"})
    assert shadow["daily"] == "5 USD for copies"
    assert not {"unit", "keep warm"} & set(shadow)


def test_weights_are_drawn_to_the_percent() -> None:
    assert draw_weights(100.0).plain.endswith("100 % candidate, 0 % baseline")


def test_words_become_steps_and_gates() -> None:
    assert read_step("5%") == {"weight": "5%"}
    assert read_step("5%,at_least=10m,at_most=2h,approval") == {
        "weight": "5%", "at_least": "10m", "at_most": "2h", "approval": True,
    }  # fmt: skip
    assert read_gates([], []) is None
    assert read_gates(["error", "latency:margin=10%,limit=1%"], ["cost"]) == {
        "error": {}, "latency": {"margin": "10%", "limit": "1%"}, "cost": None,
    }  # fmt: skip


@pytest.mark.parametrize("word", ["5%,soon", "5%,at_least", "5%,at_least=", "5%,margin=2"])
def test_a_step_that_cannot_be_read_is_said(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        read_step(word)
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "left_out"),
    [(["error", "error:limit=1%"], []), (["error"], ["error"]), (["error:weight=1"], [])],
)
def test_gates_that_cannot_be_are_said(words: list[str], left_out: list[str]) -> None:
    with pytest.raises(typer.Exit):
        read_gates(words, left_out)


def document(**more: Any) -> RolloutObject:  # noqa: ANN401
    said: dict[str, Any] = {"endpoint": "chat", "candidate": "tiny@1.1.0", "reason": "release 12"}
    return RolloutObject(**said | more)


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"candidate": "1.1.0"},
        {"keep_warm": "60m"},
        {"ready_within": "600s"},
        {"steps": [StepPart(weight="5", at_least="600s", at_most="120m"),
                   StepPart(weight="50%", approval=True), StepPart(weight="100%")]},
        {"gates": {"slow": GatePart(margin="0.5", over="2000ms"), "cost": None}},
    ],
)  # fmt: skip
def test_a_document_is_the_rollout_that_it_began(same: dict[str, Any]) -> None:
    document(**same).check()
    assert is_same(document(**same), make_rollout())


@pytest.mark.parametrize(
    "other",
    [
        {"candidate": "tiny@1.2.0"},
        {"reason": "once more"},
        {"strategy": "blue_green"},
        {"unit": "call"},
        {"goal": "cost"},
        {"keep_warm": "2h"},
        {"steps": [StepPart(weight="5%", at_most="2h")]},
        {"steps": [StepPart(weight="5%"), StepPart(weight="50%", approval=True)]},
        {"steps": [StepPart(weight="6%", at_most="2h"), StepPart(weight="50%", approval=True)]},
        {"gates": {"cost": GatePart()}},
        {"gates": {"error": None}},
        {"gates": {"error": GatePart(margin="50%")}},
        {"gates": {"error": GatePart(cap="0.05")}},
        {"gates": {"slow": GatePart(over="3s")}},
    ],
)
def test_a_document_with_other_content_is_another_rollout(other: dict[str, Any]) -> None:
    document(**other).check()
    assert not is_same(document(**other), make_rollout())


def test_the_cap_of_a_gate_is_an_amount() -> None:
    plan = PLAN | {"gates": {"cost": {"margin": "20%", "cap": "0.05"}}}
    assert is_same(document(gates={"cost": GatePart(cap="0.050")}), make_rollout(plan=plan))


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": " "},
        {"candidate": ""},
        {"keep_warm": "soon"},
        {"steps": [StepPart(weight="much")]},
        {"steps": [StepPart(at_least="soon")]},
        {"gates": {"error": GatePart(margin="some")}},
        {"gates": {"slow": GatePart(over="2")}},
        {"gates": {"cost": GatePart(cap="much")}},
    ],
)
def test_a_document_that_cannot_be_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w: "):
        document(**wrong).check()
