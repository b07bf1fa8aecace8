"""What is published: a directory that depends on nothing but the truth, and keys that count."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.ids import make_id, uuid_bytes
from pilotage.core.snapshot import FULL_WEIGHT, encode_directory
from pilotage.core.usage import Rates
from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.identity.types import ApiKey, Tenant
from pilotage.publisher.rules import (
    MERGE_AT,
    Compiled,
    Truth,
    compile_directory,
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


def test_a_merge_is_due_with_a_thousand_changes_or_for_the_first_key() -> None:
    keys = [make_key(1)] * MERGE_AT

    assert is_merge_due(keys, 5)
    assert not is_merge_due(keys[1:], 5)
    assert is_merge_due(keys[:1], 0)
    assert not is_merge_due([], 0)
