"""Deployments that answer from one process: adapters together with their base, nobody else."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import AdapterFile, ReplicaSpec
from pilotage.endpoints.rules import compile_groups
from pilotage.endpoints.sharing_rules import find_spoilers, list_dedicated, share_replicas
from pilotage.endpoints.types import (
    Deployment,
    Endpoint,
    ReplicaState,
    ReplicaStatus,
    Scaling,
    Traits,
)

BASE = "aa" * 32


def make_deployment(
    number: int, adapter: str = "", *, endpoint: str = "end_1", project: str = "prj_1"
) -> Deployment:
    return Deployment(
        id=f"dep_{number}",
        rev=1,
        project_id=project,
        endpoint_id=endpoint,
        version_id=f"ver_{number}",
        model=f"tiny@{number}.0.0",
        artifact_sha256=BASE,
        engine="llamacpp",
        context_tokens=2048,
        created_at_us=0,
        deleted_at_us=None,
        adapter_sha256=adapter,
    )


def make_group(deployment: Deployment, **scaling: int) -> ReplicaGroup:
    asked = Scaling(**scaling)
    name = deployment.adapter_sha256
    adapters = (AdapterFile(name=name, path=f"/blobs/{name}"),) if name else ()
    replica = ReplicaSpec(
        replica_id=deployment.id,
        artifact_path=f"/blobs/{deployment.artifact_sha256}",
        alias=deployment.endpoint_id,
        threads=asked.threads or 1,
        slots=asked.slots or 4,
        context_tokens=asked.context_tokens or 512,
        memory_bytes=asked.memory_bytes,
        cpu_cores=asked.cpu_cores,
        adapters=adapters,
    )
    return ReplicaGroup(deployment_id=deployment.id, replica=replica, scaling=asked)


def share(*deployments: Deployment, dedicated: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    by_id = {item.id: item for item in deployments}
    groups = [make_group(item) for item in deployments]
    return [group.serves for group in share_replicas(groups, by_id, dedicated)]


def test_adapters_answer_from_the_replicas_of_their_base_in_order_of_age() -> None:
    deployments = [
        make_deployment(3, "second", endpoint="end_2"),
        make_deployment(1),
        make_deployment(2, "first"),
        make_deployment(4, "first", endpoint="end_3"),
    ]
    by_id = {item.id: item for item in deployments}
    (group,) = share_replicas([make_group(item) for item in deployments], by_id, ())
    assert group.deployment_id == "dep_1"
    assert group.serves == ("dep_1", "dep_2", "dep_3", "dep_4")
    assert [adapter.name for adapter in group.replica.adapters] == ["first", "second"]


def test_models_without_adapters_stay_apart() -> None:
    assert share(make_deployment(1), make_deployment(2)) == [("dep_1",), ("dep_2",)]
    assert share(make_deployment(1, "first")) == [("dep_1",)]


@pytest.mark.parametrize(
    "other",
    [
        make_deployment(2, "first", project="prj_2"),
        make_deployment(2, "first", endpoint="end_own"),
        replace(make_deployment(2, "first"), artifact_sha256="bb" * 32),
        replace(make_deployment(2, "first"), engine="big"),
    ],
)
def test_another_project_base_engine_or_dedicated_endpoint_is_apart(other: Deployment) -> None:
    assert share(make_deployment(1), other, dedicated=("end_own",)) == [("dep_1",), ("dep_2",)]


def test_a_dedicated_endpoint_shares_with_itself() -> None:
    own = [make_deployment(1, endpoint="end_own"), make_deployment(2, "a", endpoint="end_own")]
    assert share(*own, make_deployment(3), dedicated=("end_own",)) == [
        ("dep_1", "dep_2"),
        ("dep_3",),
    ]


def see(group: ReplicaGroup, number: int, state: ReplicaState) -> ReplicaStatus:
    return ReplicaStatus(
        replica_id=f"{group.deployment_id}.{number}",
        deployment_id=group.deployment_id,
        state=state,
        shared_by=group.shared_by,
    )


def test_the_youngest_adapter_of_replicas_that_only_crash_is_set_apart() -> None:
    base, *tuned = (make_deployment(number, name) for number, name in enumerate(("", "a", "b")))
    by_id = {item.id: item for item in (base, *tuned, make_deployment(9))}
    groups = [make_group(item) for item in by_id.values()]
    alone, shared, other = groups[0], *share_replicas(groups, by_id, (), {"dep_9"})
    assert (shared.serves, other.serves) == (("dep_0", "dep_1", "dep_2"), ("dep_9",))

    former, looping = see(alone, 0, ReplicaState.READY), see(shared, 1, ReplicaState.LOOPING)
    ready, other_loop = see(shared, 2, ReplicaState.READY), see(other, 0, ReplicaState.LOOPING)
    for seen, spoilers in (
        ([former, looping, other_loop], {"dep_2"}),  # the former replica has no adapters
        ([looping, see(shared, 2, ReplicaState.STARTING)], {"dep_2"}),
        ([looping, ready], set()),
        ([see(shared, 1, ReplicaState.FAILED)], set()),
        ([], set()),
    ):
        assert find_spoilers([shared, other], by_id, seen) == spoilers

    again = share_replicas(groups, by_id, (), {"dep_2", "dep_9"})
    assert [group.serves for group in again] == [("dep_0", "dep_1"), ("dep_2",), ("dep_9",)]
    assert find_spoilers(again, by_id, [former, looping]) == set()
    looping = see(again[0], 2, ReplicaState.LOOPING)
    assert find_spoilers(again, by_id, [former, looping]) == {"dep_1"}


def test_there_is_room_for_what_each_would_have_had() -> None:
    deployments = [make_deployment(1), make_deployment(2, "first"), make_deployment(3, "second")]
    groups = [
        make_group(deployments[0], min_replicas=0, idle_after_s=60, memory_bytes=1 << 30, slots=2),
        make_group(deployments[1], max_replicas=3, memory_bytes=1 << 31, cpu_cores=2, threads=2),
        make_group(deployments[2], min_replicas=0, idle_after_s=90, memory_bytes=1 << 29),
    ]
    groups[2] = msgspec.structs.replace(groups[2], awake_until_us=7)
    by_id = {item.id: item for item in deployments}
    (group,) = share_replicas(groups, by_id, ())
    made, scaling = group.replica, group.scaling
    assert (made.memory_bytes, made.cpu_cores, made.slots, made.threads) == (1 << 31, 0, 4, 2)
    assert (scaling.min_replicas, scaling.max_replicas, scaling.idle_after_s) == (1, 3, 300)
    assert group.awake_until_us == 7


@given(
    st.lists(
        st.tuples(st.sampled_from(("", "a", "b")), st.sampled_from(("end_1", "end_2"))), max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_everybody_is_served_once_in_whatever_order_they_come(
    made: list[tuple[str, str]], random: st.DataObject
) -> None:
    deployments = [
        make_deployment(number, adapter, endpoint=endpoint)
        for number, (adapter, endpoint) in enumerate(made)
    ]
    by_id = {item.id: item for item in deployments}
    groups = [make_group(item) for item in deployments]
    shared = share_replicas(groups, by_id, ("end_2",))
    assert sorted(served for group in shared for served in group.serves) == sorted(by_id)
    for group in shared:
        names = {adapter.name for adapter in group.replica.adapters}
        wanted = {by_id[served].adapter_sha256 for served in group.serves} - {""}
        assert names == wanted
    random.shuffle(groups)  # type: ignore[attr-defined]
    assert share_replicas(groups, by_id, ("end_2",)) == shared


def test_an_adapter_runs_when_both_files_are_there() -> None:
    deployment = replace(make_deployment(1, "first"), engine="llamacpp")
    paths = {BASE: "/blobs/base", "first": "/blobs/first"}
    for there, count in ((paths, 1), ({BASE: "/blobs/base"}, 0), ({"first": "/x"}, 0)):
        groups = compile_groups(
            [deployment], there, {"end_1": "chat"}, threads=1, slots=4, context_tokens=512
        )
        assert len(groups) == count
        for group in groups:
            assert group.replica.artifact_path == "/blobs/base"
            assert group.replica.adapters == (AdapterFile(name="first", path="/blobs/first"),)
            assert group.replica.engine == "llamacpp"


def test_endpoints_say_whether_they_are_dedicated() -> None:
    plain = Endpoint(
        id="end_1",
        rev=1,
        project_id="prj_1",
        name="chat",
        description="",
        max_output_tokens=0,
        salt="salt",
        split={},
        created_at_us=0,
        deleted_at_us=None,
    )
    own = replace(plain, id="end_2", traits=Traits(is_dedicated=True))
    assert list_dedicated([plain, own]) == {"end_2"}
