"""Plans of rollouts: what people write, what is usual, what is refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.gates.ranks import Ranks
from pilotage.core.gates.types import Units, Values, Weight
from pilotage.core.sketch import GAMMA, Sketch
from pilotage.rollouts.advice_rules import forecast
from pilotage.rollouts.plan_rules import (
    USUAL,
    hash_ask,
    make_plan,
    read_ask,
    read_part,
    read_weight,
    write_ask,
    write_plan,
)
from pilotage.rollouts.rules import judge
from pilotage.rollouts.types import (
    GateKind,
    GateSpec,
    Known,
    Measurement,
    Plan,
    PlanSpec,
    Risk,
    Signal,
    Step,
    StepSpec,
    Strategy,
    Tally,
    Unit,
)

MINUTE = 60_000_000
KNOWN = Known(calls_s=2.0, error_share=0.01, slow_us=2_000_000, mean_nano=50_000)


def plan(known: Known = KNOWN, /, **said: Any) -> Plan:  # noqa: ANN401
    return make_plan(PlanSpec(**said), known)


def refuse(known: Known = KNOWN, /, **said: Any) -> PilotageError:  # noqa: ANN401
    with pytest.raises(PilotageError) as refused:
        plan(known, **said)
    assert refused.value.code == "invalid_request"
    return refused.value


def test_what_nobody_says_is_as_usual() -> None:
    usual = plan()
    assert usual.strategy is Strategy.CANARY
    assert [step.weight for step in usual.steps] == [500, 2_500, 5_000]
    assert {step.least_us for step in usual.steps} == {MINUTE}
    assert [gate.name for gate in usual.gates] == ["error", "lost", "latency", "slow", "cost"]
    by_name = {gate.name: gate for gate in usual.gates}
    assert by_name["slow"].threshold == 2_000_000
    assert (by_name["cost"].kind, by_name["cost"].cap) == (GateKind.MEANS, 400_000)
    assert (by_name["error"].margin, by_name["error"].limit) == (1.0, 0.01)
    assert (usual.unit, usual.keep_us, usual.ready_us) == (Unit.SESSION, 0, 10 * MINUTE)


def test_usual_gates_that_too_little_is_known_for_are_left_out_and_asked_ones_refused() -> None:
    assert [gate.name for gate in plan(Known()).gates] == ["error", "lost", "latency"]
    assert refuse(Known(), gates={"slow": GateSpec(margin="10%")}).param == "gates.slow.over"
    assert refuse(Known(), gates={"cost": GateSpec()}).param == "gates.cost.cap"
    assert refuse(gates={"slow_ttft": GateSpec()}).param == "gates.slow_ttft.over"


def test_gates_are_added_set_and_left_out() -> None:
    gates = {
        "error": GateSpec(margin="50%", limit="2%"),
        "latency": None,
        "slow": GateSpec(over="3s", margin="0.25"),
        "cost": GateSpec(cap="0.05", margin="10%"),
        "feedback": GateSpec(margin="5%"),
        "slow_ttft": GateSpec(over="500ms"),
    }
    made = {gate.name: gate for gate in plan(Known(), gates=gates).gates}
    assert sorted(made) == ["cost", "error", "feedback", "lost", "slow", "slow_ttft"]
    assert (made["error"].margin, made["error"].limit) == (0.5, 0.02)
    assert (made["slow"].threshold, made["slow"].margin) == (3_000_000, 0.25)
    assert made["cost"].cap == 50_000_000
    assert (made["feedback"].cap, made["feedback"].signal) == (1e6, Signal.FEEDBACK)
    assert made["slow_ttft"].threshold == 500_000


@pytest.mark.parametrize(
    ("gates", "param"),
    [
        ({"speed": GateSpec()}, "gates.speed"),
        ({"latency": GateSpec(limit="1%")}, "gates.latency"),
        ({"error": GateSpec(over="2s")}, "gates.error"),
        ({"slow": GateSpec(cap="1")}, "gates.slow"),
        ({"error": GateSpec(margin="none")}, "gates.error.margin"),
        ({"error": GateSpec(margin="0%")}, "gates.error.margin"),
        ({"error": GateSpec(margin="20")}, "gates.error.margin"),
        ({"error": GateSpec(margin="nan")}, "gates.error.margin"),
        ({"error": GateSpec(margin="0.00000000000000001")}, "gates.error.margin"),
        ({"latency": GateSpec(margin="2%")}, "gates.latency.margin"),
        ({"cost": GateSpec(margin="2%")}, "gates.cost.margin"),
        ({"error": GateSpec(limit="100%")}, "gates.error.limit"),
        ({"error": GateSpec(limit="1e-320")}, "gates.error.limit"),
        ({"cost": GateSpec(cap="0.00004")}, "gates.cost.cap"),
        ({"slow": GateSpec(over="soon")}, "gates.slow.over"),
        ({"cost": GateSpec(cap="much")}, "gates.cost.cap"),
        ({"cost": GateSpec(cap="-1")}, "gates.cost.cap"),
        ({"answers": GateSpec()}, "gates.answers"),
        (dict.fromkeys(USUAL.keys() - {"answers"}), "gates"),
    ],
)
def test_settings_that_a_gate_has_not_are_refused(
    gates: dict[str, GateSpec | None], param: str
) -> None:
    refused = refuse(gates=gates)
    assert refused.param == param
    assert refused.hint


def test_the_least_that_can_be_set_has_a_forecast_and_an_equal_candidate_can_pass() -> None:
    """In sketches, whose buckets are 1.1 % wide."""
    gates = {
        "error": GateSpec(margin="0.1%", limit="0.001%"),
        "latency": GateSpec(margin="3%"),
        "cost": GateSpec(margin="3%", cap="0.0004"),
    }
    made = plan(gates=gates)
    assert all(item.units_to_pass < 10**12 for item in forecast(made, KNOWN))
    equal, half = Sketch(buckets=dict.fromkeys(range(900, 920), 20_000)), Weight(1, 1)
    tally = Tally(units={half: Units(400_000, 400_000)}, values={half: Values(equal, equal)})
    for gate in made.gates:
        if gate.name in ("latency", "cost"):
            wide = replace(gate, cap=gate.cap and 8 * GAMMA**920)
            tallies = {gate.name: tally}
            measured = Measurement(whole=tallies, step=tallies, first_seen=tally.units)
            assert judge([wide], measured, {"latency": Ranks(equal)}, Risk()).looks[0].is_fine


def test_steps_rise_and_all_traffic_follows_the_last() -> None:
    steps = (
        StepSpec(weight="1%", at_least="10m", at_most="2h", approval=True),
        StepSpec(weight="12.5 %"),
        StepSpec(weight="100%"),
    )
    assert plan(steps=steps).steps == (
        Step(weight=100, least_us=10 * MINUTE, most_us=120 * MINUTE, needs_person=True),
        Step(weight=1_250, least_us=MINUTE),
    )


@pytest.mark.parametrize(
    ("steps", "param"),
    [
        ((StepSpec(weight="50%"), StepSpec(weight="5%")), "steps"),
        ((StepSpec(weight="5%"), StepSpec(weight="5%")), "steps"),
        ((StepSpec(weight="0%"),), "steps"),
        ((StepSpec(),), "steps"),
        ((StepSpec(weight="100%"),), "steps"),
        ((StepSpec(weight="5%"), StepSpec(weight="100%", at_most="1h")), "steps"),
        ((StepSpec(weight="a lot"),), "steps[0].weight"),
        ((StepSpec(weight="101%"),), "steps[0].weight"),
        ((StepSpec(weight="0.001%"),), "steps[0].weight"),
        ((StepSpec(weight="1e400"),), "steps[0].weight"),
        ((StepSpec(weight="nan"),), "steps[0].weight"),
        ((StepSpec(weight="5%", at_least="1h", at_most="1h"),), "steps[0].at_most"),
        ((StepSpec(weight="5%", at_least="long"),), "steps[0].at_least"),
        (tuple(StepSpec(weight=f"{n}%") for n in range(1, 30)), "steps"),
    ],
)
def test_steps_that_cannot_be_are_refused(steps: tuple[StepSpec, ...], param: str) -> None:
    assert refuse(steps=steps).param == param


def test_a_switch_compares_nothing_and_has_no_settings_that_would() -> None:
    green = plan(strategy="blue_green")
    assert (green.steps, green.gates, green.keep_us) == ((), (), 60 * MINUTE)
    assert plan(strategy="blue_green", keep_warm="2h").keep_us == 120 * MINUTE
    assert plan(strategy="direct").keep_us == 0
    for strategy in ("blue_green", "canary"):
        assert refuse(strategy=strategy, keep_warm="8d").param == "keep_warm"
    settings: list[dict[str, Any]] = [
        {"steps": (StepSpec(weight="5%"),)},
        {"gates": {"error": GateSpec()}},
        {"goal": "error"},
        {"unit": "call"},
        {"daily": "5"},
    ]
    for said in settings:
        assert refuse(strategy="direct", **said).param in said
    assert refuse(strategy="direct", keep_warm="1h").param == "keep_warm"


def test_an_experiment_has_one_step_and_a_goal() -> None:
    made = plan(strategy="ab_test", goal="cost", unit="user")
    assert ([step.weight for step in made.steps], made.goal) == ([5_000], "cost")
    assert made.unit is Unit.USER
    assert refuse(strategy="ab_test").param == "goal"
    assert refuse(goal="error").param == "goal"
    two = (StepSpec(weight="5%"), StepSpec(weight="50%"))
    assert refuse(strategy="ab_test", goal="error", steps=two).param == "steps"


def test_a_shadow_copies_within_a_cost_and_compares_answers() -> None:
    made = plan(strategy="shadow", daily="2.5", gates={"answers": GateSpec(margin="5%")})
    assert ([step.weight for step in made.steps], made.daily_nano) == ([10_000], 2_500_000_000)
    (gate,) = made.gates
    assert (gate.kind, gate.margin) == (GateKind.PAIRS, 0.05)
    assert plan(strategy="shadow", daily="1").gates[0].margin == 0.03
    settings: dict[str, dict[str, Any]] = {
        "daily": {"daily": ""},
        "gates.error": {"gates": {"error": GateSpec()}},
        "gates.answers": {"gates": {"answers": GateSpec(over="1s")}},
        "gates.answers.margin": {"gates": {"answers": GateSpec(margin="100%")}},
        "keep_warm": {"keep_warm": "1h"},
        "goal": {"goal": "answers"},
        "unit": {"unit": "user"},
        "steps[0].weight": {"steps": (StepSpec(),)},
        "steps": {"steps": (StepSpec(weight="1%"), StepSpec(weight="2%"))},
    }
    for param, said in settings.items():
        assert refuse(**{"strategy": "shadow", "daily": "1"} | said).param == param
    assert refuse(strategy="shadow", daily="free").param == "daily"


@pytest.mark.parametrize(("name", "value"), [("strategy", "slowly"), ("unit", "planet")])
def test_words_that_nobody_knows_are_refused_with_those_that_are(name: str, value: str) -> None:
    refused = refuse(**{name: value})
    assert refused.param == name
    assert refused.hint.startswith("There are: ")


def read_back(written: dict[str, Any]) -> PlanSpec:
    gates = {name: GateSpec(**gate) for name, gate in written["gates"].items()}
    left_out = dict.fromkeys(name for name, item in USUAL.items() if item.is_default)
    steps = tuple(StepSpec(**step) for step in written["steps"])
    return PlanSpec(**written | {"gates": left_out | gates or None, "steps": steps})


weights = st.lists(st.integers(1, 9_999), min_size=1, max_size=5, unique=True).map(sorted)


@given(
    weights,
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from(["session", "call", "user", "tenant"]),
    st.dictionaries(st.sampled_from(["error", "filtered", "ttft", "lost"]), st.integers(3, 500)),
)
def test_a_written_plan_makes_the_same_plan_again(
    shares: list[int], seconds: int, waits: bool, unit: str, gates: dict[str, int]
) -> None:
    steps = tuple(
        StepSpec(weight=f"{share / 100}%", at_least=f"{seconds}s", approval=waits)
        for share in shares
    )
    specs = {name: GateSpec(margin=f"{margin}%") for name, margin in gates.items()}
    made = plan(steps=steps, unit=unit, gates=specs, keep_warm="90m")
    assert make_plan(read_back(write_plan(made)), Known()) == made


@pytest.mark.parametrize("strategy", ["ab_test", "shadow"])
def test_written_plans_of_other_kinds_make_the_same_again(strategy: str) -> None:
    said: dict[str, Any] = {"ab_test": {"goal": "error"}, "shadow": {"daily": "0.5"}}[strategy]
    made = plan(strategy=strategy, **said)
    written = write_plan(made)
    gates = {name: GateSpec(**gate) for name, gate in written["gates"].items()}
    steps = tuple(StepSpec(**step) for step in written["steps"])
    spec = PlanSpec(**written | {"gates": gates, "steps": steps})
    assert make_plan(spec, Known()) == made


def test_what_was_asked_for_has_one_way_to_be_written() -> None:
    spec = PlanSpec(
        steps=(StepSpec(weight="5%"),), gates={"error": GateSpec(margin="50%"), "cost": None}
    )
    text = write_ask("team/chat", "tiny@1.1.0", spec)
    assert text == (
        'team/chat {"candidate":"tiny@1.1.0",'
        '"gates":{"cost":null,"error":{"margin":"50%"}},"steps":[{"weight":"5%"}]}'
    )
    assert read_ask(text) == ("team/chat", "tiny@1.1.0", spec)
    assert hash_ask("chat", "a", PlanSpec()) != hash_ask("chat", "b", PlanSpec())
    assert hash_ask("chat", "a", PlanSpec()) == hash_ask("chat", "a", PlanSpec(unit="session"))


@pytest.mark.parametrize(
    "text", ["", "chat", "chat {", "chat {}", 'chat {"candidate":"a","unit":1}']
)
def test_what_is_no_ask_is_refused(text: str) -> None:
    with pytest.raises(PilotageError, match="does not say what shall be rolled out"):
        read_ask(text)


def test_parts_and_weights() -> None:
    assert read_part("20%", "x") == 0.2
    assert read_part(" 0.2 ", "x") == 0.2
    assert read_part("300%", "x") == 3.0
    assert read_weight("0.25%", "x") == 25
    assert read_weight("5", "x") == 500
