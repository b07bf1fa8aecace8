"""Splits, desired replicas and the back-off of crashed ones."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.rules import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    compile_groups,
    compile_split,
    deployment_of,
    describe_state,
    find_problem,
    is_crash_loop,
    is_named,
    is_settled,
    match_deployment,
    next_pause_s,
    number_of,
)
from pilotage.endpoints.types import (
    Deployment,
    Endpoint,
    Load,
    ReplicaState,
    ReplicaStatus,
    Scaling,
)


def make_deployment(number: int, model: str = "", context_tokens: int = 2048) -> Deployment:
    return Deployment(
        id=f"dep_{number}",
        rev=1,
        project_id="prj_1",
        endpoint_id="end_1",
        version_id=f"ver_{number}",
        model=model or f"tiny@{number}.0.0",
        artifact_sha256=f"{number:064x}",
        engine="llamacpp",
        context_tokens=context_tokens,
        created_at_us=number,
        deleted_at_us=None,
    )


THREE = [make_deployment(1), make_deployment(2), make_deployment(3)]


@given(st.lists(st.integers(0, FULL_WEIGHT), min_size=2, max_size=2).map(sorted))
def test_a_split_is_its_percentages_in_basis_points(cuts: list[int]) -> None:
    low, high = cuts
    points = [low, high - low, FULL_WEIGHT - high]
    shares = {d.id: Decimal(p) / 100 for d, p in zip(THREE, points, strict=True)}
    split = compile_split(shares, THREE)

    assert split == {d.id: p for d, p in zip(THREE, points, strict=True) if p}
    assert sum(split.values()) == FULL_WEIGHT


@pytest.mark.parametrize("name", ["dep_2", "tiny@2.0.0", "2.0.0"])
def test_a_deployment_is_named_in_three_ways(name: str) -> None:
    assert compile_split({name: Decimal(100)}, THREE) == {"dep_2": FULL_WEIGHT}


@pytest.mark.parametrize(
    "percent",
    [
        *("-1", "-0.01", "100.01", "33.333", "50.0000000000000000000000000000000001"),
        *("1E+400000", "NaN", "sNaN", "Infinity"),
    ],
)
def test_what_is_no_share_is_refused(percent: str) -> None:
    with pytest.raises(PilotageError) as refused:
        compile_split({"dep_1": Decimal(percent), "dep_2": Decimal(50)}, THREE)

    assert refused.value.code == "invalid_request"
    assert "is no share" in refused.value.detail
    assert "steps of 0.01" in refused.value.hint


@pytest.mark.parametrize(
    ("shares", "total"),
    [({}, "0"), ({"dep_1": "99.99"}, "99.99"), ({"dep_1": "60", "dep_2": "60"}, "120")],
)
def test_shares_that_do_not_sum_to_100_are_refused(shares: dict[str, str], total: str) -> None:
    with pytest.raises(PilotageError) as refused:
        compile_split({name: Decimal(text) for name, text in shares.items()}, THREE)

    assert refused.value.detail == f"The shares sum to {total} %."
    assert refused.value.hint == "They must sum to 100."


def test_a_deployment_named_twice_is_refused() -> None:
    with pytest.raises(PilotageError, match=r"'1\.0\.0' is named twice"):
        compile_split({"dep_1": Decimal(50), "1.0.0": Decimal(50)}, THREE)


def test_an_unknown_deployment_is_refused_with_those_there_are() -> None:
    with pytest.raises(PilotageError) as refused:
        compile_split({"9.0.0": Decimal(100)}, THREE)
    with pytest.raises(PilotageError) as nothing:
        compile_split({"dep_1": Decimal(100)}, [])

    assert "no deployment of this endpoint" in refused.value.detail
    assert refused.value.hint == "There are: tiny@1.0.0, tiny@2.0.0, tiny@3.0.0."
    assert nothing.value.hint == "There are: none."


def test_a_version_of_two_models_does_not_say_which() -> None:
    both = [make_deployment(1, "tiny@1.0.0"), make_deployment(2, "large@1.0.0")]

    with pytest.raises(PilotageError, match="more than one deployment"):
        compile_split({"1.0.0": Decimal(100)}, both)
    assert compile_split({"large@1.0.0": Decimal(100)}, both) == {"dep_2": FULL_WEIGHT}


def test_a_model_of_an_upstream_is_named_as_its_provider_does() -> None:
    upstream = replace(
        make_deployment(4, "openai/gpt-4o@2024-08-06"),
        upstream_id="ups_1",
        upstream_model="gpt-4o@2024-08-06",
    )

    for name in ("dep_4", "openai/gpt-4o@2024-08-06", "gpt-4o@2024-08-06"):
        assert match_deployment(name, [*THREE, upstream]) is upstream
    assert not is_named(upstream, "2024-08-06")


def test_a_model_of_an_upstream_has_no_replica() -> None:
    upstream = replace(make_deployment(1), upstream_id="ups_1", upstream_model="gpt-4o")
    paths = {upstream.artifact_sha256: "/blobs/1"}

    for deployment, count in ((upstream, 0), (make_deployment(1), 1)):
        replicas = compile_groups(
            [deployment], paths, {"end_1": "chat"}, threads=2, slots=4, context_tokens=2048
        )
        assert len(replicas) == count


def test_a_replica_runs_for_each_deployment_whose_file_and_endpoint_are_there() -> None:
    deployments = [
        make_deployment(1, context_tokens=0),
        make_deployment(2, context_tokens=512),
        make_deployment(3, context_tokens=8192),
        make_deployment(4),
    ]
    paths = {d.artifact_sha256: f"/blobs/{d.id}" for d in deployments[:3]}

    groups = compile_groups(
        deployments, paths, {"end_1": "chat"}, threads=2, slots=4, context_tokens=2048
    )

    assert [group.replica.context_tokens for group in groups] == [2048, 512, 2048]
    assert groups[1].make_spec(3) == ReplicaSpec(
        replica_id="dep_2.3",
        artifact_path="/blobs/dep_2",
        alias="chat",
        threads=2,
        slots=4,
        context_tokens=512,
    )
    ids = [group.make_spec(11).replica_id for group in groups]
    assert [deployment_of(replica_id) for replica_id in ids] == ["dep_1", "dep_2", "dep_3"]
    assert [number_of(replica_id) for replica_id in ids] == [11, 11, 11]
    assert [group.serves for group in groups] == [("dep_1",), ("dep_2",), ("dep_3",)]
    assert compile_groups(deployments, paths, {}, threads=2, slots=4, context_tokens=2048) == []


def test_a_deployment_says_how_its_replicas_are_made() -> None:
    scaling = Scaling(max_replicas=3, memory_bytes=1 << 30, cpu_cores=1, slots=2)
    wide = msgspec.structs.replace(scaling, threads=8, context_tokens=4096)
    deployments = [
        replace(make_deployment(1, context_tokens=0), scaling=scaling, awake_until_us=7),
        replace(make_deployment(2, context_tokens=8192), scaling=wide),
        replace(make_deployment(3, context_tokens=512), scaling=wide),
    ]
    paths = {d.artifact_sha256: "/blobs/x" for d in deployments}

    first, second, third = compile_groups(
        deployments, paths, {"end_1": "chat"}, threads=4, slots=4, context_tokens=2048
    )

    assert (first.scaling, first.awake_until_us) == (scaling, 7)
    made = first.replica
    assert (made.threads, made.slots, made.context_tokens) == (1, 2, 2048)
    assert (made.memory_bytes, made.cpu_cores) == (1 << 30, 1)
    assert (second.replica.threads, second.replica.context_tokens) == (8, 4096)
    assert third.replica.context_tokens == 512


def seen(number: int, state: ReplicaState, detail: str = "") -> ReplicaStatus:
    return ReplicaStatus(
        replica_id=f"dep_1.{number}", deployment_id="dep_1", state=state, detail=detail
    )


ASLEEP_LOAD = Load(deployment_id="dep_1", wanted=0)
READY, LOOPING = seen(0, ReplicaState.READY), seen(1, ReplicaState.LOOPING, "no memory")
STARTING, FAILED = seen(2, ReplicaState.STARTING), seen(3, ReplicaState.FAILED, "code 3")


@pytest.mark.parametrize(
    ("statuses", "load", "state", "problem"),
    [
        ([READY], None, "ready", ""),
        ([STARTING, READY], None, "ready", ""),
        ([READY, LOOPING], None, "ready", "dep_1.1 crashes again and again: no memory"),
        ([STARTING], None, "starting", "it is starting"),
        ([STARTING, FAILED], None, "failed", "it is failed: code 3"),
        ([seen(0, ReplicaState.STOPPING)], ASLEEP_LOAD, "stopping", "it is stopping"),
        ([], ASLEEP_LOAD, "asleep", ""),
        ([], replace(ASLEEP_LOAD, wanted=1), "not running", "it is not running"),
        ([], None, "not running", "it is not running"),
    ],
)
def test_a_deployment_is_as_its_best_replica_and_a_crash_loop_is_a_problem_anyhow(
    statuses: list[ReplicaStatus], load: Load | None, state: str, problem: str
) -> None:
    sleeper = replace(make_deployment(1), scaling=Scaling(min_replicas=0))
    assert describe_state(sleeper, statuses, load) == state
    assert find_problem(sleeper, statuses, load) == problem


def test_only_what_may_sleep_is_asleep_and_an_upstreams_model_is_always_ready() -> None:
    assert describe_state(make_deployment(1), [], ASLEEP_LOAD) == "not running"
    upstream = replace(make_deployment(1), upstream_id="ups_1", upstream_model="gpt-4o")
    assert describe_state(upstream, [], None) == "ready"
    assert not find_problem(upstream, [], None)


def test_only_crashes_in_a_row_are_a_loop() -> None:
    assert [is_crash_loop(crashes) for crashes in (1, 2, 3, 9)] == [False, False, True, True]


def test_the_pause_doubles_and_ends_growing() -> None:
    pauses = [next_pause_s(failures) for failures in range(1, 40)]

    assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert all(before <= after for before, after in pairwise(pauses))


@given(st.integers(-5, 10**9))
def test_a_pause_is_never_shorter_or_longer_than_said(failures: int) -> None:
    assert FIRST_PAUSE_S <= next_pause_s(failures) <= LONGEST_PAUSE_S


def test_a_deployment_without_traffic_may_go() -> None:
    endpoint = Endpoint(
        id="end_1",
        rev=1,
        project_id="prj_1",
        name="chat",
        description="",
        max_output_tokens=0,
        salt="s",
        split={"dep_1": 1},
        created_at_us=0,
        deleted_at_us=None,
    )

    assert [is_settled(endpoint, deployment) for deployment in THREE] == [False, True, True]
