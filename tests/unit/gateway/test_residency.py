"""Nothing outside the regions of alias and tenant is ever in a plan, a fallback or a copy."""

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_calls import PROJECT, make_alias, make_arm
from pilotage.core.data_classes import DATA_CLASSES, may_answer
from pilotage.core.regions import LOCAL, is_within
from pilotage.core.snapshot import ArmEntry, RouteRule, Routing, Shadow, TenantEntry
from pilotage.gateway.routing.choice import CHEAPEST, FASTEST, WEIGHTED, Choice
from pilotage.gateway.routing.residency import NOBODY, Allowed, allow_arms, locate
from pilotage.gateway.routing.speeds import Speeds

PLACES = ["eu", "eu-west1", "eu-west1-b", "europe", "us", "us-east1", LOCAL, ""]
REGIONS = st.lists(st.sampled_from(["eu", "eu-west1", "us", LOCAL, "!local", "!eu-west1"]))


def make_tenant(*regions: str, data_class: str = "internal") -> TenantEntry:
    return TenantEntry(
        id="ten_1",
        name="acme",
        project_id=PROJECT,
        regions=list(regions),
        data_class=data_class,
    )


@pytest.mark.parametrize(
    ("regions", "allowed"),
    [
        ([], {"eu", "eu-west1", "eu-west1-b", "europe", "us", "us-east1", LOCAL, ""}),
        (["eu"], {"eu", "eu-west1", "eu-west1-b"}),
        (["eu-west1"], {"eu-west1", "eu-west1-b"}),
        (["eu", LOCAL], {"eu", "eu-west1", "eu-west1-b", LOCAL}),
        (["eu", "!eu-west1"], {"eu"}),
        (["!eu-west1", "eu"], {"eu"}),
        (["us", "eu"], {"us", "us-east1", "eu", "eu-west1", "eu-west1-b"}),
        ([LOCAL, "!local"], set()),
        (["!local"], set()),
        ([""], set()),
        (["!"], set()),
    ],
)
def test_a_list_allows_what_it_names_and_what_is_below(
    regions: list[str], allowed: set[str]
) -> None:
    assert {place for place in PLACES if is_within(place, regions)} == allowed


def test_own_replicas_are_local_and_an_upstream_is_where_somebody_said() -> None:
    assert locate(make_arm()) == LOCAL
    assert locate(make_arm(upstream_id="upm_1")) == ""
    assert locate(make_arm(upstream_id="upm_1", location="eu")) == "eu"
    assert locate(make_arm(location="eu")) == "eu"


@pytest.mark.parametrize(
    "forge",
    [
        lambda arms: Allowed(arms, object()),  # type: ignore[arg-type]
        lambda arms: Allowed(arms),  # type: ignore[call-arg]  # noqa: PLW0108 - for the type checker
        copy.copy,
        pickle.dumps,
    ],
)
def test_nobody_else_makes_one(forge: Callable[[object], object]) -> None:
    alias = make_alias(make_arm())
    with pytest.raises(TypeError):
        forge(allow_arms(alias.entry, make_tenant()))


def test_one_can_only_be_made_smaller_or_put_in_order() -> None:
    arms = [make_arm(f"dep_{n}") for n in range(3)]
    allowed = allow_arms(make_alias(*arms).entry, make_tenant())
    assert list(allowed) == arms
    assert list(allowed.only(["dep_2", "dep_9", "dep_0", "dep_2"])) == [arms[2], arms[0]]
    assert allowed.only(["dep_1"]).only(["dep_0"]) == NOBODY


@st.composite
def arms(draw: st.DrawFn) -> list[ArmEntry]:
    count = draw(st.integers(1, 5))
    return [
        make_arm(
            f"dep_{n}",
            weight=draw(st.sampled_from([0, 1, 5000, 10_000])),
            upstream_id=draw(st.sampled_from(["", "upm_1"])),
            location=draw(st.sampled_from(PLACES)),
            accepts=draw(st.sampled_from(["", *DATA_CLASSES])),
        )
        for n in range(count)
    ]


ARM_IDS = st.lists(st.sampled_from([f"dep_{n}" for n in range(6)]), max_size=4)


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    return Routing(
        policy=draw(st.sampled_from([WEIGHTED, CHEAPEST, FASTEST])),
        rules=[
            RouteRule(arms=draw(ARM_IDS), purposes=draw(st.sampled_from([[], ["audit"]])))
            for _ in range(draw(st.integers(0, 2)))
        ],
        fallbacks=draw(ARM_IDS),
        shadow=Shadow(arm=draw(st.sampled_from(["dep_0", "dep_3", "dep_5"])), share=10_000),
    )


@given(
    arms(),
    routings(),
    REGIONS,
    st.builds(make_tenant, st.sampled_from(PLACES), data_class=st.sampled_from([*DATA_CLASSES]))
    | REGIONS.map(lambda regions: make_tenant(*regions)),
    st.sampled_from(["", "audit"]),
    st.text(max_size=4),
)
def test_no_plan_fallback_or_copy_leaves_the_regions_or_what_its_data_may_see(
    given_arms: list[ArmEntry],
    routing: Routing,
    of_alias: list[str],
    tenant: TenantEntry,
    purpose: str,
    unit: str,
) -> None:
    alias = make_alias(*given_arms, routing=routing, regions=of_alias)
    choice = alias.find_routes(tenant).find_choice(tenant, purpose, 10)
    used = [arm for plan in list_plans(choice, unit) for arm in plan] + list(choice.shadow)
    for arm in used:
        assert is_within(locate(arm), of_alias)
        assert is_within(locate(arm), tenant.regions)
        assert may_answer(tenant.data_class, (arm.accepts or "internal") if arm.upstream_id else "")
    for arm in choice.shadow:
        is_inside = not arm.upstream_id or arm.accepts == "restricted"
        assert is_inside or tenant.data_class in ("public", "internal")
    matching = [rule for rule in routing.rules if not rule.purposes or purpose in rule.purposes]
    if matching:
        assert {arm.id for arm in used} <= set(matching[0].arms)


def list_plans(choice: Choice, unit: str) -> list[Allowed]:
    """Return every plan that a call can get, and those that the policies choose."""
    plans = list(choice.plans.values())
    if choice.only_plan is not None:
        plans.append(choice.only_plan)
    if choice.candidates:
        plans.append(choice.plans[choice.pick_weighted("salt", unit).id])
        plans.append(choice.plans[choice.pick_cheapest(10, 10).id])
        fastest = Speeds().pick(choice.candidates, 0.0, is_stream=True, explores=False)
        plans.append(choice.plans[fastest])
    return plans


@given(arms(), routings(), REGIONS)
def test_a_plan_names_each_arm_once_and_begins_with_the_chosen(
    given_arms: list[ArmEntry], routing: Routing, regions: list[str]
) -> None:
    alias = make_alias(*given_arms, routing=routing, regions=regions)
    choice = alias.find_routes(make_tenant()).plain
    for arm_id, plan in choice.plans.items():
        ids = [arm.id for arm in plan]
        assert ids[0] == arm_id
        assert len(ids) == len(set(ids))
        rest = [arm.id for arm in choice.allowed.only(routing.fallbacks) if arm.id != arm_id]
        assert ids[1:] == rest


def test_routing_is_worked_out_once_for_tenants_with_the_same_regions() -> None:
    alias = make_alias(make_arm())
    first = alias.find_routes(make_tenant("eu"))
    assert alias.find_routes(make_tenant("eu")) is first
    assert alias.find_routes(make_tenant("us")) is not first
