"""Which deployments answer from one process: those of adapters, together with their base. Pure.

An engine reads its adapters when it starts, so each base model has one group of replicas with the
adapters of all its deployments, and a canary of another adapter costs no second model. Groups of
another project, engine or of endpoints with replicas of their own are never put together: a prompt
cache shows who shares it how a prompt began.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import AdapterFile, ReplicaSpec
from pilotage.endpoints.types import Deployment, Endpoint, ReplicaState, ReplicaStatus, Scaling

_LARGEST = ("min_replicas", "max_replicas", "scale_down_delay_s", "idle_after_s")


def share_replicas(
    groups: Sequence[ReplicaGroup],
    deployments: Mapping[str, Deployment],
    dedicated: Collection[str],
    apart: Collection[str] = (),
) -> list[ReplicaGroup]:
    """Return the groups with those put together that share a base model and have an adapter.

    ``deployments`` is by id and has those of all groups; ``dedicated`` are the endpoints, by id,
    whose replicas serve nobody else, ``apart`` the deployments that share with nobody.
    """
    together: dict[tuple[str, ...], list[ReplicaGroup]] = {}
    for group in groups:
        item = deployments[group.deployment_id]
        endpoint = item.endpoint_id if item.endpoint_id in dedicated else ""
        own = item.id if item.id in apart else ""
        key = (item.project_id, endpoint, own, item.engine, item.artifact_sha256)
        together.setdefault(key, []).append(group)
    shared: list[ReplicaGroup] = []
    for members in together.values():
        has_adapter = any(member.replica.adapters for member in members)
        shared += [_merge(members)] if has_adapter and len(members) > 1 else members
    return sorted(shared, key=lambda group: group.deployment_id)


def find_spoilers(
    shared: Iterable[ReplicaGroup],
    deployments: Mapping[str, Deployment],
    statuses: Iterable[ReplicaStatus],
) -> set[str]:
    """Return which deployments shall share with nobody, as others would not run because of them.

    Of every group whose replicas crash in a loop, and none of them is ready, that is the youngest
    that has an adapter: what came last is most likely what is wrong. By itself it runs, or says
    what is the matter with it, and hurts nobody.
    """
    seen: dict[tuple[str, ...], set[ReplicaState]] = {}
    for status in statuses:
        seen.setdefault(status.serves, set()).add(status.state)
    spoilers = set()
    for group in shared:
        states = seen.get(group.serves, set())
        tuned = [name for name in group.shared_by if deployments[name].adapter_sha256]
        if tuned and ReplicaState.LOOPING in states and ReplicaState.READY not in states:
            spoilers.add(max(tuned))
    return spoilers


def list_dedicated(endpoints: Iterable[Endpoint]) -> set[str]:
    """Return the ids of the endpoints whose replicas serve nobody else."""
    return {endpoint.id for endpoint in endpoints if endpoint.traits.is_dedicated}


def _merge(members: Sequence[ReplicaGroup]) -> ReplicaGroup:
    """Put groups together under the name of the oldest; adapters are numbered by age, too."""
    members = sorted(members, key=lambda member: member.deployment_id)
    first = members[0]
    return replace(
        first,
        replica=_merge_specs([member.replica for member in members]),
        scaling=_merge_scaling([member.scaling for member in members]),
        awake_until_us=max(member.awake_until_us for member in members),
        shared_by=tuple(member.deployment_id for member in members),
    )


def _merge_specs(specs: Sequence[ReplicaSpec]) -> ReplicaSpec:
    """Return a replica that has room for what each would have had."""
    adapters: dict[str, AdapterFile] = {}
    for spec in specs:
        for adapter in spec.adapters:
            adapters.setdefault(adapter.name, adapter)
    return replace(
        specs[0],
        adapters=tuple(adapters.values()),
        threads=max(spec.threads for spec in specs),
        slots=max(spec.slots for spec in specs),
        context_tokens=max(spec.context_tokens for spec in specs),
        memory_bytes=_widest(spec.memory_bytes for spec in specs),
        cpu_cores=_widest(spec.cpu_cores for spec in specs),
    )


def _merge_scaling(all_of_them: Sequence[Scaling]) -> Scaling:
    """Return the settings of the oldest, but never fewer replicas than any of them wants."""
    values: dict[str, Any] = {
        name: max(getattr(scaling, name) for scaling in all_of_them) for name in _LARGEST
    }
    return replace(all_of_them[0], **values)


def _widest(limits: Iterable[int]) -> int:
    """Return the largest limit; 0 is none, and wider than any."""
    found = list(limits)
    return 0 if 0 in found else max(found)
