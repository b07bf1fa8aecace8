"""Control-plane routes of endpoints."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.history_http import history_route
from pilotage.endpoints.policies_http import policy_routes
from pilotage.endpoints.routing import MOST_TOKENS
from pilotage.endpoints.routing_http import RoutingState, routing_route, show_routing
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Endpoint, ReplicaState, ReplicaStatus
from pilotage.endpoints.upstreams_http import upstream_routes
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page
from pilotage.kit.db import Tx
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView

CRASHES_TO_FAIL = 3
KIND_DEPLOY = OperationKind("deploy", "endpoints.traffic.deploy")


class EndpointBody(Body):
    """An endpoint to create; ``max_output_tokens`` 0 allows what the model's context does."""

    name: str
    description: str = ""
    max_output_tokens: int = Field(0, le=2**31 - 1)


class EndpointChange(Body):
    """What an endpoint shall say of itself and allow; both are replaced."""

    description: str = ""
    max_output_tokens: int = Field(0, le=2**31 - 1)


class DeployBody(Body):
    """What to put on the endpoint: ``MODEL@VERSION``, or ``MODEL`` for its newest.

    With ``upstream`` it is a model of that upstream, by the provider's own name of it, which takes
    ``context_tokens`` (0: what most can).
    """

    model: str
    upstream: str = ""
    context_tokens: int = Field(0, ge=0, le=MOST_TOKENS)


class SplitBody(Body):
    """Percentages of the traffic by deployment (its id, its ``MODEL@VERSION``, or its version)."""

    split: dict[str, Decimal]


class DeploymentView(RevisedView):
    """A deployment: what it serves, its share, and what is seen of its replica.

    A model of an upstream has no replica, and is ready.
    """

    model: str
    version_id: str
    upstream: str
    upstream_model: str
    context_tokens: int
    percent: float
    state: str
    detail: str
    restarts: int
    created_at: datetime


class EndpointView(RevisedView):
    """An endpoint with its deployments."""

    project_id: str
    name: str
    description: str
    max_output_tokens: int
    routing: RoutingState
    regions: list[str]
    deployments: list[DeploymentView]
    created_at: datetime


class SplitView(RevisedView):
    """The split of an endpoint after a change."""

    split: dict[str, float]


ONE = "/endpoints/{endpoint:path}"  # an alias may have slashes


def endpoint_routes(service: EndpointService, operations: Operations) -> list[Route]:
    """List the routes of endpoints, those with a longer path first: names may have slashes."""
    return [
        *upstream_routes(service.upstreams),
        *_traffic_routes(service, operations),
        routing_route(service),
        *_object_routes(service),
        *policy_routes(service.traffic.policies),
        history_route(),
    ]


def _traffic_routes(service: EndpointService, operations: Operations) -> list[Route]:
    async def deploy(call: ApiCall, endpoint: str, body: DeployBody) -> OperationView:
        """Put a model on an endpoint; the operation ends when it can answer."""
        async with call.write() as tx:
            deployment = await _deploy(service, tx, endpoint, body)

        async def wait_ready(progress: Progress) -> object:
            return await _wait_ready(service, deployment, progress)

        return OperationView.of(
            await operations.start(call.actor, KIND_DEPLOY, deployment.id, wait_ready)
        )

    async def split(call: ApiCall, endpoint: str, body: SplitBody) -> SplitView:
        """Move the traffic of an endpoint."""
        async with call.write() as tx:
            changed = await service.split(tx, endpoint, body.split, call.expected_rev)
        return SplitView(
            id=changed.id,
            rev=changed.rev,
            split={key: _percent(bp) for key, bp in changed.split.items()},
        )

    async def undeploy(
        call: ApiCall,
        endpoint: str,
        deployment: str,
        force: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Remove a deployment that takes no traffic."""
        async with call.write() as tx:
            await service.undeploy(tx, endpoint, deployment, is_forced=force)

    return [
        Route(
            method="POST",
            path=f"{ONE}/deployments",
            permission="endpoints.traffic.deploy",
            handler=deploy,
            status=202,
        ),
        Route(
            method="DELETE",
            path=f"{ONE}/deployments/{{deployment:path}}",
            permission="endpoints.traffic.undeploy",
            handler=undeploy,
            status=204,
        ),
        Route(
            method="PUT", path=f"{ONE}/split", permission="endpoints.traffic.split", handler=split
        ),
    ]


def _object_routes(service: EndpointService) -> list[Route]:
    async def create_endpoint(call: ApiCall, body: EndpointBody) -> EndpointView:
        """Create an endpoint: a model name that clients may send."""
        async with call.write() as tx:
            made = await service.create_endpoint(
                tx, body.name, body.description, body.max_output_tokens
            )
        return _show(made, [], {})

    async def list_endpoints(call: ApiCall, limit: int = 50, after: str = "") -> Page[EndpointView]:
        """List endpoints by name."""
        async with call.read() as tx:
            found = await service.list_endpoints(tx, after, limit + 1)
            shown = [
                _show(item, await service.list_deployments(tx, item), service.list_statuses())
                for item in found
            ]
        return make_page(shown, limit, lambda view: view, "name")

    async def get_endpoint(call: ApiCall, endpoint: str) -> EndpointView:
        """Show an endpoint, its deployments and what is seen of them."""
        async with call.read() as tx:
            found = await service.get_endpoint(tx, endpoint)
            return _show(found, await service.list_deployments(tx, found), service.list_statuses())

    async def change_endpoint(call: ApiCall, endpoint: str, body: EndpointChange) -> EndpointView:
        """Change an endpoint's description and limit."""
        async with call.write() as tx:
            changed = await service.change_endpoint(
                tx, endpoint, body.description, body.max_output_tokens, call.expected_rev
            )
            deployments = await service.list_deployments(tx, changed)
        return _show(changed, deployments, service.list_statuses())

    async def delete_endpoint(call: ApiCall, endpoint: str, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Delete an endpoint."""
        async with call.write() as tx:
            await service.delete_endpoint(tx, endpoint, is_forced=force)

    return [
        Route(
            method="POST",
            path="/endpoints",
            permission="endpoints.endpoint.create",
            handler=create_endpoint,
            status=201,
        ),
        Route(
            method="GET",
            path="/endpoints",
            permission="endpoints.endpoint.read",
            handler=list_endpoints,
        ),
        Route(method="GET", path=ONE, permission="endpoints.endpoint.read", handler=get_endpoint),
        Route(
            method="PUT", path=ONE, permission="endpoints.endpoint.change", handler=change_endpoint
        ),
        Route(
            method="DELETE",
            path=ONE,
            permission="endpoints.endpoint.delete",
            handler=delete_endpoint,
            status=204,
        ),
    ]


async def _deploy(service: EndpointService, tx: Tx, endpoint: str, body: DeployBody) -> Deployment:
    if body.upstream:
        return await service.deploy_upstream(
            tx, endpoint, body.upstream, body.model, body.context_tokens
        )
    if body.context_tokens:
        raise PilotageError(
            "invalid_request",
            "context_tokens is for models of an upstream: a version brings its own.",
            hint="Leave it out, or name the upstream.",
            param="context_tokens",
        )
    return await service.deploy(tx, endpoint, body.model)


async def _wait_ready(
    service: EndpointService, deployment: Deployment, progress: Progress
) -> dict[str, str]:
    if deployment.upstream_id:
        return {"deployment": deployment.id, "model": deployment.model, "state": "ready"}
    if not service.has_fleet:
        return {
            "deployment": deployment.id,
            "model": deployment.model,
            "state": "waits for pilotage up",
        }
    progress("starting", 0, 1)
    while True:
        status = service.list_statuses().get(deployment.id)
        if status is not None and status.state is ReplicaState.READY:
            progress("ready", 1, 1)
            return {"deployment": deployment.id, "model": deployment.model, "state": "ready"}
        if (
            status is not None
            and status.state is ReplicaState.FAILED
            and status.restarts >= CRASHES_TO_FAIL
        ):
            raise PilotageError("conflict", f"{deployment.model} does not start: {status.detail}")
        await asyncio.sleep(0.05)


def _show(
    endpoint: Endpoint, deployments: Sequence[Deployment], seen: Mapping[str, ReplicaStatus]
) -> EndpointView:
    return EndpointView.of(
        endpoint,
        routing=show_routing(endpoint.routing, deployments),
        deployments=[_show_deployment(endpoint, d, seen.get(d.id)) for d in deployments],
    )


def _show_deployment(
    endpoint: Endpoint, deployment: Deployment, status: ReplicaStatus | None
) -> DeploymentView:
    state = status.state if status else "not running"
    return DeploymentView.of(
        deployment,
        upstream=deployment.model.removesuffix(f"/{deployment.upstream_model}")
        if deployment.upstream_id
        else "",
        percent=_percent(endpoint.split.get(deployment.id, 0)),
        state=ReplicaState.READY if deployment.upstream_id else state,
        detail=status.detail if status else "",
        restarts=status.restarts if status else 0,
    )


def _percent(points: int) -> float:
    return points * 100 / FULL_WEIGHT
