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
from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.types import MAX_CONNECTIONS, Deployment, Endpoint, UpstreamSpec

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_FINEST_PERCENT = Decimal(100) / FULL_WEIGHT
_WAY = ("base_url", "location", "proxy", "ca_file")  # where data goes, and who may see it pass
STEADY_S = 60.0  # a replica that ran this long has not crashed in a loop


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


def compile_replicas(
    deployments: Sequence[Deployment],
    artifact_paths: Mapping[str, str],
    names: Mapping[str, str],
    *,
    threads: int,
    slots: int,
    context_tokens: int,
) -> list[ReplicaSpec]:
    """Return the replicas that should run: one for each deployment whose file is there.

    ``artifact_paths`` is by SHA-256, ``names`` (of endpoints) by endpoint id.
    """
    return [
        ReplicaSpec(
            replica_id=f"{deployment.id}.0",
            artifact_path=artifact_paths[deployment.artifact_sha256],
            alias=names[deployment.endpoint_id],
            threads=threads,
            slots=slots,
            context_tokens=min(deployment.context_tokens or context_tokens, context_tokens),
        )
        for deployment in deployments
        if not deployment.upstream_id
        and deployment.artifact_sha256 in artifact_paths
        and deployment.endpoint_id in names
    ]


def deployment_of(replica_id: str) -> str:
    """Return the deployment of a replica id."""
    return replica_id.rpartition(".")[0]


def next_pause_s(failures: int) -> float:
    """Return how long to wait before a crashed replica is started again: 0.5 s doubling to 30 s."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, min(failures, 16) - 1))


def is_settled(endpoint: Endpoint, deployment: Deployment) -> bool:
    """Say whether a deployment takes no traffic, so that it may be removed."""
    return endpoint.split.get(deployment.id, 0) == 0


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
