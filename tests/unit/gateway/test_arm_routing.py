"""Rules restrict, policies choose, and the worst case covers every arm that can answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_harness import make_rates
from made_calls import PROJECT, make_alias, make_arm
from pilotage.core.snapshot import (
    FULL_WEIGHT,
    ArmEntry,
    RouteRule,
    Routing,
    TenantEntry,
    choose_arm,
)
from pilotage.core.usage import Rates, Tier, Usage, cost_nano
from pilotage.gateway.routing.choice import CHEAPEST, FASTEST, is_drawn, is_match, list_reachable
from pilotage.gateway.routing.residency import NOBODY
from pilotage.gateway.snapshots import AliasView

TENANT = TenantEntry(id="ten_1", name="acme", project_id=PROJECT, data_class="internal")
UNITS = [f"call_{n}" for n in range(4000)]
SIGMAS = 6


@st.composite
def splits(draw: st.DrawFn) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, FULL_WEIGHT), min_size=1, max_size=4)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, FULL_WEIGHT], strict=True)]


@given(splits(), st.text(max_size=5))
def test_weights_of_a_whole_assign_as_the_release_path_does(weights: list[int], salt: str) -> None:
    alias = make_alias(*(make_arm(f"dep_{n}", weight) for n, weight in enumerate(weights)))
    entry = alias.entry
    choice = alias.find_routes(TENANT).plain
    for unit in UNITS[:50]:
        assert choice.pick_weighted(entry.salt, unit) == choose_arm(entry, unit)


def test_what_regions_leave_shares_the_traffic_by_weight() -> None:
    arms = [
        make_arm("dep_a", 6000, upstream_id="upm_1", location="us"),
        make_arm("dep_b", 3000, upstream_id="upm_1", location="eu"),
        make_arm("dep_c", 1000, upstream_id="upm_1", location="eu"),
    ]
    choice = make_alias(*arms, regions=["eu"]).find_routes(TENANT).plain
    chosen = [choice.pick_weighted("salt", unit).id for unit in UNITS]
    spread = SIGMAS * (len(UNITS) * 0.75 * 0.25) ** 0.5
    assert abs(chosen.count("dep_b") - len(UNITS) * 0.75) < spread
    assert set(chosen) == {"dep_b", "dep_c"}


def test_one_candidate_is_planned_without_a_decision() -> None:
    alias = make_alias(
        make_arm("dep_a"), make_arm("dep_b", 0), routing=Routing(fallbacks=["dep_b"])
    )
    plan = alias.find_routes(TENANT).plain.only_plan
    assert plan is not None
    assert [arm.id for arm in plan] == ["dep_a", "dep_b"]


def test_an_alias_without_weight_takes_no_traffic_unless_a_rule_or_policy_says_who() -> None:
    idle = [make_arm("dep_a", 0), make_arm("dep_b", 0)]
    assert make_alias(*idle).find_routes(TENANT).plain.candidates == NOBODY
    for policy in (CHEAPEST, FASTEST):
        spread = make_alias(*idle, routing=Routing(policy=policy))
        assert list(spread.find_routes(TENANT).plain.candidates) == idle
    ruled = make_alias(
        make_arm("dep_c"), *idle, routing=Routing(rules=[RouteRule(arms=["dep_a", "dep_b"])])
    )
    choice = ruled.find_routes(TENANT).find_choice(TENANT, "", 1)
    chosen = {choice.pick_weighted("salt", unit).id for unit in UNITS[:100]}
    assert chosen == {"dep_a", "dep_b"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (RouteRule(arms=[]), True),
        (RouteRule(arms=[], tenants=["ten_1", "ten_2"]), True),
        (RouteRule(arms=[], tenants=["ten_2"]), False),
        (RouteRule(arms=[], purposes=["audit"]), True),
        (RouteRule(arms=[], purposes=["chat"]), False),
        (RouteRule(arms=[], data_classes=["internal"]), True),
        (RouteRule(arms=[], data_classes=["public"]), False),
        (RouteRule(arms=[], min_input=100), True),
        (RouteRule(arms=[], min_input=101), False),
        (RouteRule(arms=[], max_input=100), True),
        (RouteRule(arms=[], max_input=99), False),
        (RouteRule(arms=[], tenants=["ten_1"], purposes=["chat"]), False),
        (RouteRule(arms=[], tenants=["ten_1"], min_input=5, max_input=500), True),
    ],
)
def test_a_rule_matches_what_is_everything_it_names(rule: RouteRule, expected: bool) -> None:
    assert is_match(rule, TENANT, "audit", 100) is expected


def test_the_first_rule_that_matches_counts_even_if_it_leaves_nobody() -> None:
    rules = [
        RouteRule(arms=["dep_gone"], purposes=["audit"]),
        RouteRule(arms=["dep_b"], max_input=50),
        RouteRule(arms=["dep_a"], max_input=500),
    ]
    alias = make_alias(
        make_arm("dep_a"), make_arm("dep_b", 0), routing=Routing(rules=rules, fallbacks=["dep_a"])
    )
    routes = alias.find_routes(TENANT)
    assert routes.find_choice(TENANT, "audit", 10).allowed == NOBODY
    small = routes.find_choice(TENANT, "", 10).only_plan
    assert small is not None
    assert [arm.id for arm in small] == ["dep_b"]  # the fallback is not among the rule's arms
    assert [arm.id for arm in routes.find_choice(TENANT, "", 60).allowed] == ["dep_a"]
    assert routes.find_choice(TENANT, "", 501) is routes.plain


@st.composite
def priced_arms(draw: st.DrawFn) -> list[ArmEntry]:
    rate = st.integers(0, 50).map(lambda cents: f"{cents / 10}")
    return [
        make_arm(
            f"dep_{n}",
            weight=draw(st.sampled_from([0, 100])),
            rates=make_rates(draw(rate), draw(rate)),
        )
        for n in range(draw(st.integers(1, 4)))
    ]


@given(priced_arms(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_cheapest_costs_no_more_than_any_other(
    arms: list[ArmEntry], input_bound: int, outputs: int
) -> None:
    choice = make_alias(*arms, routing=Routing(policy=CHEAPEST)).find_routes(TENANT).plain
    most = Usage(input=input_bound, output=outputs)
    chosen = choice.pick_cheapest(input_bound, outputs)
    candidates = [arm for arm in arms if arm.weight] or arms
    assert cost_nano(most, chosen.rates) == min(cost_nano(most, arm.rates) for arm in candidates)
    assert chosen in candidates


def test_long_prompts_are_compared_at_their_own_rates() -> None:
    tiered = Rates(
        price_id="pri_t", input=1000, output=0, cache_read=0, cache_write=0, reasoning=0,
        tiers=[Tier(over=100, input=9000, output=0, cache_read=0, cache_write=0, reasoning=0)],
    )  # fmt: skip
    flat = Rates(price_id="p", input=5000, output=0, cache_read=0, cache_write=0, reasoning=0)
    arms = [make_arm("dep_t", rates=tiered), make_arm("dep_f", rates=flat)]
    choice = make_alias(*arms, routing=Routing(policy=CHEAPEST)).find_routes(TENANT).plain
    assert choice.pick_cheapest(100_000, 0).id == "dep_f"
    assert choice.pick_cheapest(100, 0).id == "dep_t"


@given(priced_arms(), st.sampled_from(["weighted", CHEAPEST, FASTEST]), st.data())
def test_the_worst_case_covers_every_plan(
    arms: list[ArmEntry], policy: str, data: st.DataObject
) -> None:
    ids = st.lists(st.sampled_from([arm.id for arm in arms]), max_size=3)
    rules = [RouteRule(arms=data.draw(ids), max_input=50)]
    routing = Routing(policy=policy, fallbacks=data.draw(ids), rules=rules)
    alias = AliasView(make_alias(*arms, routing=routing).entry)
    reachable = list_reachable(alias.entry)
    for bound in (10, 100):
        choice = alias.find_routes(TENANT).find_choice(TENANT, "", bound)
        for plan in choice.plans.values():
            for arm in plan:
                assert arm in reachable
                most = Usage(input=bound, output=100)
                assert cost_nano(most, arm.rates) <= alias.worst_nano(bound, 100)


def test_a_share_is_drawn_and_drawn_again_alike() -> None:
    drawn = [unit for unit in UNITS if is_drawn("salt", unit, 2500, FULL_WEIGHT)]
    assert abs(len(drawn) - 1000) < SIGMAS * (len(UNITS) * 0.25 * 0.75) ** 0.5
    assert drawn == [unit for unit in UNITS if is_drawn("salt", unit, 2500, FULL_WEIGHT)]
    assert not any(is_drawn("salt", unit, 0, FULL_WEIGHT) for unit in UNITS)
    assert all(is_drawn("salt", unit, FULL_WEIGHT, FULL_WEIGHT) for unit in UNITS)
