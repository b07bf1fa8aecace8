"""Routing as somebody writes it: what it means, and what cannot be."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.money import MAX_CAP_NANO
from pilotage.core.snapshot import FULL_WEIGHT, RouteRule, Routing, Shadow
from pilotage.endpoints.routing import (
    RoutingSpec,
    RuleSpec,
    ShadowSpec,
    compile_routing,
    drop_deployment,
    list_named,
)
from pilotage.endpoints.types import Deployment, Endpoint

ENDPOINT = Endpoint(
    id="end_1",
    rev=1,
    project_id="prj_1",
    name="chat",
    description="",
    max_output_tokens=0,
    salt="s",
    split={"dep_1": FULL_WEIGHT},
    created_at_us=0,
    deleted_at_us=None,
)


def make_deployment(number: int, upstream: str = "", model: str = "") -> Deployment:
    return Deployment(
        id=f"dep_{number}",
        rev=1,
        project_id="prj_1",
        endpoint_id="end_1",
        version_id="" if upstream else f"ver_{number}",
        model=f"{upstream}/{model}" if upstream else f"tiny@{number}.0.0",
        artifact_sha256="",
        engine="",
        context_tokens=0,
        created_at_us=0,
        deleted_at_us=None,
        upstream_id=upstream and f"ups_{upstream}",
        upstream_model=model,
    )


DEPLOYMENTS = [
    make_deployment(1),
    make_deployment(2),
    make_deployment(3, "openai", "gpt-4o-mini"),
    make_deployment(4, "azure", "gpt-4o-mini"),
    make_deployment(5, "lost", "o3"),
]
LOCATIONS = {"dep_1": "local", "dep_2": "local", "dep_3": "us", "dep_4": "eu-west", "dep_5": ""}


def compile_spec(**fields: Any) -> tuple[Routing, tuple[str, ...]]:  # noqa: ANN401 - any field
    return compile_routing(RoutingSpec(**fields), ENDPOINT, DEPLOYMENTS, LOCATIONS)


def shadow(deployment: str = "2.0.0", **other: Any) -> ShadowSpec:  # noqa: ANN401 - any field
    values = {"percent": Decimal(10), "daily_usd": Decimal("0.5")} | other
    return ShadowSpec(deployment=deployment, **values)


def test_nothing_said_is_what_a_new_endpoint_has() -> None:
    assert compile_spec() == (Routing(), ())


def test_deployments_are_named_as_in_a_split() -> None:
    routing, regions = compile_spec(
        policy="cheapest",
        rules=[
            RuleSpec(deployments=["dep_1", "tiny@2.0.0"], tenants=["acme"], max_input=9),
            RuleSpec(deployments=["openai/gpt-4o-mini"]),
        ],
        fallbacks=["azure/gpt-4o-mini", "1.0.0"],
        retries=0,
        first_byte_timeout_ms=20_000,
        shadow=shadow("o3", percent=Decimal("2.5"), concurrency=9),
    )

    assert regions == ()
    assert routing == Routing(
        policy="cheapest",
        rules=[
            RouteRule(arms=["dep_1", "dep_2"], tenants=["acme"], max_input=9),
            RouteRule(arms=["dep_3"]),
        ],
        fallbacks=["dep_4", "dep_1"],
        retries=0,
        first_byte_timeout_ms=20_000,
        shadow=Shadow(arm="dep_5", share=250, concurrency=9, daily_nano=500_000_000),
    )
    assert list_named(routing) == ["dep_1", "dep_2", "dep_3", "dep_4", "dep_5"]


@pytest.mark.parametrize(
    ("fields", "param", "problem"),
    [
        ({"policy": "best"}, "policy", "'best' is no policy"),
        ({"retries": -1}, "retries", "-1 is out of range"),
        ({"retries": 6}, "retries", "6 is out of range"),
        ({"first_byte_timeout_ms": 1}, "first_byte_timeout_ms", "1 is out of range"),
        ({"fallbacks": ["nope"]}, "fallbacks", "'nope' is no deployment"),
        ({"fallbacks": ["gpt-4o-mini"]}, "fallbacks", "more than one deployment"),
        ({"fallbacks": ["1.0.0", "1.0.0"]}, "fallbacks", "named twice"),
        ({"fallbacks": ["1.0.0", "dep_1"]}, "fallbacks", "named twice"),
        ({"fallbacks": ["x"] * 101}, "fallbacks", "too many"),
        ({"rules": [RuleSpec(deployments=[])]}, "rules.0.deployments", "must name"),
        ({"rules": [RuleSpec(deployments=["nope"])]}, "rules.0.deployments", "no deployment"),
        (
            {"rules": [RuleSpec(deployments=["1.0.0"]), RuleSpec(deployments=["2.0.0"])]},
            "rules.0",
            "without a condition",
        ),
        (
            {"rules": [RuleSpec(deployments=["1.0.0"], data_classes=["secret"])]},
            "rules.0.data_classes",
            "'secret' is no data class",
        ),
        (
            {"rules": [RuleSpec(deployments=["1.0.0"], purposes=[" "])]},
            "rules.0.purposes",
            "empty or too long",
        ),
        (
            {"rules": [RuleSpec(deployments=["1.0.0"], min_input=10, max_input=9)]},
            "rules.0.max_input",
            "No prompt has",
        ),
        (
            {"rules": [RuleSpec(deployments=["1.0.0"], min_input=-1)]},
            "rules.0.min_input",
            "out of range",
        ),
        ({"rules": [RuleSpec(deployments=["1.0.0"])] * 101}, "rules", "too many"),
        ({"shadow": shadow("1.0.0")}, "shadow.deployment", "its own shadow"),
        (
            {"shadow": shadow("2.0.0"), "fallbacks": ["2.0.0"]},
            "shadow.deployment",
            "its own shadow",
        ),
        (
            {"shadow": shadow(), "rules": [RuleSpec(deployments=["2.0.0"])]},
            "shadow.deployment",
            "its own shadow",
        ),
        ({"shadow": shadow(percent=Decimal(0))}, "shadow.percent", "sees nothing"),
        ({"shadow": shadow(percent=Decimal(101))}, "shadow.percent", "no share"),
        ({"shadow": shadow(concurrency=0)}, "shadow.concurrency", "out of range"),
        ({"shadow": shadow(daily_usd=Decimal(-1))}, "shadow.daily_usd", "no daily amount"),
        ({"shadow": shadow(daily_usd=Decimal("1e30"))}, "shadow.daily_usd", "no daily amount"),
        ({"regions": ["EU"]}, "regions", "'EU' is no region"),
        ({"regions": ["eu"], "fallbacks": ["dep_3"]}, "regions", "runs in us, outside"),
        ({"regions": ["eu"], "fallbacks": ["o3"]}, "regions", "nobody said where"),
        ({"regions": ["eu", "!local"]}, "regions", "tiny@1.0.0 runs in local, outside"),
        ({"regions": ["eu"], "shadow": shadow("dep_3")}, "regions", "runs in us, outside"),
        (
            {"regions": ["us"], "rules": [RuleSpec(deployments=["dep_4"])]},
            "regions",
            "runs in eu-west, outside",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place_and_the_fix(
    fields: dict[str, Any], param: str, problem: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        compile_spec(**fields)

    assert refused.value.code == "invalid_request"
    assert refused.value.param == param
    assert problem in refused.value.detail
    assert refused.value.hint


def test_a_deployment_within_the_regions_may_be_named() -> None:
    routing, regions = compile_spec(regions=["eu", "eu"], fallbacks=["dep_4"])

    assert (routing.fallbacks, regions) == (["dep_4"], ("eu",))


def test_the_largest_cap_is_one() -> None:
    routing, _ = compile_spec(shadow=shadow(daily_usd=Decimal(9_000_000)))

    assert routing.shadow is not None
    assert routing.shadow.daily_nano == MAX_CAP_NANO


@given(
    fallbacks=st.lists(st.sampled_from(["dep_1", "dep_2", "dep_3"]), unique=True),
    arms=st.lists(
        st.lists(st.sampled_from(["dep_1", "dep_2", "dep_3"]), min_size=1, unique=True), max_size=4
    ),
)
def test_a_dropped_deployment_is_named_nowhere_and_no_rule_loses_all(
    fallbacks: list[str], arms: list[list[str]]
) -> None:
    rules = [RouteRule(arms=item, max_input=number) for number, item in enumerate(arms)]
    routing = Routing(rules=rules, fallbacks=fallbacks, shadow=Shadow(arm="dep_2", share=1))
    if ["dep_2"] in arms:
        with pytest.raises(PilotageError, match=r"to tiny@2\.0\.0 alone"):
            drop_deployment(routing, DEPLOYMENTS[1])
        return
    left = drop_deployment(routing, DEPLOYMENTS[1])

    assert "dep_2" not in list_named(left)
    assert left.shadow is None
    assert left.fallbacks == [arm for arm in fallbacks if arm != "dep_2"]
    assert all(rule.arms for rule in left.rules)
    assert [rule.max_input for rule in left.rules] == [rule.max_input for rule in rules]


def test_a_shadow_stays_when_another_deployment_goes() -> None:
    routing = Routing(fallbacks=["dep_3"], shadow=Shadow(arm="dep_2", share=1))

    assert drop_deployment(routing, DEPLOYMENTS[2]) == Routing(shadow=Shadow(arm="dep_2", share=1))
