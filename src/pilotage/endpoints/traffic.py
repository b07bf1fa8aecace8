"""What every change of traffic passes: the calendar, the release policy, approvals, its record.

A change goes: ``begin`` (what is there, and may it change now), ``check_split`` or ``check_route``
(may these versions serve, has somebody agreed), the change, ``record``. For a change of an upstream
``check_upstream`` asks both. Never commits.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.endpoints import store
from pilotage.endpoints.picture import (
    Picture,
    draw,
    find_way,
    find_way_back,
    list_serving,
    list_versions,
    name_shares,
)
from pilotage.endpoints.policies import ReleasePolicies
from pilotage.endpoints.routing import RoutingSpec, check_within, compile_routing, list_named
from pilotage.endpoints.rules import (
    check_free,
    check_rollout,
    check_upstream,
    compile_split,
    read_shares,
)
from pilotage.endpoints.subjects import identify, read_subject, write_routing, write_upstream
from pilotage.endpoints.types import (
    Deployment,
    Endpoint,
    ReleasePolicy,
    Upstream,
    UpstreamSpec,
    locate,
)
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import Decision, DecisionKind, Subject
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Stage

SPLIT = "endpoints.traffic.split"
ROUTE = "endpoints.traffic.route"
ROLLOUT = "rollouts.rollout.start"
UPSTREAM = "endpoints.upstream.change"
EVERYTHING = 1_000_000
MOST_EVIDENCE = 100


class Traffic:
    """Guards the traffic of endpoints and records what became of it."""

    def __init__(
        self, clock: Clock, governance: GovernanceService, registry: RegistryService
    ) -> None:
        self.policies = ReleasePolicies(clock)
        self._governance = governance
        self._registry = registry
        governance.approvals.register(SPLIT, self._describe_split)
        governance.approvals.register(ROUTE, self._describe_route)
        governance.approvals.register(UPSTREAM, self._describe_upstream)

    async def begin(self, tx: Tx, action: str, endpoint: Endpoint) -> Picture:
        """Return what the traffic looks like; raise ``frozen`` if it may not change now."""
        await self._governance.check_calendar(tx, action, endpoint.name)
        return await self._draw(tx, endpoint)

    async def check_split(
        self,
        tx: Tx,
        endpoint: Endpoint,
        split: Mapping[str, int],
        deployments: Sequence[Deployment],
    ) -> None:
        """Raise unless every arm of a split may serve, and as many as must have agreed to it."""
        after = replace(endpoint, split=dict(split))
        policy = await self.policies.get(tx)
        await self._check_stages(tx, policy, after, deployments)
        if policy.approvals:
            change = name_shares(endpoint.name, draw(after, deployments).moving)
            await self._governance.require_approval(
                tx, action=SPLIT, subject_id=change, subject=change, needed=policy.approvals
            )

    async def check_rollout(
        self,
        tx: Tx,
        endpoint: Endpoint,
        candidate_id: str,
        deployments: Sequence[Deployment],
        *,
        is_shadow: bool = False,
    ) -> int:
        """Raise unless traffic may begin to move to a candidate; return how many must agree to it.

        Asked once: what a rollout does afterwards, it does by what was agreed to. With
        ``is_shadow`` the candidate gets copies of calls only.
        """
        check_rollout(endpoint, candidate_id, is_shadow=is_shadow)
        await store.hold_upstreams(tx, [item.upstream_id for item in deployments])
        upstreams = {item.id: item for item in await store.list_upstreams(tx, "", EVERYTHING)}
        locations = {item.id: locate(item, upstreams, endpoint) for item in deployments}
        check_within(endpoint.regions, [candidate_id], deployments, locations)
        await self._governance.check_calendar(tx, ROLLOUT, endpoint.name)
        policy = await self.policies.get(tx)
        after = replace(endpoint, split={candidate_id: EVERYTHING})
        await self._check_stages(tx, policy, after, deployments)
        return policy.approvals

    async def may_begin(self, tx: Tx) -> bool:
        """Say whether a first deployment gets the traffic at once: not where this is agreed to."""
        return not (await self.policies.get(tx)).approvals

    async def check_route(self, tx: Tx, after: Endpoint, deployments: Sequence[Deployment]) -> None:
        """Raise unless every deployment that routing names may serve, and it is agreed to."""
        policy = await self.policies.get(tx)
        await self._check_stages(tx, policy, after, deployments)
        if policy.approvals:
            change = write_routing(after, deployments)
            await self._governance.require_approval(
                tx,
                action=ROUTE,
                subject_id=identify(after.id, change),
                subject=change,
                needed=policy.approvals,
            )

    async def check_upstream(self, tx: Tx, upstream: Upstream, spec: UpstreamSpec) -> None:
        """Raise unless an upstream may become something else now, wherever its models are used.

        Freezes of the endpoints that use it hold, an override is taken for the upstream; its new
        location has to be within their regions; and it is agreed to where traffic is. While a
        rollout deals calls to its models, it stays that of its provider.
        """
        used = [item async for item in self._list_users(tx, upstream)]
        names = [endpoint.name for endpoint, _ in used]
        await self._governance.check_calendar(tx, UPSTREAM, upstream.name, names)
        for endpoint, arms in used:
            if spec.provider != upstream.provider:  # another provider has other models and prices
                check_free(endpoint)
            there = await store.list_deployments(tx, endpoint.id)
            locations = dict.fromkeys((item.id for item in there), spec.location)
            check_within(endpoint.regions, arms, there, locations)
        policy = await self.policies.get(tx)
        if used and policy.approvals:
            change = write_upstream(upstream, spec)
            await self._governance.require_approval(
                tx,
                action=UPSTREAM,
                subject_id=identify(upstream.id, change),
                subject=change,
                needed=policy.approvals,
            )

    async def _list_users(
        self, tx: Tx, upstream: Upstream
    ) -> AsyncIterator[tuple[Endpoint, set[str]]]:
        """Yield the endpoints that send an upstream calls, or copies of them, and by which arms."""
        placed = await store.list_deployments_of(tx, upstream.id)
        for endpoint_id in dict.fromkeys(item.endpoint_id for item in placed):
            endpoint = await store.find_endpoint(tx, endpoint_id)
            if endpoint is not None:
                arms = {*endpoint.split, *list_named(endpoint.routing)}
                arms &= {item.id for item in placed}
                if arms:
                    yield endpoint, arms

    async def record(
        self, tx: Tx, kind: DecisionKind, before: Picture, *, is_forced: bool = False
    ) -> Decision:
        """Record what a change has made of the traffic; ``DELETE`` leaves none."""
        after = None
        if kind is not DecisionKind.DELETE:
            endpoint = await store.find_endpoint(tx, before.endpoint_id)
            after = await self._draw(tx, endpoint) if endpoint else None
        moved = list(list_versions(before, after))
        decision = await self._governance.record_change(
            tx,
            kind=kind,
            subject_id=before.endpoint_id,
            subject=before.name,
            before=before.to_json(),
            after=after.to_json() if after else None,
            evidence=await self._list_evidence(tx, moved),
            is_forced=is_forced,
        )
        for side, deployment in moved:
            if deployment.version_id:
                said = {
                    "side": side,
                    "version_id": deployment.version_id,
                    "version": deployment.model,
                    "artifact_sha256": deployment.artifact_sha256,
                }
                await self._governance.add_fact(tx, decision.id, "version", said)
        plan = {"way": find_way(before, after)}
        await self._governance.add_fact(tx, decision.id, "plan", plan)
        back, command = find_way_back(before, after)
        if command:
            way = {"to": back, "command": command}
            await self._governance.add_fact(tx, decision.id, "rollback", way)
        return decision

    async def find_obstacle(self, tx: Tx, version_id: str, stage: Stage) -> str:
        """Say why a version cannot go to a stage: it serves traffic that this may not serve."""
        if stage.reaches((await self.policies.get(tx)).serve_from_stage):
            return ""
        for deployment in await store.list_deployments_of_version(tx, version_id):
            endpoint = await store.find_endpoint(tx, deployment.endpoint_id)
            if endpoint is not None and deployment.id in list_serving(endpoint):
                return f"it serves traffic of {endpoint.name}"
        return ""

    async def _check_stages(
        self,
        tx: Tx,
        policy: ReleasePolicy,
        endpoint: Endpoint,
        deployments: Sequence[Deployment],
    ) -> None:
        serving = set(list_serving(endpoint))
        ids = [item.version_id for item in deployments if item.id in serving and item.version_id]
        lowest = policy.serve_from_stage
        held = await self._registry.hold_versions(tx, ids)
        there = {version.id for version in held}
        for item in deployments:
            if item.version_id in ids and item.version_id not in there:
                raise PilotageError(
                    "conflict",
                    f"{item.model} has been deleted: it may serve no traffic.",
                    hint=f"Undeploy it: pilotage endpoints undeploy {endpoint.name} {item.model}",
                )
        for version in held:
            if Stage(version.stage).reaches(lowest):
                continue
            what = f"versions from {lowest} on" if lowest != Stage.DEVELOPMENT else "no archived"
            raise PilotageError(
                "conflict",
                f"{version.ref} is in {version.stage}: here {what} may serve traffic.",
                hint=f'Promote it first: pilotage models promote {version.ref} --reason "..."',
            )

    async def _list_evidence(self, tx: Tx, moved: Sequence[tuple[str, Deployment]]) -> list[str]:
        found: list[str] = []
        for side, deployment in moved:
            if side == "after" and deployment.version_id:
                known = await self._registry.list_evidence(tx, deployment.version_id)
                found += [item.id for item in known]
        return found[:MOST_EVIDENCE]

    async def _draw(self, tx: Tx, endpoint: Endpoint) -> Picture:
        return draw(endpoint, await store.list_deployments(tx, endpoint.id))

    async def _describe_split(self, tx: Tx, text: str) -> Subject:
        """Read ``ENDPOINT MODEL@VERSION=PERCENT,...``: who agrees sees what will be."""
        name, _, shares = text.strip('"').partition(" ")
        endpoint = await _get_endpoint(tx, name)
        there = await store.list_deployments(tx, endpoint.id)
        split = compile_split(read_shares(shares), there)
        change = name_shares(name, draw(replace(endpoint, split=split), there).moving)
        now = draw(endpoint, there)
        state = {
            "endpoint": endpoint.id,
            "rev": endpoint.rev,
            "shares": now.moving,
            "routing": now.routing,
        }
        authors = await self._find_authors(tx, split, there)
        return Subject(id=change, name=change, state=state, authors=authors)

    async def _describe_route(self, tx: Tx, text: str) -> Subject:
        """Read ``ENDPOINT {...}``, the routing as it shall be: who agrees sees all of it."""
        name, spec = read_subject(text, RoutingSpec)
        endpoint = await _get_endpoint(tx, name)
        there = await store.list_deployments(tx, endpoint.id)
        upstreams = {item.id: item for item in await store.list_upstreams(tx, "", EVERYTHING)}
        locations = {item.id: locate(item, upstreams, endpoint) for item in there}
        routing, regions = compile_routing(spec, endpoint, there, locations)
        change = write_routing(replace(endpoint, routing=routing, regions=regions), there)
        state = {"rev": endpoint.rev, "now": draw(endpoint, there).to_json()}
        authors = await self._find_authors(tx, list_named(routing), there)
        return Subject(id=identify(endpoint.id, change), name=change, state=state, authors=authors)

    async def _describe_upstream(self, tx: Tx, text: str) -> Subject:
        """Read ``UPSTREAM {...}``: what is said of it as it shall be."""
        name, spec = read_subject(text, UpstreamSpec)
        upstream = await store.find_upstream(tx, name)
        if upstream is None or upstream.deleted_at_us is not None:
            raise PilotageError("not_found", f"There is no upstream {name!r}.", param="subject")
        change = write_upstream(upstream, check_upstream(spec))
        return Subject(id=identify(upstream.id, change), name=change, state={"rev": upstream.rev})

    async def _find_authors(
        self, tx: Tx, arms: Collection[str], there: Sequence[Deployment]
    ) -> frozenset[str]:
        """Return who made the versions behind some arms: they do not agree to their traffic."""
        ids = [item.version_id for item in there if item.id in arms and item.version_id]
        return frozenset(item.created_by for item in await self._registry.list_by_ids(tx, ids))


async def _get_endpoint(tx: Tx, name_or_id: str) -> Endpoint:
    endpoint = await store.find_endpoint(tx, name_or_id)
    if endpoint is None or endpoint.deleted_at_us is not None:
        raise PilotageError("not_found", f"There is no endpoint {name_or_id!r}.", param="subject")
    return endpoint
