"""What a plan can show, and how long it takes: forecasts and advice."""

import math
from dataclasses import replace
from typing import Any

import pytest

from pilotage.rollouts.advice_rules import advise, advise_at_look, forecast
from pilotage.rollouts.plan_rules import make_plan
from pilotage.rollouts.types import (
    Cause,
    GateLook,
    GateSpec,
    Judgement,
    Known,
    Plan,
    PlanSpec,
    StepSpec,
    Verdict,
)

KNOWN = Known(calls_s=2.0, error_share=0.01, slow_us=2_000_000, mean_nano=50_000)
ERRORS = {"error": GateSpec(), **dict.fromkeys(("lost", "latency", "slow", "cost"))}


def plan(known: Known = KNOWN, /, **said: Any) -> Plan:  # noqa: ANN401
    return make_plan(PlanSpec(**said), known)


def test_a_forecast_is_what_the_formula_says() -> None:
    """Bad units fall to both arms alike, or two in three to one twice as bad: KL is 0.0589."""
    half = (StepSpec(weight="50%"),)
    divergence = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    (told,) = forecast(plan(steps=half, gates=ERRORS | {"error": GateSpec(limit="0.5%")}), KNOWN)
    alpha = 0.05 / 2  # there are two ways to pass
    bad_units = (math.log(1 / alpha) + 1.5) / divergence
    assert told.units_to_pass == pytest.approx(bad_units / 0.01, rel=0.001)
    assert told.pass_s == pytest.approx(told.units_to_pass / 2, rel=0.001)


def test_what_is_rare_passes_by_its_limit() -> None:
    """459 clean units of the candidate show that less than 1 % are bad, at alpha 0.025."""
    (told,) = forecast(plan(steps=(StepSpec(weight="50%"),), gates=ERRORS), Known(calls_s=2.0))
    assert told.units_to_pass == 2 * 459


def test_greater_steps_and_greater_margins_take_less() -> None:
    steps = (StepSpec(weight="5%"), StepSpec(weight="50%"))
    small, great = forecast(plan(steps=steps, gates=ERRORS), KNOWN)
    assert (small.step, great.step) == (0, 1)
    assert small.units_to_find > great.units_to_find
    wide = forecast(plan(steps=steps, gates=ERRORS | {"error": GateSpec(margin="300%")}), KNOWN)
    assert wide[0].units_to_find < small.units_to_find


def test_gates_of_values_have_no_forecast_and_nothing_is_said_of_unknown_traffic() -> None:
    gates = {item.gate for item in forecast(plan(), KNOWN)}
    assert gates == {"error", "lost", "slow"}
    told = forecast(plan(Known()), Known())
    assert {item.pass_s for item in told} == {None}
    assert forecast(plan(strategy="direct"), KNOWN) == ()


@pytest.mark.parametrize(
    ("said", "known", "words"),
    [
        ({"strategy": "direct"}, KNOWN, "All traffic moves at once"),
        ({"strategy": "shadow", "daily": "1"}, KNOWN, "Copies are compared by their answers"),
        ({"unit": "tenant"}, KNOWN, "dealt by tenant"),
        ({}, Known(), "Nothing is known of the endpoint's traffic"),
        ({}, Known(calls_s=1.0), "There is no gate for slow calls"),
        ({}, Known(calls_s=1.0), "There is no gate for cost"),
        ({"steps": (StepSpec(weight="1%"),)}, KNOWN, "Step 0: 1 % of traffic finds catastrophes"),
        ({"steps": (StepSpec(weight="5%", at_most="30m"),)}, KNOWN, "the step ends after 30m"),
        ({}, replace(KNOWN, calls_s=0.01), "Step 0: lost needs about 9,180 units, 10d15h. A gr"),
        ({"gates": {"ttft": GateSpec()}}, replace(KNOWN, stream_share=0.0), "would wait for ever"),
        ({"gates": {"feedback": GateSpec()}}, KNOWN, "before people have scored enough answers"),
    ],
)
def test_what_somebody_should_know_is_said(said: dict[str, Any], known: Known, words: str) -> None:
    assert any(words in text for text in advise(plan(known, **said), known))


def test_a_plan_with_nothing_to_say_of_it_has_no_advice() -> None:
    assert advise(plan(steps=(StepSpec(weight="50%", at_most="7d"),)), KNOWN) == ()


def test_a_step_that_is_too_short_is_told_what_would_help() -> None:
    slow = Judgement(verdict=Verdict.UNDERPOWERED, cause=Cause.TOO_SLOW, gates=("error",))
    (text,) = advise_at_look(plan(), slow)
    assert "a finer unit" in text
    (text,) = advise_at_look(plan(unit="call"), slow)
    assert "a finer unit" not in text
    assert advise_at_look(plan(), Judgement(verdict=Verdict.HOLD, cause=Cause.COLLECTING)) == ()


def test_a_gate_that_has_counted_nothing_is_told_what_it_waits_for() -> None:
    gates = {"ttft": GateSpec(), "feedback": GateSpec(), "error": GateSpec()}
    made = plan(gates=gates)
    looks = tuple(
        GateLook(
            gate=name,
            candidate_units=units,
            baseline_units=9,
            candidate_bad=0,
            baseline_bad=0,
            ratio=None,
            worse=0.0,
            worse_bound=3.0,
            fine=0.0,
            fine_bound=3.0,
        )
        for name, units in (("ttft", 0), ("feedback", 0), ("cost", 0), ("error", 5), ("slow", 0))
    )
    waiting = ("error", "ttft", "feedback", "cost")
    judged = Judgement(
        verdict=Verdict.UNDERPOWERED, cause=Cause.TOO_SLOW, gates=waiting, looks=looks
    )
    told = {text.partition(":")[0]: text for text in advise_at_look(made, judged)}
    assert list(told) == ["ttft", "cost", "feedback", "error"]
    assert "only streams" in told["ttft"]
    assert "people have to score" in told["feedback"]
    assert "too little of one arm" in told["cost"]
    assert "promote by hand" in told["cost"]
    assert "A greater weight" in told["error"]
    (text,) = advise_at_look(made, replace(judged, gates=("ttft",)))
    assert text == told["ttft"]


def test_a_candidate_that_hangs_or_takes_longer_waits_for_a_person() -> None:
    hangs = Judgement(verdict=Verdict.UNDERPOWERED, cause=Cause.HANGING)
    (text,) = advise_at_look(plan(), hangs)
    assert "promote by hand" in text
    assert advise_at_look(plan(), replace(hangs, verdict=Verdict.HOLD)) == ()


def test_a_step_whose_calls_are_left_out_is_told_why() -> None:
    judged = Judgement(verdict=Verdict.HOLD, cause=Cause.COLLECTING, left_out=0.25)
    (text,) = advise_at_look(plan(), judged)
    assert text.startswith("25% of the step's calls say nothing")
    assert advise_at_look(plan(), replace(judged, left_out=0.2)) == ()
    assert advise_at_look(plan(gates=ERRORS), judged) == ()  # nothing looks at what they lack
