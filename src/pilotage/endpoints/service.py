"""The verbs of endpoints. Never commits.

Every change of traffic is one guarded write of one row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

from msgspec import structs

from pilotage.core.addresses import check_model
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_alias
from pilotage.core.snapshot import FULL_WEIGHT, Routing, Shadow
from pilotage.endpoints import store
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.routing import (
    RoutingSpec,
    check_within,
    compile_routing,
    drop_deployment,
    is_routed,
)
from pilotage.endpoints.rules import (
    check_free,
    check_shift,
    compile_split,
    is_named,
    is_settled,
)
from pilotage.endpoints.runnable import check_engine, find_runnable
from pilotage.endpoints.scaling import ScalingService
from pilotage.endpoints.scaling_rules import check_scaling
from pilotage.endpoints.traffic import Traffic
from pilotage.endpoints.trait_rules import check_same_place, check_traits, is_selected
from pilotage.endpoints.types import (
    PLAIN_ROUTING,
    PLAIN_TRAITS,
    Deployment,
    Endpoint,
    ReplicaStatus,
    Scaling,
    Traits,
    locate,
)
from pilotage.endpoints.upstreams import UpstreamService
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Node, NodeKind

EVERYTHING = 1_000_000
FIRST_AWAKE_US = 15_000_000  # of one that may sleep: it is to show that it starts


class EndpointService:
    """Endpoints, their deployments, how traffic finds one; ``upstreams``, ``scaling`` beside.

    Each change of ``traffic`` is checked and recorded there. Whatever moves traffic holds its
    endpoint from the beginning, so that of two changes one waits and sees what the other made.
    """

    def __init__(
        self,
        clock: Clock,
        identity: IdentityService,
        registry: RegistryService,
        fleet: Fleet,
        *,
        governance: GovernanceService | None = None,
        engines: Collection[str] = (),
    ) -> None:
        governance = governance or GovernanceService(clock, identity)
        self.traffic = Traffic(clock, governance, registry)
        self.upstreams = UpstreamService(clock, governance, self.traffic)
        self._clock = clock
        self._identity = identity
        self._registry = registry
        self._fleet = fleet
        self.scaling = ScalingService(fleet)
        self._engines = engines

    async def create_endpoint(
        self,
        tx: Tx,
        name: str,
        description: str = "",
        max_output_tokens: int = 0,
        traits: Traits = PLAIN_TRAITS,
    ) -> Endpoint:
        """Create an endpoint: a model name that clients send.

        ``max_output_tokens`` 0 allows what the model's context does.
        """
        check_alias(name)
        check_traits(traits)
        if await store.find_endpoint(tx, name):
            raise PilotageError(
                "already_exists", f"There is an endpoint {name!r} already.", param="name"
            )
        _check_limit(max_output_tokens)
        endpoint = Endpoint(
            id=self._clock.new_id("end"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            description=description,
            max_output_tokens=max_output_tokens,
            salt=self._clock.new_id("salt"),
            split={},
            created_at_us=tx.now_us,
            deleted_at_us=None,
            traits=traits,
        )
        await store.insert_endpoint(tx, endpoint)
        await append_revision(tx, "endpoints.endpoint.created", endpoint.id, 1, endpoint)
        return endpoint

    async def get_endpoint(self, tx: Tx, name_or_id: str) -> Endpoint:
        """Return a living endpoint by name or id; raise ``not_found``."""
        endpoint = await store.find_endpoint(tx, name_or_id)
        if endpoint is None or endpoint.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no endpoint {name_or_id!r}.",
                hint="List them: pilotage endpoints list",
            )
        return endpoint

    async def change_endpoint(
        self,
        tx: Tx,
        name_or_id: str,
        description: str,
        max_output_tokens: int,
        expected_rev: int | None = None,
        traits: Traits | None = None,
    ) -> Endpoint:
        """Change what an endpoint says of itself and what it allows; its traffic stays as it is.

        Without ``traits`` they stay as they are.
        """
        endpoint = await self.get_endpoint(tx, name_or_id)
        _check_rev(endpoint, expected_rev)
        _check_limit(max_output_tokens)
        traits = endpoint.traits if traits is None else check_traits(traits)
        check_same_place(endpoint.traits, traits)
        after = {
            "description": description,
            "max_output_tokens": max_output_tokens,
            "traits": traits,
        }
        before = {name: getattr(endpoint, name) for name in after}
        if after == before:
            return endpoint
        if not await store.change_endpoint(tx, endpoint, **after):
            raise PilotageError(
                "precondition_failed", f"{endpoint.name!r} has changed meanwhile. Read it again."
            )
        await append_revision(
            tx, "endpoints.endpoint.changed", endpoint.id, endpoint.rev + 1, after, before
        )
        return await self.get_endpoint(tx, endpoint.id)

    async def list_endpoints(
        self,
        tx: Tx,
        after: str = "",
        limit: int = EVERYTHING,
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> Sequence[Endpoint]:
        """Return living endpoints that have all of some labels, by name."""
        if not labels:
            return await store.list_endpoints(tx, after, limit)
        found = await store.list_endpoints(tx, after, EVERYTHING)
        return [item for item in found if is_selected(item, labels)][:limit]

    async def list_deployments(
        self, tx: Tx, endpoint: Endpoint | None = None
    ) -> Sequence[Deployment]:
        """Return the living deployments of an endpoint, or all there are in scope."""
        return await store.list_deployments(tx, endpoint.id if endpoint else None)

    async def deploy(
        self,
        tx: Tx,
        endpoint_name: str,
        model: str,
        scaling: Scaling | None = None,
        engine: str = "",
    ) -> Deployment:
        """Put a model version (``MODEL@VERSION``, or ``MODEL`` for its newest) on an endpoint.

        Without ``scaling`` it begins with the endpoint's. ``engine`` is llama.cpp unless said. A
        version that is an adapter answers from the replicas of its base.

        The first deployment of an endpoint gets all its traffic, a later one none until a split;
        where others must agree to changes of traffic, the first gets none either.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_name)
        found = await self._registry.get_version(tx, model)
        await self._registry.hold_versions(tx, [found.id])
        version = await self._registry.get_version(tx, found.id)
        engine = check_engine(engine, self._engines)
        files = await find_runnable(tx, self._registry, version, engine)
        there = await store.list_deployments(tx, endpoint.id)
        for other in there:
            if other.version_id == version.id:
                raise PilotageError(
                    "already_exists", f"{other.model} is deployed on {endpoint.name!r} already."
                )
        deployment = Deployment(
            id=self._clock.new_id("dep"),
            rev=1,
            project_id=endpoint.project_id,
            endpoint_id=endpoint.id,
            version_id=version.id,
            model=version.ref,
            artifact_sha256=files.artifact_sha256,
            engine=engine,
            context_tokens=version.context_tokens,
            created_at_us=tx.now_us,
            deleted_at_us=None,
            scaling=check_scaling(endpoint.traits.scaling if scaling is None else scaling),
            awake_until_us=tx.now_us + FIRST_AWAKE_US,
            adapter_sha256=files.adapter_sha256,
        )
        return await self._add_deployment(tx, endpoint, deployment)

    async def deploy_upstream(
        self, tx: Tx, endpoint_name: str, upstream_name: str, model: str, context_tokens: int = 0
    ) -> Deployment:
        """Put a model of an upstream, by the provider's own name of it, on an endpoint.

        ``context_tokens`` is what the model can take; 0: what most can.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_name)
        upstream = await self.upstreams.hold_upstream(tx, upstream_name)
        check_model(model)
        for other in await store.list_deployments(tx, endpoint.id):
            if (other.upstream_id, other.upstream_model) == (upstream.id, model):
                raise PilotageError(
                    "already_exists", f"{other.model} is deployed on {endpoint.name!r} already."
                )
        deployment = Deployment(
            id=self._clock.new_id("dep"),
            rev=1,
            project_id=endpoint.project_id,
            endpoint_id=endpoint.id,
            version_id="",
            model=f"{upstream.name}/{model}",
            artifact_sha256="",
            engine="",
            context_tokens=context_tokens,
            created_at_us=tx.now_us,
            deleted_at_us=None,
            upstream_id=upstream.id,
            upstream_model=model,
        )
        return await self._add_deployment(tx, endpoint, deployment)

    async def _add_deployment(
        self, tx: Tx, endpoint: Endpoint, deployment: Deployment
    ) -> Deployment:
        before = await self.traffic.begin(tx, "endpoints.traffic.deploy", endpoint)
        await store.insert_deployment(tx, deployment)
        await append_revision(tx, "endpoints.deployment.created", deployment.id, 1, deployment)
        if deployment.version_id:
            version = Node(NodeKind.VERSION, deployment.version_id)
            placed = Node(NodeKind.DEPLOYMENT, deployment.id)
            await self._registry.add_edge(tx, version, placed, "deployed_as", deployment.project_id)
        if not endpoint.split and await self.traffic.may_begin(tx):
            split = {deployment.id: FULL_WEIGHT}
            there = await store.list_deployments(tx, endpoint.id)
            await self.traffic.check_split(tx, endpoint, split, there)
            await self._set_split(tx, endpoint, split)
        await self.traffic.record(tx, DecisionKind.DEPLOY, before)
        return deployment

    async def split(
        self,
        tx: Tx,
        endpoint_name: str,
        percents: Mapping[str, Decimal],
        expected_rev: int | None = None,
    ) -> Endpoint:
        """Move the traffic of an endpoint: percentages by deployment, which must sum to 100."""
        endpoint = await self._hold_endpoint(tx, endpoint_name)
        _check_rev(endpoint, expected_rev)
        check_free(endpoint)
        deployments = await store.list_deployments(tx, endpoint.id)
        split = compile_split(percents, deployments)
        shadow = endpoint.routing.shadow
        if shadow is not None and shadow.arm in split:
            raise PilotageError(
                "conflict",
                f"The shadow of {endpoint.name!r} may take no traffic itself.",
                hint="End the shadow first: pilotage endpoints route --no-shadow",
            )
        locations = await self._hold_locations(tx, endpoint, deployments)
        check_within(endpoint.regions, split, deployments, locations)
        before = await self.traffic.begin(tx, "endpoints.traffic.split", endpoint)
        await self.traffic.check_split(tx, endpoint, split, deployments)
        changed = await self._set_split(tx, endpoint, split)
        await self.traffic.record(tx, DecisionKind.SPLIT, before)
        return changed

    async def admit_rollout(
        self, tx: Tx, endpoint_id: str, candidate_id: str, *, is_shadow: bool = False
    ) -> int:
        """Check that a rollout may begin to move an endpoint's traffic to one of its deployments.

        Return how many must have agreed; whoever asks sees to that, for they agree to a rollout.
        With ``is_shadow`` the candidate gets copies of calls only.
        Raises ``conflict`` for what cannot be rolled out, ``frozen`` if nothing may change now.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_id)
        deployments = await store.list_deployments(tx, endpoint.id)
        return await self.traffic.check_rollout(
            tx, endpoint, candidate_id, deployments, is_shadow=is_shadow
        )

    async def shift(
        self, tx: Tx, endpoint_id: str, split: Mapping[str, int], rollout: str, unit: str
    ) -> Endpoint:
        """Move the traffic of an endpoint as its rollout says: basis points by deployment id.

        ``rollout`` is the step (``ROLLOUT_ID/STEP``) from now on, ``unit`` what its coin is tossed
        for; "" for both ends it. Neither calendar nor approval is asked: :meth:`admit_rollout` did
        so, and the way back is never barred. Raises ``conflict`` where another rollout runs.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_id)
        check_shift(endpoint, split, rollout, await store.list_deployments(tx, endpoint.id))
        after = {"split": dict(split), "rollout": rollout, "unit": str(unit)}
        before = {name: getattr(endpoint, name) for name in after}
        if after == before:
            return endpoint
        return await self._change_split(tx, endpoint, after, before)

    async def copy_calls(self, tx: Tx, endpoint_id: str, shadow: Shadow | None) -> Endpoint:
        """Copy calls of an endpoint to a deployment as its rollout says; None: no more.

        As with :meth:`shift`, :meth:`admit_rollout` has checked it.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_id)
        routing = structs.replace(endpoint.routing, shadow=shadow)
        return await self._set_routing(tx, endpoint, routing, endpoint.regions)

    async def route(
        self, tx: Tx, endpoint_name: str, spec: RoutingSpec, expected_rev: int | None = None
    ) -> Endpoint:
        """Replace how an endpoint's calls find their deployment, and in which regions.

        Raises ``invalid_request`` for what cannot be, ``not_found`` for an unknown tenant.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_name)
        _check_rev(endpoint, expected_rev)
        deployments = await store.list_deployments(tx, endpoint.id)
        check_free(endpoint)
        locations = await self._hold_locations(tx, endpoint, deployments)
        rules = [
            replace(
                rule, tenants=[(await self._identity.get_tenant(tx, t)).name for t in rule.tenants]
            )
            for rule in spec.rules
        ]
        spec = replace(spec, rules=rules)
        routing, regions = compile_routing(spec, endpoint, deployments, locations)
        if (routing, regions) == (endpoint.routing, endpoint.regions):
            return endpoint
        before = await self.traffic.begin(tx, "endpoints.traffic.route", endpoint)
        after = replace(endpoint, routing=routing, regions=regions)
        await self.traffic.check_route(tx, after, deployments)
        changed = await self._set_routing(tx, endpoint, routing, regions)
        await self.traffic.record(tx, DecisionKind.ROUTE, before)
        return changed

    async def undeploy(
        self, tx: Tx, endpoint_name: str, deployment_name: str, *, is_forced: bool = False
    ) -> None:
        """Remove a deployment; refused while it takes traffic or routing names it, unless forced.

        A rule that would be left without a deployment is refused even then.
        """
        endpoint = await self._hold_endpoint(tx, endpoint_name)
        deployment = await self._get_deployment(tx, endpoint, deployment_name)
        if deployment.id in endpoint.split:
            check_free(endpoint)
        is_needed = not is_settled(endpoint, deployment) or is_routed(endpoint, deployment)
        before = await self.traffic.begin(tx, "endpoints.traffic.undeploy", endpoint)
        await self._undeploy(tx, endpoint, deployment, is_forced=is_forced)
        kind = DecisionKind.UNDEPLOY
        await self.traffic.record(tx, kind, before, is_forced=is_forced and is_needed)

    async def delete_endpoint(self, tx: Tx, name_or_id: str, *, is_forced: bool = False) -> None:
        """Delete an endpoint; refused while it has deployments, unless forced."""
        endpoint = await self._hold_endpoint(tx, name_or_id)
        check_free(endpoint)
        deployments = await store.list_deployments(tx, endpoint.id)
        if deployments and not is_forced:
            raise PilotageError(
                "conflict",
                f"{endpoint.name!r} has {len(deployments)} deployments.",
                hint="Undeploy them, or use force.",
            )
        before = await self.traffic.begin(tx, "endpoints.traffic.delete", endpoint)
        endpoint = await self._set_routing(tx, endpoint, PLAIN_ROUTING, endpoint.regions)
        for deployment in deployments:
            await self._undeploy(tx, endpoint, deployment, is_forced=True)
            endpoint = await self.get_endpoint(tx, endpoint.id)
        if not await store.change_endpoint(
            tx, endpoint, name=f"{endpoint.name}~{endpoint.id}", deleted_at_us=tx.now_us
        ):
            raise PilotageError("precondition_failed", f"{endpoint.name!r} has changed meanwhile.")
        await append_revision(
            tx,
            "endpoints.endpoint.deleted",
            endpoint.id,
            endpoint.rev + 1,
            {"id": endpoint.id},
            endpoint,
        )
        kind, is_cut = DecisionKind.DELETE, bool(before.serving)
        await self.traffic.record(tx, kind, before, is_forced=is_cut)

    async def is_deployed(self, tx: Tx, version_id: str) -> bool:
        """Say whether a model version is deployed anywhere."""
        return await store.has_deployment(tx, version_id)

    def list_statuses(self) -> Mapping[str, ReplicaStatus]:
        """Return what was last seen of each deployment: of a ready replica, if there is one."""
        return self.scaling.find_status()

    @property
    def has_fleet(self) -> bool:
        """Whether replicas can run now."""
        return self._fleet.is_present

    async def _hold_endpoint(self, tx: Tx, name_or_id: str) -> Endpoint:
        """Return an endpoint as it stays until this transaction ends, its deployments too."""
        found = await self.get_endpoint(tx, name_or_id)
        await store.hold_endpoint(tx, found.id)
        return await self.get_endpoint(tx, found.id)

    async def _hold_locations(
        self, tx: Tx, endpoint: Endpoint, deployments: Sequence[Deployment]
    ) -> Mapping[str, str]:
        """Return where deployments answer until this transaction ends; "" where nobody said it."""
        await store.hold_upstreams(tx, [item.upstream_id for item in deployments])
        upstreams = {item.id: item for item in await self.upstreams.list_upstreams(tx)}
        return {item.id: locate(item, upstreams, endpoint) for item in deployments}

    async def _get_deployment(self, tx: Tx, endpoint: Endpoint, name: str) -> Deployment:
        for deployment in await store.list_deployments(tx, endpoint.id):
            if is_named(deployment, name):
                return deployment
        raise PilotageError("not_found", f"{endpoint.name!r} has no deployment {name!r}.")

    async def _undeploy(
        self, tx: Tx, endpoint: Endpoint, deployment: Deployment, *, is_forced: bool
    ) -> None:
        if not is_settled(endpoint, deployment):
            if not is_forced:
                raise PilotageError(
                    "deployment_serves_traffic",
                    f"{deployment.model} takes traffic of {endpoint.name!r}.",
                    hint=f"Move it first: pilotage endpoints split {endpoint.name} OTHER=100",
                )
            endpoint = await self._set_split(tx, endpoint, {})
        if is_routed(endpoint, deployment):
            if not is_forced:
                raise PilotageError(
                    "conflict",
                    f"The routing of {endpoint.name!r} names {deployment.model}.",
                    hint="Change it first: pilotage endpoints route, or use force.",
                )
            routing = drop_deployment(endpoint.routing, deployment)
            await self._set_routing(tx, endpoint, routing, endpoint.regions)
        if not await store.mark_deployment_deleted(tx, deployment):
            raise PilotageError("precondition_failed", f"{deployment.model} has changed meanwhile.")
        await append_revision(
            tx,
            "endpoints.deployment.deleted",
            deployment.id,
            deployment.rev + 1,
            {"id": deployment.id},
            deployment,
        )

    async def _set_split(self, tx: Tx, endpoint: Endpoint, split: dict[str, int]) -> Endpoint:
        return await self._change_split(tx, endpoint, {"split": split}, {"split": endpoint.split})

    async def _change_split(
        self, tx: Tx, endpoint: Endpoint, after: Mapping[str, object], before: Mapping[str, object]
    ) -> Endpoint:
        if not await store.change_endpoint(tx, endpoint, **after):
            raise PilotageError(
                "precondition_failed", f"{endpoint.name!r} has changed meanwhile. Read it again."
            )
        await append_revision(
            tx, "endpoints.endpoint.split", endpoint.id, endpoint.rev + 1, after, before
        )
        return await self.get_endpoint(tx, endpoint.id)

    async def _set_routing(
        self, tx: Tx, endpoint: Endpoint, routing: Routing, regions: tuple[str, ...]
    ) -> Endpoint:
        if (routing, regions) == (endpoint.routing, endpoint.regions):
            return endpoint
        if not await store.change_endpoint(tx, endpoint, routing=routing, regions=regions):
            raise PilotageError(
                "precondition_failed", f"{endpoint.name!r} has changed meanwhile. Read it again."
            )
        await append_revision(
            tx,
            "endpoints.endpoint.routed",
            endpoint.id,
            endpoint.rev + 1,
            {"routing": routing, "regions": regions},
            {"routing": endpoint.routing, "regions": endpoint.regions},
        )
        return await self.get_endpoint(tx, endpoint.id)


def _check_limit(max_output_tokens: int) -> None:
    if max_output_tokens < 0:
        raise PilotageError(
            "invalid_request", "max_output_tokens cannot be negative.", param="max_output_tokens"
        )


def _check_rev(endpoint: Endpoint, expected_rev: int | None) -> None:
    if expected_rev is not None and expected_rev != endpoint.rev:
        raise PilotageError(
            "precondition_failed",
            f"{endpoint.name!r} is at revision {endpoint.rev}, not {expected_rev}.",
            hint="Read it again and decide anew.",
        )
