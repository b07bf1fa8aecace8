"""The verbs of replays. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilotage.core.errors import PilotageError
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.service import RegistryService
from pilotage.rollouts.replay import store
from pilotage.rollouts.replay.rules import check_plan, draft_evidence, write_report
from pilotage.rollouts.replay.types import Measure, Replay, ReplayPlan, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayAsk:
    """What somebody wants replayed; deployments by id or by what they serve.

    Without a baseline it is the deployment that has the most traffic; with another one a replay
    measures, and is no judgement for gates.
    """

    endpoint: str
    candidate: str
    baseline: str = ""
    samples: int = 200
    since_us: int = 0
    seed: int = 0
    measure: Measure = Measure.USABLE
    margin: float = 0.03
    cap_nano: int = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A replay that may begin, and the names of what is compared.

    It ``judges`` the candidate if no deployment has more traffic than the baseline.
    """

    plan: ReplayPlan
    baseline: Deployment
    candidate: Deployment
    judges: bool

    @property
    def names(self) -> tuple[str, str]:
        """What baseline and candidate serve."""
        return self.baseline.model, self.candidate.model


class ReplayService:
    """Replays: what may be replayed, and what came of it."""

    def __init__(self, clock: Clock, endpoints: EndpointService, registry: RegistryService) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._registry = registry

    async def prepare(self, tx: Tx, ask: ReplayAsk) -> Prepared:
        """Return what is to be replayed; raise ``not_found``, ``conflict``, ``invalid_request``."""
        endpoint = await self._endpoints.get_endpoint(tx, ask.endpoint)
        there = await self._endpoints.list_deployments(tx, endpoint)
        candidate = _find(endpoint, there, ask.candidate, "candidate")
        baseline = (
            _find(endpoint, there, ask.baseline, "baseline")
            if ask.baseline
            else _find_busiest(endpoint, there)
        )
        plan = ReplayPlan(
            project_id=endpoint.project_id,
            alias=endpoint.name,
            baseline=baseline.id,
            candidate=candidate.id,
            samples=ask.samples,
            since_us=ask.since_us,
            seed=ask.seed,
            measure=ask.measure,
            margin=ask.margin,
            cap_nano=ask.cap_nano,
        )
        check_plan(plan)
        share, most = endpoint.split.get(baseline.id, 0), max(endpoint.split.values(), default=0)
        judges = 0 < share == most
        return Prepared(plan=plan, baseline=baseline, candidate=candidate, judges=judges)

    async def record(self, tx: Tx, prepared: Prepared, report: Report) -> Replay:
        """Write what a replay found, and the evidence that it is of the candidate's version."""
        replay_id, version_id = self._clock.new_id("rpl"), prepared.candidate.version_id
        evidence_id = ""
        versions = await self._registry.list_by_ids(tx, [version_id] if version_id else [])
        for version in versions:
            others = await store.count_other_reports(tx, version.id, report.hash)
            draft = draft_evidence(replay_id, report, others, judges=prepared.judges)
            evidence_id = (await self._registry.evidence.add(tx, version, draft)).id
        replay = Replay(
            id=replay_id,
            rev=1,
            project_id=prepared.plan.project_id,
            alias=prepared.plan.alias,
            baseline_id=prepared.baseline.id,
            candidate_id=prepared.candidate.id,
            version_id=version_id,
            hash=report.hash,
            report=write_report(report),
            evidence_id=evidence_id,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        await store.insert_replay(tx, replay)
        await append_revision(tx, "rollouts.replay.recorded", replay.id, 1, replay)
        return replay

    async def get(self, tx: Tx, replay_id: str) -> Replay:
        """Return a replay; raise ``not_found``."""
        replay = await store.find_replay(tx, replay_id)
        if replay is None:
            raise PilotageError(
                "not_found",
                f"There is no replay {replay_id!r}.",
                hint="List them: pilotage replay list",
                param="replay",
            )
        return replay

    async def list(self, tx: Tx, alias: str | None, after: str, limit: int) -> Sequence[Replay]:
        """Return replays behind an id, oldest first, of an endpoint or of all."""
        return await store.list_replays(tx, alias, after, limit)


def _find(endpoint: Endpoint, there: Sequence[Deployment], name: str, param: str) -> Deployment:
    """Return the newest deployment of an id or of what it serves; raise ``not_found``."""
    found = [item for item in there if name in {item.id, item.model}]
    if not found:
        serves = ", ".join(sorted({item.model for item in there})) or "nothing"
        raise PilotageError(
            "not_found",
            f"{endpoint.name!r} has no deployment {name[:80]!r}.",
            hint=f"Deploy it without traffic; the endpoint has: {serves}.",
            param=param,
        )
    return max(found, key=lambda item: item.id)


def _find_busiest(endpoint: Endpoint, there: Sequence[Deployment]) -> Deployment:
    weighed = [item for item in there if endpoint.split.get(item.id)]
    if not weighed:
        raise PilotageError(
            "conflict",
            f"No deployment of {endpoint.name!r} has traffic.",
            hint="Name the baseline.",
            param="baseline",
        )
    return max(weighed, key=lambda item: (endpoint.split[item.id], item.id))
