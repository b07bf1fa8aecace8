"""Burn-rate rules: which there are for an objective, and what they say."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.monitoring.alerts.burn import (
    WINDOWS,
    burn_rate,
    check_slo,
    list_burn_rules,
)
from pilotage.monitoring.alerts.types import Indicator, Severity, Slo, SloSpec

CHAT = Slo(
    id="slo_1",
    rev=3,
    project_id="prj_1",
    name="chat",
    objective="99.9",
    alias="chat",
    team="ops",
    runbook="https://example.org/chat",
    created_at_us=1,
)


def test_an_objective_comes_with_four_rules_of_two_windows_each() -> None:
    rules = list_burn_rules(CHAT)

    assert [rule.name for rule in rules] == [
        f"chat-burn-{long}" for long in ("1h", "6h", "1d", "3d")
    ]
    assert [rule.severity for rule in rules] == [Severity.CRITICAL] * 2 + [Severity.WARNING] * 2
    assert [rule.labels["urgency"] for rule in rules] == ["page", "page", "ticket", "ticket"]
    assert rules[0].condition == (
        'burn_rate{slo="chat"}[1h] > 14.4 and burn_rate{slo="chat"}[5m] > 14.4'
        ' and bad_events{slo="chat"}[1h] >= 10 and total_events{slo="chat"}[1h] >= 100'
    )
    assert len({rule.id for rule in rules}) == 4
    assert {(rule.rev, rule.project_id, rule.team) for rule in rules} == {(3, "prj_1", "ops")}
    assert WINDOWS == ("5m", "1h", "30m", "6h", "2h", "1d", "3d")


@pytest.mark.parametrize(
    ("objective", "count"), [("99.99", 4), ("95", 4), ("90", 3), ("80", 2), ("50", 1)]
)
def test_a_rule_that_not_even_bad_calls_alone_could_fire_is_left_out(
    objective: str, count: int
) -> None:
    rules = list_burn_rules(replace(CHAT, objective=objective))

    assert len(rules) == count
    assert rules[-1].name == "chat-burn-3d"


def test_a_disabled_objective_has_disabled_rules() -> None:
    assert not any(rule.is_enabled for rule in list_burn_rules(replace(CHAT, is_enabled=False)))


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.decimals("0.0001", "99.9999", places=4))
def test_the_budget_is_used_up_where_all_of_a_span_burns_at_one(
    bad: int, good: int, objective: Decimal
) -> None:
    slo = replace(CHAT, objective=str(objective))
    rate = burn_rate(bad, bad + good, slo.budget)

    assert rate is not None
    assert rate * float(slo.budget) * (bad + good) == pytest.approx(bad)
    assert burn_rate(0, 0, slo.budget) is None


GOOD = SloSpec(objective="99.9")
WRONG = {
    "alias": replace(GOOD, alias="no name"),
    "team": replace(GOOD, team="The Team"),
    "threshold": replace(GOOD, indicator=Indicator.LATENCY),
    "min_bad": replace(GOOD, min_bad=200),
}


@pytest.mark.parametrize("param", WRONG)
def test_what_an_objective_cannot_be_is_refused_by_name(param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_slo("chat", WRONG[param])

    assert refused.value.param == param


@pytest.mark.parametrize(
    "objective", ["", "0", "100", "-1", "99.12345", "1e1", "NaN", "ninety", "9" * 11, "٩٩", "."]
)
def test_what_is_no_percentage_is_no_objective(objective: str) -> None:
    with pytest.raises(PilotageError, match="is no objective"):
        check_slo("chat", replace(GOOD, objective=objective))


def test_an_objective_on_latency_has_a_threshold_and_one_on_errors_has_none() -> None:
    check_slo("chat", replace(GOOD, alias="team/chat", team="ops"))
    check_slo("chat", replace(GOOD, indicator=Indicator.TTFT, threshold_us=5))
    with pytest.raises(PilotageError, match="has none"):
        check_slo("chat", replace(GOOD, threshold_us=5))
    with pytest.raises(PilotageError, match="is not a name"):
        check_slo("No Name", GOOD)
