"""Control-plane routes of scaling, waking up, and of how an endpoint's deployments are."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.rules import describe_state, find_problem
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.traits_http import ScalingBody, ScalingView
from pilotage.endpoints.types import Deployment, Endpoint, Load, ReplicaState, ReplicaStatus
from pilotage.kit.api import ApiCall, Body, RevisedView, Route, View
from pilotage.kit.clock import to_datetime
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView

KIND_WARM = OperationKind("warm", "endpoints.deployment.scale")
LOOK_S = 0.05
_LONGEST_S = 7 * 86_400


class WarmBody(Body):
    """How long it shall not fall asleep, whether somebody calls or not."""

    keep_s: int = Field(600, ge=1, le=_LONGEST_S)


class ReplicaView(View):
    """A replica as it was last seen; times and memory are absent where they are not known."""

    id: str
    state: str
    detail: str
    restarts: int
    memory_bytes: int | None
    ready_at: datetime | None


class DeploymentHealth(View):
    """How a deployment is, what is asked of it, and its replicas.

    ``wanted_replicas`` and the calls are absent for a model of an upstream, and while nobody runs
    replicas. ``oldest_wait_ms`` is how long the oldest call has had no first byte of an answer.
    """

    deployment: str
    model: str
    percent: float
    state: str
    problem: str
    wanted_replicas: int | None
    ready_replicas: int
    in_flight: int | None
    waiting: int | None
    oldest_wait_ms: int | None
    replicas: list[ReplicaView]


class HealthView(View):
    """An endpoint is healthy when every deployment that takes traffic can answer."""

    endpoint: str
    healthy: bool
    deployments: list[DeploymentHealth]


class ScaledView(RevisedView):
    """A deployment and its scaling."""

    model: str
    scaling: ScalingView
    awake_until: datetime | None


def scaling_routes(service: EndpointService, operations: Operations, one: str) -> list[Route]:
    """List the routes; ``one`` is the path of an endpoint."""
    deployment_path = f"{one}/deployments/{{deployment:path}}"

    async def get_scaling(call: ApiCall, endpoint: str, deployment: str) -> ScaledView:
        """Show how many replicas a deployment may have."""
        async with call.read() as tx:
            found = await service.get_endpoint(tx, endpoint)
            return _show_scaled(await service.scaling.get(tx, found, deployment))

    async def scale(call: ApiCall, endpoint: str, deployment: str, body: ScalingBody) -> ScaledView:
        """Replace how many replicas a deployment has and what each of them gets."""
        async with call.write() as tx:
            found = await service.get_endpoint(tx, endpoint)
            return _show_scaled(
                await service.scaling.scale(
                    tx, found, deployment, body.to_scaling(), call.expected_rev
                )
            )

    async def warm(call: ApiCall, endpoint: str, deployment: str, body: WarmBody) -> OperationView:
        """Wake a deployment up before anybody calls; the operation ends when it can answer."""
        async with call.write() as tx:
            found = await service.get_endpoint(tx, endpoint)
            until_us = tx.now_us + body.keep_s * 1_000_000
            woken = await service.scaling.keep_awake(tx, found, deployment, until_us)

        async def wait(progress: Progress) -> object:
            return await wait_ready(service, woken, progress)

        return OperationView.of(await operations.start(call.actor, KIND_WARM, woken.id, wait))

    async def get_health(call: ApiCall, endpoint: str) -> HealthView:
        """Say how an endpoint's deployments are and what is asked of them now."""
        async with call.read() as tx:
            found = await service.get_endpoint(tx, endpoint)
            deployments = await service.list_deployments(tx, found)
        loads = service.scaling.list_loads()
        replicas = service.scaling.list_replicas()
        shown = []
        for item in deployments:
            seen = [replica for replica in replicas if item.id in replica.serves]
            shown.append(_show_health(found, item, seen, loads.get(item.id)))
        return HealthView(
            endpoint=found.name,
            healthy=any(item.percent for item in shown)
            and not any(item.percent and item.problem for item in shown),
            deployments=shown,
        )

    return [
        Route(
            method="GET",
            path=f"{deployment_path}/scaling",
            permission="endpoints.endpoint.read",
            handler=get_scaling,
        ),
        Route(
            method="PUT",
            path=f"{deployment_path}/scaling",
            permission="endpoints.deployment.scale",
            handler=scale,
        ),
        Route(
            method="POST",
            path=f"{deployment_path}/warm",
            permission="endpoints.deployment.scale",
            handler=warm,
            status=202,
        ),
        Route(
            method="GET",
            path=f"{one}/health",
            permission="endpoints.endpoint.read",
            handler=get_health,
        ),
    ]


async def wait_ready(
    service: EndpointService, deployment: Deployment, progress: Progress
) -> dict[str, str]:
    """Return when a deployment can answer; raise ``conflict`` when it crashes in a loop."""
    done = {"deployment": deployment.id, "model": deployment.model}
    if deployment.upstream_id:
        return done | {"state": "ready"}
    if not service.has_fleet:
        return done | {"state": "waits for pilotage up"}
    progress("starting", 0, 1)
    while True:
        status = service.list_statuses().get(deployment.id)
        if status is not None and status.state is ReplicaState.READY:
            progress("ready", 1, 1)
            return done | {"state": "ready"}
        if status is not None and status.state is ReplicaState.LOOPING:
            raise PilotageError("conflict", f"{deployment.model} does not start: {status.detail}")
        await asyncio.sleep(LOOK_S)


def _show_scaled(deployment: Deployment) -> ScaledView:
    return ScaledView.of(
        deployment,
        scaling=ScalingView.of(deployment.scaling),
        awake_until=to_datetime(deployment.awake_until_us or None),
    )


def _show_health(
    endpoint: Endpoint, deployment: Deployment, seen: Sequence[ReplicaStatus], load: Load | None
) -> DeploymentHealth:
    return DeploymentHealth(
        deployment=deployment.id,
        model=deployment.model,
        percent=endpoint.split.get(deployment.id, 0) * 100 / FULL_WEIGHT,
        state=describe_state(deployment, seen, load),
        problem=find_problem(deployment, seen, load),
        wanted_replicas=load.wanted if load else None,
        ready_replicas=sum(item.state is ReplicaState.READY for item in seen),
        in_flight=load.in_flight if load else None,
        waiting=load.waiting if load else None,
        oldest_wait_ms=load.oldest_wait_ms if load else None,
        replicas=[
            ReplicaView(
                id=item.replica_id,
                state=item.state,
                detail=item.detail,
                restarts=item.restarts,
                memory_bytes=item.memory_bytes or None,
                ready_at=to_datetime(item.ready_at_us or None),
            )
            for item in seen
        ],
    )
