"""The verbs of rollouts. Never commits: whoever opened the transaction does."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT, Shadow
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import Subject
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.service import RegistryService
from pilotage.rollouts import store
from pilotage.rollouts.advice_rules import advise, forecast
from pilotage.rollouts.plan_rules import hash_ask, make_plan, read_ask, write_ask
from pilotage.rollouts.ports import Sources
from pilotage.rollouts.records import Records, is_resumed
from pilotage.rollouts.rules import judge, judge_alone, judge_pairs
from pilotage.rollouts.types import (
    Ask,
    Judgement,
    Look,
    Measured,
    Measurement,
    Move,
    PlanSpec,
    Preview,
    Progress,
    Rollout,
    State,
    Strategy,
)

PAGE = 50
_NOTHING = Measured(measurement=Measurement(whole={}, step={}, first_seen={}))
START = "rollouts.rollout.start"
STEP = "rollouts.rollout.step"
RESUMED = "rollouts.rollout.resumed"
_JUDGED = frozenset({State.RUNNING, State.HELD, State.KEEPING})
_EVENTS = {
    State.RUNNING: "rollouts.rollout.stepped",
    State.HELD: "rollouts.rollout.held",
    State.KEEPING: "rollouts.rollout.kept",
    State.PROMOTED: "rollouts.rollout.promoted",
    State.ROLLED_BACK: "rollouts.rollout.rolled_back",
    State.FAILED: "rollouts.rollout.failed",
}


class RolloutService:
    """Rollouts: how they begin, what moves them, and what was seen of them."""

    def __init__(
        self,
        clock: Clock,
        governance: GovernanceService,
        registry: RegistryService,
        endpoints: EndpointService,
        sources: Sources,
    ) -> None:
        self._clock = clock
        self._governance = governance
        self._registry = registry
        self._endpoints = endpoints
        self._measuring, self._copies, self._past, self._gateways = sources
        self.records = Records(governance)
        governance.approvals.register(START, self._describe_start)

    async def preview(self, tx: Tx, ask: Ask) -> Preview:
        """Return what a rollout would be and take; nothing begins. Raises what its start would.

        Neither freezes nor missing approvals are in the way.
        """
        arms = await self._find_arms(tx, ask)
        known = await self._past.find_known(tx, arms.endpoint.name, arms.baseline.id)
        plan = make_plan(ask.plan, known)
        return Preview(
            endpoint=arms.endpoint.name,
            baseline=arms.baseline.model,
            candidate=arms.candidate.model,
            plan=plan,
            forecasts=forecast(plan, known),
            advice=advise(plan, known),
            needed=(await self._endpoints.traffic.policies.get(tx)).approvals,
            subject=write_ask(arms.endpoint.name, arms.candidate.model, ask.plan),
        )

    async def start(self, tx: Tx, ask: Ask) -> Rollout:
        """Begin a rollout; the candidate takes no traffic before it is ready.

        Raises ``conflict`` unless one other deployment has all traffic of the endpoint, and no
        other rollout of it runs; ``frozen`` inside a freeze, ``approval_required`` where others
        must agree to traffic.
        """
        if not ask.reason.strip():
            raise PilotageError(
                "invalid_request",
                "A rollout needs a reason.",
                hint="Say what it is for.",
                param="reason",
            )
        arms = await self._find_arms(tx, ask)
        fingerprint = await self._check_agreed(tx, arms, ask.plan)
        known = await self._past.find_known(tx, arms.endpoint.name, arms.baseline.id)
        plan = make_plan(ask.plan, known)
        rollout = Rollout(
            id=self._clock.new_id("rol"),
            rev=1,
            project_id=tx.project_id,
            endpoint_id=arms.endpoint.id,
            endpoint=arms.endpoint.name,
            baseline_id=arms.baseline.id,
            baseline=arms.baseline.model,
            candidate_id=arms.candidate.id,
            candidate=arms.candidate.model,
            plan=plan,
            progress=Progress(since_us=tx.now_us, began_us=tx.now_us),
            reason=ask.reason,
            created_by=tx.actor.principal_id,
            created_at_us=tx.now_us,
            decision_id="",
            fingerprint=fingerprint,
            said="the candidate gets ready",
        )
        if (await self._shift(tx, rollout)).rev != arms.endpoint.rev + 1:
            raise PilotageError(
                "conflict", f"{rollout.endpoint!r} has changed meanwhile.", hint="Try again."
            )
        await append_revision(tx, "rollouts.rollout.started", rollout.id, 1, rollout)
        advice = advise(plan, known)
        decision_id = await self.records.open(tx, rollout, arms.baseline, arms.candidate, advice)
        rollout = replace(rollout, decision_id=decision_id)
        await store.insert_rollout(tx, rollout)
        if plan.strategy is not Strategy.SHADOW:
            await self._measuring.begin(tx, rollout, known)
        return rollout

    async def get(self, tx: Tx, rollout_id: str) -> Rollout:
        """Return a rollout by id; raise ``not_found``."""
        rollout = await store.find_rollout(tx, rollout_id)
        if rollout is None:
            raise PilotageError(
                "not_found",
                f"There is no rollout {rollout_id!r}.",
                hint="List them: pilotage rollout list",
                param="rollout",
            )
        return rollout

    async def list(
        self,
        tx: Tx,
        after: str = "",
        limit: int = PAGE,
        *,
        endpoint: str = "",
        state: State | None = None,
    ) -> Sequence[Rollout]:
        """Return rollouts, newest first, of one endpoint or all."""
        endpoint_id = (await self._endpoints.get_endpoint(tx, endpoint)).id if endpoint else ""
        return await store.list_rollouts(tx, after, limit, endpoint_id=endpoint_id, state=state)

    async def list_running(self, tx: Tx) -> Sequence[Rollout]:
        """Return all rollouts in scope that have not ended, oldest first."""
        return await store.list_running(tx)

    async def list_looks(
        self, tx: Tx, rollout: Rollout, after: str = "", limit: int = PAGE
    ) -> Sequence[Look]:
        """Return the looks at a rollout that were kept, newest first."""
        return await store.list_looks(tx, rollout.id, after, limit)

    async def measure(self, tx: Tx, rollout: Rollout, now_us: int) -> Measured:
        """Return what was measured of a rollout so far, and how long its step has stood."""
        measured = _NOTHING
        if rollout.plan.strategy is not Strategy.SHADOW:
            measured = await self._measuring.read(tx, rollout, now_us)
        now, steps = rollout.progress, rollout.plan.steps
        step = steps[now.step] if 0 <= now.step < len(steps) else None
        timed = replace(
            measured.measurement,
            elapsed_s=max(0, now_us - now.since_us) / 1e6,
            counted_s=max(0, now_us - now.began_us) / 1e6,
            least_s=step.least_us / 1e6 if step else 0.0,
            step_s=step.most_us / 1e6 if step else 0.0,
        )
        return replace(measured, measurement=timed)

    async def judge(self, tx: Tx, rollout: Rollout) -> Judgement | None:
        """Judge what is known now; None in states in which nothing is compared."""
        if rollout.progress.state not in _JUDGED:
            return None
        measured = await self.measure(tx, rollout, tx.now_us)
        if rollout.progress.state is State.KEEPING:
            return judge_alone(measured.measurement.streak)
        plan = rollout.plan
        if plan.strategy is Strategy.SHADOW:
            marks = await self._copies.read_marks(
                tx, rollout.endpoint, rollout.id, rollout.baseline_id
            )
            return judge_pairs(plan.gates[0], marks, measured.measurement, plan.risk)
        return await asyncio.to_thread(
            judge, plan.gates, measured.measurement, measured.ranks, plan.risk, plan.goal
        )

    async def look(self, tx: Tx, rollout: Rollout) -> Look | None:
        """Return the last look, or what one would say now; nobody keeps that, so it has no id."""
        found = await self.list_looks(tx, rollout, "", 1)
        judged = await self.judge(tx, rollout)
        if judged is None or rollout.progress.state is State.KEEPING:
            return found[0] if found else None
        return _make_look("", tx, rollout, judged)

    async def check_may_widen(self, tx: Tx, rollout: Rollout, action: str = STEP) -> None:
        """Raise ``frozen`` inside a freeze, ``conflict`` if the candidate has lost its price.

        More traffic waits for the end of either, less never does.
        """
        await self._governance.check_calendar(tx, action, rollout.endpoint)
        for item in await self._endpoints.list_deployments(tx):
            if item.id == rollout.candidate_id:
                await self._check_priced(tx, item, "candidate")

    async def wait(self, tx: Tx, rollout: Rollout, reason: str) -> bool:
        """Write down why a move that is due is not made yet; False if it has moved meanwhile."""
        if not await store.say(tx, rollout, reason):
            return False
        await self.records.add_wait(tx, rollout, reason)
        return True

    async def keep_look(self, tx: Tx, rollout: Rollout, judged: Judgement) -> Look:
        """Keep what a look said."""
        look = _make_look(self._clock.new_id("lok"), tx, rollout, judged)
        await store.insert_look(tx, look)
        return look

    async def move(
        self, tx: Tx, rollout: Rollout, move: Move, judged: Judgement | None = None
    ) -> Rollout:
        """Make a move: progress, weights and their record in one transaction.

        Raises ``conflict`` if the rollout has moved meanwhile.
        """
        has_ended = move.progress.has_ended
        after = replace(
            rollout,
            rev=rollout.rev + 1,
            progress=move.progress,
            weight=rollout.weight if move.weight is None else move.weight,
            said=move.reason,
            ended_at_us=tx.now_us if has_ended else None,
        )
        if not await store.move_rollout(tx, rollout, after):
            raise PilotageError(
                "conflict", f"{rollout.id} has moved meanwhile.", hint="Look at it again."
            )
        if (after.step_name, after.weight, has_ended) != (rollout.step_name, rollout.weight, False):
            await self._shift(tx, after)
        event = RESUMED if is_resumed(rollout, after) else _EVENTS[move.progress.state]
        await append_revision(tx, event, after.id, after.rev, _show(after), _show(rollout))
        if judged is not None:
            await self.keep_look(tx, rollout, judged)
        await self.records.add_move(tx, rollout, after, judged)
        if has_ended:
            if after.plan.strategy is not Strategy.SHADOW:
                await self._measuring.end(tx, after)
            await self.records.close(tx, after)
            if rollout.progress.state is State.KEEPING and after.weight:
                await self._remove_baseline(tx, after)
        return after

    async def list_unsettled(self, tx: Tx) -> Sequence[Rollout]:
        """Return the rollouts in scope that have ended and are not settled, oldest first."""
        return await store.list_unsettled(tx)

    async def forget(self, tx: Tx, rollout: Rollout) -> bool:
        """Drop some of what was counted of single units; say if there is more."""
        return await self._measuring.forget(tx, rollout)

    async def find_cost(self, tx: Tx, rollout: Rollout) -> int:
        """Return what a rollout has cost, in nano-USD: it may take long to add up."""
        return await self._past.find_cost(tx, rollout)

    async def settle(self, tx: Tx, rollout: Rollout, cost_nano: int) -> None:
        """Record what an ended rollout has cost, once; there is no more to do for it."""
        if await store.settle_rollout(tx, rollout.id):
            await self.records.add_cost(tx, rollout, cost_nano)

    async def find_authors(self, tx: Tx, deployment_id: str) -> frozenset[str]:
        """Return who made the version of a deployment: they do not agree to its traffic."""
        there = await self._endpoints.list_deployments(tx)
        ids = [item.version_id for item in there if item.id == deployment_id and item.version_id]
        made = await self._registry.list_by_ids(tx, ids)
        return frozenset(item.created_by for item in made)

    async def _find_arms(self, tx: Tx, ask: Ask) -> "_Arms":
        """Return what a rollout is about; raise ``conflict`` where there can be none now."""
        endpoint = await self._endpoints.get_endpoint(tx, ask.endpoint)
        there = await self._endpoints.list_deployments(tx, endpoint)
        running = await store.find_running(tx, endpoint.id)
        if running is not None:
            raise PilotageError(
                "conflict",
                f"{endpoint.name!r} has a rollout already, {running.id}.",
                hint=f'End it first: pilotage rollout rollback {running.id} --reason "..."',
            )
        if outdated := self._gateways.list_outdated():
            raise PilotageError(
                "conflict",
                f"Gateways that run apart are too old for rollouts: {', '.join(outdated)}.",
                hint="Upgrade them first: they would end to serve. pilotage gateways list",
            )
        candidate = _find_candidate(endpoint, ask.candidate, there)
        baseline = _find_baseline(endpoint, candidate, there)
        await self._check_priced(tx, baseline, "endpoint")
        await self._check_priced(tx, candidate, "candidate")
        return _Arms(endpoint, baseline, candidate)

    async def _check_priced(self, tx: Tx, arm: Deployment, param: str) -> None:
        """Raise unless calls of an arm have a price: without one it could not be served."""
        upstreams = {item.id: item for item in await self._endpoints.upstreams.list_upstreams(tx)}
        upstream = upstreams.get(arm.upstream_id)
        provider = upstream.provider.value if upstream else ""
        if await self._past.has_price(tx, arm, provider):
            return
        name, version = arm.priced_as
        subject = f"{name}@{version}" if version else name
        raise PilotageError(
            "conflict",
            f"{arm.model} has no price, so that it could not be served.",
            hint=f"Set one: pilotage prices set {subject} --input USD --output USD",
            param=param,
        )

    async def _check_agreed(self, tx: Tx, arms: "_Arms", spec: PlanSpec) -> str:
        """Raise unless a rollout may begin now; return the fingerprint of what was asked for."""
        endpoint, candidate = arms.endpoint, arms.candidate
        fingerprint = hash_ask(endpoint.name, candidate.model, spec)
        is_shadow = spec.strategy == Strategy.SHADOW
        needed = await self._endpoints.admit_rollout(
            tx, endpoint.id, candidate.id, is_shadow=is_shadow
        )
        if is_shadow and endpoint.routing.shadow is not None:
            raise PilotageError(
                "conflict",
                f"{endpoint.name!r} has a shadow already.",
                hint=f"End it first: pilotage endpoints route {endpoint.name} --no-shadow",
            )
        if needed:
            await self._governance.require_approval(
                tx,
                action=START,
                subject_id=f"{endpoint.id} {fingerprint}",
                subject=write_ask(endpoint.name, candidate.model, spec),
                needed=needed,
            )
        return fingerprint

    async def _shift(self, tx: Tx, rollout: Rollout) -> Endpoint:
        """Give the candidate its weight, or copies where the rollout is a shadow.

        An ended rollout leaves the split to people again.
        """
        if (
            rollout.plan.strategy is Strategy.SHADOW
            and rollout.progress.state is not State.PREPARING
        ):
            await self._endpoints.copy_calls(tx, rollout.endpoint_id, _make_shadow(rollout))
        if rollout.progress.state is State.KEEPING:
            endpoint = await self._endpoints.get_endpoint(tx, rollout.endpoint_id)
            until_us = tx.now_us + rollout.plan.keep_us
            await self._endpoints.scaling.keep_awake(tx, endpoint, rollout.baseline_id, until_us)
        split = {
            rollout.baseline_id: FULL_WEIGHT - rollout.weight,
            rollout.candidate_id: rollout.weight,
        }
        if rollout.progress.has_ended:
            split = {arm: weight for arm, weight in split.items() if weight}
            return await self._endpoints.shift(tx, rollout.endpoint_id, split, "", "")
        step, unit = rollout.step_name, rollout.plan.unit
        return await self._endpoints.shift(tx, rollout.endpoint_id, split, step, unit)

    async def _remove_baseline(self, tx: Tx, rollout: Rollout) -> None:
        """Undeploy what is no longer kept warm, unless something else needs it."""
        try:
            await self._endpoints.undeploy(tx, rollout.endpoint_id, rollout.baseline_id)
        except PilotageError as refused:
            await self.records.add_note(
                tx, rollout, f"{rollout.baseline} stays deployed: {refused.detail}"
            )

    async def _describe_start(self, tx: Tx, text: str) -> Subject:
        """Read ``ENDPOINT {"candidate": ...}``: who agrees sees what will be done."""
        name, wanted, spec = read_ask(text)
        endpoint = await self._endpoints.get_endpoint(tx, name)
        there = await self._endpoints.list_deployments(tx, endpoint)
        candidate = _find_candidate(endpoint, wanted, there)
        baseline = _find_baseline(endpoint, candidate, there)
        known = await self._past.find_known(tx, endpoint.name, baseline.id)
        gates = [gate.name for gate in make_plan(spec, known).gates]  # some only if enough is known
        return Subject(
            id=f"{endpoint.id} {hash_ask(endpoint.name, candidate.model, spec)}",
            name=write_ask(endpoint.name, candidate.model, spec),
            state={"baseline": baseline.id, "candidate": candidate.id, "gates": gates},
            authors=await self.find_authors(tx, candidate.id),
        )


class _Arms(NamedTuple):
    """An endpoint, what serves it, and what shall."""

    endpoint: Endpoint
    baseline: Deployment
    candidate: Deployment


def _make_look(look_id: str, tx: Tx, rollout: Rollout, judged: Judgement) -> Look:
    return Look(
        id=look_id,
        rollout_id=rollout.id,
        project_id=rollout.project_id,
        at_us=tx.now_us,
        step=rollout.progress.step,
        weight=rollout.weight,
        judged=judged,
    )


def _make_shadow(rollout: Rollout) -> Shadow | None:
    """Return which calls are copied while a rollout stands where it does."""
    if rollout.progress.has_ended:
        return None
    share = rollout.plan.steps[0].weight
    return Shadow(arm=rollout.candidate_id, share=share, daily_nano=rollout.plan.daily_nano)


def _find_candidate(endpoint: Endpoint, name: str, there: Sequence[Deployment]) -> Deployment:
    found = [item for item in there if name in {item.id, item.model, item.model.rpartition("@")[2]}]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(item.model for item in found)
        raise PilotageError(
            "conflict",
            f"{name[:80]!r} is {len(found)} deployments of {endpoint.name!r}.",
            hint=f"Say which: {several}.",
            param="candidate",
        )
    known = ", ".join(item.model for item in there) or "none"
    raise PilotageError(
        "not_found",
        f"{name[:80]!r} is no deployment of {endpoint.name!r}.",
        hint=f"Deploy it first: pilotage endpoints deploy. There are: {known}.",
        param="candidate",
    )


def _find_baseline(
    endpoint: Endpoint, candidate: Deployment, there: Sequence[Deployment]
) -> Deployment:
    """Return the deployment that has all traffic; raise ``conflict`` if it is none or this one."""
    whole = [item for item in there if endpoint.split.get(item.id, 0) == FULL_WEIGHT]
    if not whole:
        raise PilotageError(
            "conflict",
            f"The traffic of {endpoint.name!r} is not all on one deployment.",
            hint=f"Say which is the baseline: pilotage endpoints split {endpoint.name} MODEL=100",
        )
    if whole[0].id == candidate.id:
        raise PilotageError(
            "conflict",
            f"{candidate.model} has all traffic of {endpoint.name!r} already.",
            hint="Deploy what shall take its place.",
            param="candidate",
        )
    return whole[0]


def _show(rollout: Rollout) -> dict[str, object]:
    """Return what changes of a rollout, as revisions hold it."""
    return {
        "id": rollout.id,
        "state": rollout.progress.state,
        "step": rollout.progress.step,
        "weight": rollout.weight,
        "said": rollout.said,
    }
