"""What endpoints decide: splits, desired replicas, back-off, what upstreams may be. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from pilotage.core.addresses import CHECKS, check_secret_kind, is_public_provider
from pilotage.core.data_classes import DATA_CLASSES, INTERNAL, RESTRICTED, may_answer
from pilotage.core.errors import PilotageError
from pilotage.core.regions import LOCAL
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import AdapterFile, ReplicaSpec
from pilotage.endpoints.types import (
    MAX_CONNECTIONS,
    Deployment,
    Endpoint,
    Load,
    ReplicaState,
    ReplicaStatus,
    UpstreamSpec,
)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_FINEST_PERCENT = Decimal(100) / FULL_WEIGHT
_WAY = ("base_url", "location", "proxy", "ca_file")  # where data goes, and who may see it pass
STEADY_S = 60.0  # what worked for so long has not crashed in a loop
CRASHES_OF_A_LOOP = 3
ASLEEP = "asleep"
_TELLING = (
    ReplicaState.READY,
    ReplicaState.LOOPING,
    ReplicaState.FAILED,
    ReplicaState.STARTING,
    ReplicaState.STOPPING,
)


def compile_split(
    percents: Mapping[str, Decimal], deployments: Sequence[Deployment]
) -> dict[str, int]:
    """Return basis points by deployment id, from percentages by id, ``MODEL@VERSION`` or version.

    Raises ``invalid_request`` unless every name is one deployment of the endpoint, no percentage is
    negative or finer than 0.01, and they sum to 100.
    """
    split: dict[str, int] = {}
    for name, percent in percents.items():
        deployment = match_deployment(name, deployments)
        points = to_points(percent)
        if deployment.id in split:
            raise PilotageError("invalid_request", f"{name!r} is named twice.")
        split[deployment.id] = points
    total = sum(split.values())
    if total != FULL_WEIGHT:
        shown = Decimal(total) / (FULL_WEIGHT // 100)
        raise PilotageError(
            "invalid_request", f"The shares sum to {shown:g} %.", hint="They must sum to 100."
        )
    return {deployment_id: points for deployment_id, points in split.items() if points}


def read_shares(text: str) -> dict[str, Decimal]:
    """Read ``tiny@1.0.0=90,tiny@1.1.0=10``; raise ``invalid_request`` for anything else."""
    shares: dict[str, Decimal] = {}
    for word in text.split(","):
        name, _, percent = word.strip().rpartition("=")
        try:
            shares[name] = Decimal(percent)
        except InvalidOperation:
            name = ""
        if not name or not shares[name].is_finite():
            raise PilotageError(
                "invalid_request",
                f"{word[:80]!r} is no share.",
                hint="Write ENDPOINT MODEL@VERSION=PERCENT,MODEL@VERSION=PERCENT.",
                param="subject",
            )
    return shares


def to_points(percent: Decimal, param: str | None = None) -> int:
    """Return a percentage in basis points; raise ``invalid_request`` unless it is 0 to 100."""
    is_share = percent.is_finite() and 0 <= percent <= 100
    if not is_share or percent != percent.quantize(_FINEST_PERCENT):
        raise PilotageError(
            "invalid_request",
            f"{percent} % is no share.",
            hint="Use 0 to 100 in steps of 0.01.",
            param=param,
        )
    return int(percent * (FULL_WEIGHT // 100))


def match_deployment(name: str, deployments: Sequence[Deployment]) -> Deployment:
    """Return the deployment that a name means; raise ``invalid_request`` unless it is one."""
    found = [deployment for deployment in deployments if is_named(deployment, name)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(d.model for d in deployments) or "none"
    problem = "no deployment" if not found else "more than one deployment"
    raise PilotageError(
        "invalid_request", f"{name!r} is {problem} of this endpoint.", hint=f"There are: {there}."
    )


def is_named(deployment: Deployment, name: str) -> bool:
    """Say whether a name means a deployment.

    It may be the id, what people write, or the end of that: a version or an upstream's model.
    """
    short = deployment.upstream_model or deployment.model.rpartition("@")[2]
    return name in (deployment.id, deployment.model, short)


def compile_groups(
    deployments: Sequence[Deployment],
    artifact_paths: Mapping[str, str],
    names: Mapping[str, str],
    *,
    threads: int,
    slots: int,
    context_tokens: int,
) -> list[ReplicaGroup]:
    """Return what the replicas of each deployment shall be, for those whose file is there.

    ``artifact_paths`` is by SHA-256, ``names`` (of endpoints) by endpoint id. One that may use few
    cores only has no more threads than these, unless it says so.
    """
    groups = []
    for item in deployments:
        is_ours = not item.upstream_id and item.endpoint_id in names
        files = [item.artifact_sha256, *filter(None, [item.adapter_sha256])]
        if not is_ours or any(sha256 not in artifact_paths for sha256 in files):
            continue
        scaling = item.scaling
        replica = ReplicaSpec(
            replica_id=item.id,
            artifact_path=artifact_paths[item.artifact_sha256],
            alias=names[item.endpoint_id],
            threads=scaling.threads or min(threads, scaling.cpu_cores or threads),
            slots=scaling.slots or slots,
            context_tokens=item.find_context(context_tokens),
            memory_bytes=scaling.memory_bytes,
            cpu_cores=scaling.cpu_cores,
            engine=item.engine,
            adapters=tuple(AdapterFile(name=it, path=artifact_paths[it]) for it in files[1:]),
        )
        groups.append(
            ReplicaGroup(
                deployment_id=item.id,
                replica=replica,
                scaling=scaling,
                awake_until_us=item.awake_until_us,
            )
        )
    return groups


def deployment_of(replica_id: str) -> str:
    """Return the deployment of a replica id."""
    return replica_id.rpartition(".")[0]


def number_of(replica_id: str) -> int:
    """Return which of its deployment's replicas an id is."""
    return int(replica_id.rpartition(".")[2])


def is_crash_loop(crashes: int) -> bool:
    """Say whether so many crashes in a row are no accident any more."""
    return crashes >= CRASHES_OF_A_LOOP


def pick_status(statuses: Sequence[ReplicaStatus]) -> ReplicaStatus:
    """Return what tells most of a deployment's replicas, at least one: the best, else the worst."""
    return min(statuses, key=lambda item: (_TELLING.index(item.state), item.replica_id))


def describe_state(
    deployment: Deployment, statuses: Sequence[ReplicaStatus], load: Load | None
) -> str:
    """Return in a word how a deployment is; a model of an upstream is always ready."""
    if deployment.upstream_id:
        return ReplicaState.READY
    if statuses:
        return pick_status(statuses).state
    is_asleep = deployment.can_wake and load is not None and load.wanted == 0
    return ASLEEP if is_asleep else "not running"


def find_problem(
    deployment: Deployment, statuses: Sequence[ReplicaStatus], load: Load | None
) -> str:
    """Return why a deployment cannot answer as it should, "" if it can; sleep is no problem."""
    for item in statuses:
        if item.state is ReplicaState.LOOPING:
            return f"{item.replica_id} crashes again and again: {item.detail}"
    state = describe_state(deployment, statuses, load)
    if state in {ReplicaState.READY, ASLEEP}:
        return ""
    detail = next((item.detail for item in statuses if item.detail), "")
    return f"it is {state}: {detail}" if detail else f"it is {state}"


def next_pause_s(failures: int) -> float:
    """Return how long to wait before a crashed replica is started again: 0.5 s doubling to 30 s."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, min(failures, 16) - 1))


def is_settled(endpoint: Endpoint, deployment: Deployment) -> bool:
    """Say whether a deployment takes no traffic, so that it may be removed."""
    return endpoint.split.get(deployment.id, 0) == 0


def check_free(endpoint: Endpoint) -> None:
    """Raise ``conflict`` while a rollout moves the traffic of an endpoint."""
    if endpoint.rollout:
        rollout_id = endpoint.rollout.partition("/")[0]
        raise PilotageError(
            "conflict",
            f"The rollout {rollout_id} moves the traffic of {endpoint.name!r}.",
            hint=f'End it first: pilotage rollout rollback {rollout_id} --reason "..."',
        )


def check_rollout(endpoint: Endpoint, candidate_id: str, *, is_shadow: bool = False) -> None:
    """Raise ``conflict`` for an endpoint whose calls a rollout could not deal to its arms.

    Weights must decide, and a candidate that answers calls may not get copies of them as well;
    with ``is_shadow`` it answers none. Calls that a rule keeps apart take no part.
    """
    check_free(endpoint)
    name, routing = endpoint.name, endpoint.routing
    if routing.policy != "weighted":
        raise PilotageError(
            "conflict",
            f"Calls of {name!r} go where it is {routing.policy}: weights decide nothing.",
            hint=f"Have them go by weight: pilotage endpoints route {name} --policy weighted",
        )
    if not is_shadow and routing.shadow is not None and routing.shadow.arm == candidate_id:
        raise PilotageError(
            "conflict",
            f"The shadow of {name!r} may take no traffic itself.",
            hint=f"End the shadow first: pilotage endpoints route {name} --no-shadow",
        )


def check_shift(
    endpoint: Endpoint, split: Mapping[str, int], rollout: str, deployments: Sequence[Deployment]
) -> None:
    """Raise unless a rollout may set a split: shares of deployments that are there, 100 % in all.

    A running rollout is moved and ended by itself only.
    """
    runs, moves = endpoint.rollout.partition("/")[0], rollout.partition("/")[0]
    if runs and moves and runs != moves:
        check_free(endpoint)
    there = {item.id for item in deployments}
    if gone := [arm for arm in split if arm not in there]:
        raise PilotageError("conflict", f"{endpoint.name!r} has no deployment {gone[0]} any more.")
    if sum(split.values()) != FULL_WEIGHT or min(split.values()) < 0:
        raise PilotageError("invalid_request", "The shares of a split must sum to 100 %.")


def check_upstream(spec: UpstreamSpec) -> UpstreamSpec:
    """Return what is said of an upstream in its one written form; raise ``invalid_request``."""
    if not 1 <= spec.max_connections <= MAX_CONNECTIONS:
        raise PilotageError(
            "invalid_request",
            f"max_connections: {spec.max_connections} is no number of connections.",
            hint=f"Use 1 to {MAX_CONNECTIONS}.",
            param="max_connections",
        )
    if spec.accepts not in DATA_CLASSES or (spec.accepts == RESTRICTED and spec.location != LOCAL):
        raise PilotageError(
            "invalid_request",
            f"accepts: {spec.accepts[:80]!r} is nothing that this upstream may accept.",
            hint="Use public, internal or confidential; restricted where its location is local.",
            param="accepts",
        )
    check_secret_kind(spec.provider, spec.secret)
    checked: dict[str, Any] = {name: check(getattr(spec, name)) for name, check in CHECKS.items()}
    if checked["location"] == LOCAL and is_public_provider(checked["base_url"]):
        raise PilotageError(
            "invalid_request",
            "location: the address is a public provider's, and no place in the house.",
            hint="Use the region where the provider answers, such as us or eu-west4.",
            param="location",
        )
    return replace(spec, **checked)


def widens_trust(spec: UpstreamSpec, before: UpstreamSpec | None = None) -> bool:
    """Say whether data may get where nobody has agreed to it: a closer class of it, or elsewhere.

    A new upstream may see internal data without that. Both are in their one written form.
    """
    agreed = before.accepts if before else INTERNAL
    if not may_answer(spec.accepts, agreed):
        return True
    if before is None or may_answer(spec.accepts, INTERNAL):
        return False
    return any(getattr(spec, name) != getattr(before, name) for name in _WAY)
