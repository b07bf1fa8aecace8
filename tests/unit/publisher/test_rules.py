"""What is published: a directory that depends on nothing but the truth, and keys that count."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.ids import make_id, uuid_bytes
from pilotage.core.snapshot import (
    FULL_WEIGHT,
    MAY_NAME_USERS,
    SNAPSHOT_VERSION,
    LimitEntry,
    RouteRule,
    Routing,
    Shadow,
    TenantEntry,
    UpstreamEntry,
    encode_directory,
)
from pilotage.core.usage import Rates
from pilotage.endpoints.types import Deployment, Endpoint, Provider, Scaling, Upstream
from pilotage.identity.types import ApiKey, DataClass, Tenant
from pilotage.publisher.rules import (
    MERGE_AT,
    UPSTREAM_CONTEXT_TOKENS,
    UPSTREAM_OUTPUT_TOKENS,
    Compiled,
    Truth,
    compile_directory,
    find_oldest_reader,
    is_merge_due,
    list_revoked,
    make_records,
)
from pilotage.publisher.types import Unpublished

CONTEXT = 2048
RATES = Rates(price_id="prc_1", input=1, output=2, cache_read=1, cache_write=1, reasoning=2)


def make_endpoint(number: int, split: dict[str, int], max_output_tokens: int = 0) -> Endpoint:
    return Endpoint(
        id=f"end_{number}",
        rev=1,
        project_id=f"prj_{number % 2}",
        name=f"chat-{number}",
        description="",
        max_output_tokens=max_output_tokens,
        salt=f"salt_{number}",
        split=split,
        created_at_us=number,
        deleted_at_us=None,
    )


def make_deployment(number: int, endpoint: int, context_tokens: int = 0) -> Deployment:
    return Deployment(
        id=f"dep_{number}",
        rev=1,
        project_id=f"prj_{endpoint % 2}",
        endpoint_id=f"end_{endpoint}",
        version_id=f"ver_{number}",
        model=f"tiny@{number}.0.0",
        artifact_sha256="",
        engine="llamacpp",
        context_tokens=context_tokens,
        created_at_us=0,
        deleted_at_us=None,
    )


TENANTS = [
    Tenant(
        id=f"ten_{n}", rev=1, project_id="prj_1", name=f"t{n}", created_at_us=0, deleted_at_us=None
    )
    for n in range(4)
]
ENDPOINTS = [make_endpoint(n, {f"dep_{n}": FULL_WEIGHT}) for n in range(5)]
DEPLOYMENTS = [make_deployment(n, n) for n in range(5)] + [make_deployment(9, 0)]
PRICED = {f"dep_{n}": RATES for n in (0, 1, 2, 4, 9)}
TRUTH = Truth(
    tenants=TENANTS,
    endpoints=ENDPOINTS,
    deployments=DEPLOYMENTS,
    rates=PRICED,
    context_tokens=CONTEXT,
)


def compile_truth(**other: Any) -> Compiled:  # noqa: ANN401 - any field of the truth
    return compile_directory(replace(TRUTH, **other))


@given(st.permutations(TENANTS), st.permutations(ENDPOINTS), st.permutations(DEPLOYMENTS))
def test_the_directory_does_not_depend_on_the_order_of_rows(
    tenants: list[Tenant], endpoints: list[Endpoint], deployments: list[Deployment]
) -> None:
    straight = compile_truth()
    turned = compile_truth(
        tenants=tenants,
        endpoints=endpoints,
        deployments=deployments,
        rates=dict(reversed(PRICED.items())),
    )

    assert encode_directory(turned.directory) == encode_directory(straight.directory)
    assert turned[1:] == straight[1:]


def test_what_has_no_price_is_left_out_with_the_reason() -> None:
    compiled = compile_truth()

    assert [alias.name for alias in compiled.directory.aliases] == [
        "chat-0",
        "chat-2",
        "chat-4",
        "chat-1",
    ]
    assert compiled.unpublished == [
        Unpublished(project_id="prj_1", name="chat-3", reason="no price for tiny@3.0.0")
    ]


def test_what_has_no_traffic_to_give_is_left_out() -> None:
    compiled = compile_truth(endpoints=[make_endpoint(0, {})])

    assert compiled.directory.aliases == []
    assert [item.reason for item in compiled.unpublished] == ["no deployment takes traffic"]


def test_only_a_deployment_that_takes_traffic_needs_a_price() -> None:
    endpoint = make_endpoint(0, {"dep_0": FULL_WEIGHT})
    (alias,) = compile_truth(endpoints=[endpoint], rates={"dep_0": RATES}).directory.aliases

    assert [(arm.id, arm.weight) for arm in alias.arms] == [("dep_0", FULL_WEIGHT)]


def test_a_priced_deployment_without_traffic_is_an_arm_without_weight() -> None:
    endpoint = make_endpoint(0, {"dep_0": FULL_WEIGHT})
    (alias,) = compile_truth(endpoints=[endpoint]).directory.aliases

    assert [(arm.id, arm.weight) for arm in alias.arms] == [("dep_0", FULL_WEIGHT), ("dep_9", 0)]
    assert [arm.rates for arm in alias.arms] == [RATES, RATES]


@pytest.mark.parametrize(
    ("limit", "contexts", "expected"),
    [
        (0, (0, 0), 2048),
        (0, (512, 1024), 1024),
        (100, (512, 1024), 100),
        (4096, (512, 8192), 2048),
    ],
)
def test_an_answer_is_limited_by_the_endpoint_and_by_the_widest_context(
    limit: int, contexts: tuple[int, int], expected: int
) -> None:
    endpoint = make_endpoint(0, {"dep_0": 1, "dep_9": FULL_WEIGHT - 1}, limit)
    own = [make_deployment(0, 0, contexts[0]), make_deployment(9, 0, contexts[1])]
    (alias,) = compile_truth(endpoints=[endpoint], deployments=own).directory.aliases

    assert alias.max_output_tokens == expected
    assert [arm.context_tokens for arm in alias.arms] == [
        min(c or CONTEXT, CONTEXT) for c in contexts
    ]


UPSTREAMS = [
    Upstream(
        id=f"ups_{name}",
        rev=1,
        project_id="prj_0",
        name=name,
        provider=Provider.OPENAI,
        base_url=f"https://{name}.example/v1",
        secret=f"env:{name.upper()}",
        location=location,
        created_at_us=0,
    )
    for name, location in (("east", "us-east"), ("west", "eu-west"), ("lost", ""))
]


def make_upstream_deployment(
    number: int, upstream: str, model: str, context_tokens: int = 0
) -> Deployment:
    return replace(
        make_deployment(number, 0, context_tokens),
        version_id="",
        model=f"{upstream}/{model}",
        engine="",
        upstream_id=f"ups_{upstream}",
        upstream_model=model,
    )


HYBRID = [
    make_deployment(0, 0),
    make_upstream_deployment(1, "east", "gpt-4o"),
    make_upstream_deployment(2, "west", "gpt-4o"),
    make_upstream_deployment(3, "lost", "o3"),
]
ALL_PRICED = {item.id: RATES for item in HYBRID}


def compile_hybrid(endpoint: Endpoint, **other: Any) -> Compiled:  # noqa: ANN401 - any field
    values = {
        "endpoints": [endpoint],
        "deployments": HYBRID,
        "upstreams": UPSTREAMS,
        "rates": ALL_PRICED,
    }
    return compile_truth(**values | other)


def test_an_arm_says_which_upstream_answers_and_where() -> None:
    directory = compile_hybrid(make_endpoint(0, {"dep_0": 6000, "dep_1": 4000})).directory
    (alias,) = directory.aliases

    assert [
        (arm.id, arm.weight, arm.model, arm.upstream_id, arm.upstream_model, arm.location)
        for arm in alias.arms
    ] == [
        ("dep_0", 6000, "tiny@0.0.0", "", "", "local"),
        ("dep_1", 4000, "east/gpt-4o", "ups_east", "gpt-4o", "us-east"),
        ("dep_2", 0, "west/gpt-4o", "ups_west", "gpt-4o", "eu-west"),
        ("dep_3", 0, "lost/o3", "ups_lost", "o3", ""),
    ]
    assert [arm.context_tokens for arm in alias.arms] == [CONTEXT, *[UPSTREAM_CONTEXT_TOKENS] * 3]
    assert directory.upstreams[0] == UpstreamEntry(
        id="ups_east",
        project_id="prj_0",
        name="east",
        provider="openai",
        base_url="https://east.example/v1",
        secret="env:EAST",
        location="us-east",
    )


def test_only_upstreams_that_an_arm_names_are_published() -> None:
    endpoint = make_endpoint(0, {"dep_1": FULL_WEIGHT})
    compiled = compile_hybrid(endpoint, rates={"dep_1": RATES})

    assert [item.id for item in compiled.directory.upstreams] == ["ups_east"]
    assert compile_truth(upstreams=UPSTREAMS).directory.upstreams == []


@pytest.mark.parametrize(
    ("limit", "context", "expected"),
    [
        (0, 0, UPSTREAM_OUTPUT_TOKENS),
        (0, 1000, 1000),
        (9000, 0, 9000),
        (10**6, 0, UPSTREAM_CONTEXT_TOKENS),
        (10**6, 64_000, 64_000),
    ],
)
def test_an_upstream_answers_no_longer_than_most_can_unless_told(
    limit: int, context: int, expected: int
) -> None:
    own = make_upstream_deployment(1, "east", "gpt-4o", context)
    endpoint = make_endpoint(0, {"dep_1": FULL_WEIGHT}, limit)
    (alias,) = compile_hybrid(endpoint, deployments=[own]).directory.aliases

    assert alias.max_output_tokens == expected


ROUTING = Routing(
    policy="cheapest",
    rules=[RouteRule(arms=["dep_0"], tenants=["acme", "gone"], max_input=9)],
    fallbacks=["dep_2", "dep_1"],
    retries=0,
    first_byte_timeout_ms=20_000,
    shadow=Shadow(arm="dep_3", share=100, daily_nano=5),
)


def test_routing_is_published_with_tenants_by_id() -> None:
    acme, stranger = (
        replace(TENANTS[0], id=f"ten_{project}", project_id=project, name="acme")
        for project in ("prj_0", "prj_1")
    )
    endpoint = replace(make_endpoint(0, {"dep_0": FULL_WEIGHT}), routing=ROUTING)
    (alias,) = compile_hybrid(endpoint, tenants=[acme, stranger]).directory.aliases

    rule = RouteRule(arms=["dep_0"], tenants=["ten_prj_0", "gone"], max_input=9)
    assert alias.routing == msgspec.structs.replace(ROUTING, rules=[rule])


def test_a_spare_deployment_that_cannot_be_used_is_left_out_alone() -> None:
    endpoint = replace(make_endpoint(0, {"dep_0": FULL_WEIGHT}), routing=ROUTING, regions=("eu",))
    compiled = compile_hybrid(endpoint, rates={"dep_0": RATES, "dep_1": RATES, "dep_3": RATES})
    (alias,) = compiled.directory.aliases

    assert compiled.unpublished == []
    assert [arm.id for arm in alias.arms] == ["dep_0"]
    assert (alias.routing.fallbacks, alias.routing.shadow) == ([], None)
    assert alias.regions == ["eu", "local"]
    assert [(item.endpoint, item.deployment, item.reason) for item in compiled.left_out] == [
        (
            "chat-0",
            "east/gpt-4o",
            "east/gpt-4o runs in us-east, outside the regions eu",
        ),
        ("chat-0", "west/gpt-4o", "no price for gpt-4o"),
        ("chat-0", "lost/o3", "nobody said where lost/o3 runs: it may be outside the regions eu"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": {"dep_1": 1, "dep_2": 9999}, "regions": ("eu",)}, "runs in us-east"),
        ({"split": {"dep_0": FULL_WEIGHT}, "regions": ("eu", "!local")}, "runs in local"),
        (
            {"routing": Routing(rules=[RouteRule(arms=["dep_0", "dep_1"])]), "regions": ("eu",)},
            "runs in us-east",
        ),
        ({"split": {"dep_4": FULL_WEIGHT}}, "the upstream of gone/o3 is gone"),
    ],
)
def test_a_deployment_that_is_relied_on_keeps_the_endpoint_from_being_published(
    change: dict[str, Any], reason: str
) -> None:
    endpoint = replace(make_endpoint(0, {"dep_0": FULL_WEIGHT}), **change)
    own = [*HYBRID, make_upstream_deployment(4, "gone", "o3")]
    compiled = compile_hybrid(endpoint, deployments=own, rates={**ALL_PRICED, "dep_4": RATES})

    assert compiled.directory.aliases == []
    assert compiled.left_out == []
    (item,) = compiled.unpublished
    assert reason in item.reason


def test_missing_prices_come_first_and_by_the_provider_s_name() -> None:
    endpoint = replace(
        make_endpoint(0, {"dep_1": 5000, "dep_0": 3000, "dep_3": 2000}), regions=("us",)
    )
    (item,) = compile_hybrid(endpoint, rates={}).unpublished

    assert item.reason == (
        "no price for gpt-4o, tiny@0.0.0; "
        "nobody said where lost/o3 runs: it may be outside the regions us"
    )


def test_a_tenant_is_published_with_its_settings() -> None:
    tenant = replace(
        TENANTS[0],
        time_zone="Asia/Tokyo",
        regions=("eu", "!local"),
        features=("search",),
        data_class=DataClass.RESTRICTED,
        shows=False,
        log_share=25,
    )
    (entry,) = compile_truth(tenants=[tenant], endpoints=[]).directory.tenants

    assert entry == TenantEntry(
        id="ten_0",
        name="t0",
        project_id="prj_1",
        time_zone="Asia/Tokyo",
        regions=["!local", "eu"],
        features=["search"],
        data_class="restricted",
        shows=False,
        log_share=25,
    )


def test_a_rollout_s_step_is_the_salt_of_its_coin_and_needs_a_gateway_that_knows_it() -> None:
    plain = compile_directory(TRUTH).directory
    assert {alias.salt for alias in plain.aliases} <= {f"salt_{n}" for n in range(5)}
    assert (find_oldest_reader(plain), SNAPSHOT_VERSION) == (3, 4)
    moving = replace(ENDPOINTS[1], rollout="rol_1/2", unit="session")
    endpoints = [moving if item.id == moving.id else item for item in ENDPOINTS]
    directory = compile_directory(replace(TRUTH, endpoints=endpoints)).directory
    (alias,) = (item for item in directory.aliases if item.rollout)
    assert (alias.name, alias.rollout, alias.unit) == ("chat-1", "rol_1/2", "session")
    assert alias.salt == "rol_1/2"
    assert find_oldest_reader(directory) == SNAPSHOT_VERSION


def test_an_arm_says_whether_it_can_wake_and_which_adapter_its_calls_get() -> None:
    sleeper = replace(DEPLOYMENTS[1], scaling=Scaling(min_replicas=0), adapter_sha256="sha_a")
    deployments = [sleeper if item.id == sleeper.id else item for item in DEPLOYMENTS]
    directory = compile_directory(replace(TRUTH, deployments=deployments)).directory
    arms = {arm.id: (arm.can_wake, arm.adapter) for one in directory.aliases for arm in one.arms}
    assert arms.pop("dep_1") == (True, "sha_a")
    assert set(arms.values()) == {(False, "")}
    assert find_oldest_reader(directory) == SNAPSHOT_VERSION


def test_a_command_is_asked_by_the_name_that_it_serves_a_model_by() -> None:
    ours = replace(DEPLOYMENTS[1], engine="big")
    deployments = [ours if item.id == ours.id else item for item in DEPLOYMENTS]
    directory = compile_directory(replace(TRUTH, deployments=deployments)).directory
    for alias in directory.aliases:
        for arm in alias.arms:
            assert arm.upstream_model == (alias.name if arm.id == ours.id else "")


def test_limits_are_published_in_order() -> None:
    limits = [
        LimitEntry(id=f"lim_{n}", project_id="prj_0", measure="requests", amount=n, per="minute")
        for n in (2, 1)
    ]

    assert compile_truth(limits=limits).directory.limits == limits[::-1]


def make_key(number: int, expires: int | None = None, revoked: int | None = None) -> ApiKey:
    return ApiKey(
        id=make_id("key", number, bytes(10)),
        rev=1,
        project_id="prj_1",
        tenant_id=make_id("ten", 1, bytes(10)),
        name="ci",
        digest=number.to_bytes(32, "big"),
        hint="abcd",
        created_at_us=0,
        expires_at_us=expires,
        revoked_at_us=revoked,
    )


def test_records_are_of_the_keys_that_work() -> None:
    keys = [make_key(1), make_key(2, expires=11), make_key(3, expires=10), make_key(4, None, 5)]
    records = make_records(keys, 10)

    assert [record.digest for record in records] == [keys[0].digest, keys[1].digest]
    assert [record.expires_at_us for record in records] == [0, 11]
    assert records[0].key_uuid == uuid_bytes(keys[0].id)
    assert records[0].tenant_uuid == uuid_bytes(keys[0].tenant_id)
    assert list_revoked(keys) == [keys[3].digest]


def test_a_trusted_key_is_marked() -> None:
    records = make_records([make_key(1), replace(make_key(2), may_name_users=True)], 10)

    assert [record.flags for record in records] == [0, MAY_NAME_USERS]


def test_a_merge_is_due_with_a_thousand_changes_or_for_the_first_key() -> None:
    keys = [make_key(1)] * MERGE_AT

    assert is_merge_due(keys, 5)
    assert not is_merge_due(keys[1:], 5)
    assert is_merge_due(keys[:1], 0)
    assert not is_merge_due([], 0)
