"""Control-plane routes of endpoints."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.core.regions import LOCAL
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.history_http import history_route
from pilotage.endpoints.policies_http import policy_routes
from pilotage.endpoints.routing import MOST_TOKENS
from pilotage.endpoints.routing_http import RoutingState, routing_route, show_routing
from pilotage.endpoints.rules import describe_state, pick_status
from pilotage.endpoints.scaling import ScalingService
from pilotage.endpoints.scaling_http import scaling_routes, wait_ready
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.trait_rules import read_selector
from pilotage.endpoints.traits_http import (
    MachineBody,
    MachineView,
    ScalingBody,
    ScalingView,
    TraitsChange,
)
from pilotage.endpoints.types import Deployment, Endpoint, Load, ReplicaState, ReplicaStatus
from pilotage.endpoints.upstreams_http import upstream_routes
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page
from pilotage.kit.db import Tx
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView

KIND_DEPLOY = OperationKind("deploy", "endpoints.traffic.deploy")


class EndpointBody(Body):
    """An endpoint to create; ``max_output_tokens`` 0 allows what the model's context does.

    Nobody else's calls are answered by the replicas of a ``dedicated`` one. ``region`` is where
    they run, in the words of residency rules (absent: ``local``).
    """

    name: str
    description: str = ""
    max_output_tokens: int = Field(0, le=2**31 - 1)
    display_name: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    dedicated: bool = False
    region: str = ""
    machine: MachineBody | None = None
    scaling: ScalingBody | None = None


class EndpointChange(Body):
    """What an endpoint shall say of itself and allow: description and limit are replaced.

    The others stay as they are where they are left out.
    """

    description: str = ""
    max_output_tokens: int = Field(0, le=2**31 - 1)
    display_name: str | None = None
    labels: dict[str, str] | None = None
    machine: MachineBody | None = None
    scaling: ScalingBody | None = None


class DeployBody(Body):
    """What to put on the endpoint: ``MODEL@VERSION``, or ``MODEL`` for its newest.

    With ``upstream`` it is a model of that upstream, by the provider's own name of it, which takes
    ``context_tokens`` (0: what most can). Without ``scaling`` a version begins with the endpoint's;
    ``engine`` is llamacpp, or one that the server's settings name.
    """

    model: str
    upstream: str = ""
    context_tokens: int = Field(0, ge=0, le=MOST_TOKENS)
    scaling: ScalingBody | None = None
    engine: str = ""


class SplitBody(Body):
    """Percentages of the traffic by deployment (its id, its ``MODEL@VERSION``, or its version)."""

    split: dict[str, Decimal]


class DeploymentView(RevisedView):
    """A deployment: what it serves, its share, and what is seen of its replicas.

    ``replicas`` are ready of ``wanted_replicas``; absent where nobody says it. A model of an
    upstream has none, and is ready.
    """

    model: str
    version_id: str
    upstream: str
    upstream_model: str
    engine: str
    adapter_sha256: str
    context_tokens: int
    percent: float
    scaling: ScalingView
    state: str
    detail: str
    restarts: int
    replicas: int
    wanted_replicas: int | None
    created_at: datetime


class EndpointView(RevisedView):
    """An endpoint with its deployments; ``rollout`` is the step that moves its traffic, if any."""

    project_id: str
    name: str
    description: str
    max_output_tokens: int
    display_name: str
    labels: dict[str, str]
    dedicated: bool
    region: str
    machine: MachineView
    scaling: ScalingView
    routing: RoutingState
    regions: list[str]
    rollout: str
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
        *scaling_routes(service, operations, ONE),
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

        async def wait(progress: Progress) -> object:
            return await wait_ready(service, deployment, progress)

        return OperationView.of(
            await operations.start(call.actor, KIND_DEPLOY, deployment.id, wait)
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
        traits = msgspec.structs.replace(
            _read_change(body).apply(), is_dedicated=body.dedicated, region=body.region
        )
        async with call.write() as tx:
            made = await service.create_endpoint(
                tx, body.name, body.description, body.max_output_tokens, traits
            )
        return _show(made, [], service.scaling)

    async def list_endpoints(
        call: ApiCall, limit: int = 50, after: str = "", labels: str = ""
    ) -> Page[EndpointView]:
        """List endpoints by name; ``labels`` (``a=b,c=d``) those that have all of them."""
        wanted = read_selector(labels.split(",") if labels else ())
        async with call.read() as tx:
            found = await service.list_endpoints(tx, after, limit + 1, wanted)
            shown = [
                _show(item, await service.list_deployments(tx, item), service.scaling)
                for item in found
            ]
        return make_page(shown, limit, lambda view: view, "name")

    async def get_endpoint(call: ApiCall, endpoint: str) -> EndpointView:
        """Show an endpoint, its deployments and what is seen of them."""
        async with call.read() as tx:
            found = await service.get_endpoint(tx, endpoint)
            return _show(found, await service.list_deployments(tx, found), service.scaling)

    async def change_endpoint(call: ApiCall, endpoint: str, body: EndpointChange) -> EndpointView:
        """Change what an endpoint says of itself, its limit, labels, machine and scaling."""
        async with call.write() as tx:
            found = await service.get_endpoint(tx, endpoint)
            changed = await service.change_endpoint(
                tx,
                endpoint,
                body.description,
                body.max_output_tokens,
                call.expected_rev,
                _read_change(body).apply(found.traits),
            )
            deployments = await service.list_deployments(tx, changed)
        return _show(changed, deployments, service.scaling)

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
        for name in ("scaling", "engine"):
            if getattr(body, name):
                raise PilotageError(
                    "invalid_request",
                    f"{name} is for versions: a model of an upstream has no replicas here.",
                    hint="Leave it out.",
                    param=name,
                )
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
    scaling = body.scaling.to_scaling() if body.scaling else None
    return await service.deploy(tx, endpoint, body.model, scaling, body.engine)


def _show(
    endpoint: Endpoint, deployments: Sequence[Deployment], scaling: ScalingService
) -> EndpointView:
    traits = endpoint.traits
    replicas, loads = scaling.list_replicas(), scaling.list_loads()
    return EndpointView.of(
        endpoint,
        display_name=traits.display_name,
        labels=traits.labels,
        dedicated=traits.is_dedicated,
        region=traits.region or LOCAL,
        machine=MachineView.show(traits.machine),
        scaling=ScalingView.of(traits.scaling),
        routing=show_routing(endpoint.routing, deployments),
        deployments=[
            _show_deployment(
                endpoint, item, [one for one in replicas if item.id in one.serves], loads
            )
            for item in deployments
        ],
    )


def _read_change(body: EndpointBody | EndpointChange) -> TraitsChange:
    return TraitsChange(
        display_name=body.display_name,
        labels=body.labels,
        machine=body.machine,
        scaling=body.scaling,
    )


def _show_deployment(
    endpoint: Endpoint,
    deployment: Deployment,
    seen: Sequence[ReplicaStatus],
    loads: Mapping[str, Load],
) -> DeploymentView:
    load = loads.get(deployment.id)
    return DeploymentView.of(
        deployment,
        upstream=deployment.model.removesuffix(f"/{deployment.upstream_model}")
        if deployment.upstream_id
        else "",
        percent=_percent(endpoint.split.get(deployment.id, 0)),
        scaling=ScalingView.of(deployment.scaling),
        state=describe_state(deployment, seen, load),
        detail=pick_status(seen).detail if seen else "",
        restarts=sum(item.restarts for item in seen),
        replicas=sum(item.state is ReplicaState.READY for item in seen),
        wanted_replicas=load.wanted if load else None,
    )


def _percent(points: int) -> float:
    return points * 100 / FULL_WEIGHT
