"""The verbs of stages: assess a version against a stage's gates, and move it. Never commits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import Decision, DecisionKind
from pilotage.kit.clock import Clock, rfc3339
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import gate_store, store
from pilotage.registry.gates import (
    DEFAULT_APPROVALS,
    DEFAULT_CHECKS,
    Check,
    GateFacts,
    GatePolicy,
    GateResult,
    GateState,
    assess,
    check_policy,
    describe_failures,
)
from pilotage.registry.service import RegistryService
from pilotage.registry.stages import MOVES, Move, decide_move
from pilotage.registry.subjects import STAGE_KINDS, VersionSubjects
from pilotage.registry.types import NamedVersion, Stage

PROMOTE = "registry.version.promote"
FOUR_EYES = "four_eyes"
_KINDS = {
    Move.PROMOTE: DecisionKind.PROMOTE,
    Move.RESTORE: DecisionKind.PROMOTE,
    Move.DEMOTE: DecisionKind.DEMOTE,
    Move.ARCHIVE: DecisionKind.ARCHIVE,
}


class FindObstacle(Protocol):
    """Says what keeps a version from a stage: traffic that this stage may not serve."""

    async def __call__(self, tx: Tx, version_id: str, stage: Stage, /) -> str:
        """Return it in words; empty if there is nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the gates of a stage say of a version, the approval among them."""

    version: NamedVersion
    stage: Stage
    results: Sequence[GateResult]

    @property
    def may_pass(self) -> bool:
        """Say whether every gate lets it through."""
        return all(result.has_passed for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A change of stage that was made, and its record."""

    version: NamedVersion
    before: Stage
    decision_id: str
    results: Sequence[GateResult]


class Promotions:
    """Moves versions between stages through their gates; the only writer of stages."""

    def __init__(
        self,
        clock: Clock,
        registry: RegistryService,
        governance: GovernanceService,
        find_obstacle: FindObstacle,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._governance = governance
        self._find_obstacle = find_obstacle
        governance.approvals.register(PROMOTE, VersionSubjects(registry, governance))

    # stages

    async def promote(
        self, tx: Tx, ref: str, stage: Stage, expected_rev: int | None = None
    ) -> Promotion:
        """Move a version to a stage; the transaction's reason is why.

        Raises ``conflict`` for a way there is not, and whoever comes second learns who was first;
        ``gate_failed`` with every gate that did not pass, ``approval_required``, ``frozen``.
        """
        found = await self._registry.get_version(tx, ref)
        (version,) = await self._registry.hold_versions(tx, [found.id], to_change=True)
        before = Stage(version.stage)
        if before is stage or expected_rev not in (None, version.rev):
            raise await self._explain_late(tx, version, stage)
        move = decide_move(version.ref, before, stage, tx.actor.reason)
        await self._governance.check_calendar(tx, PROMOTE, version.ref)  # its model's freezes too
        obstacle = await self._find_obstacle(tx, version.id, stage)
        if obstacle:
            raise PilotageError(
                "conflict",
                f"{version.ref} cannot go to {stage}: {obstacle}.",
                hint="Move the traffic first: pilotage endpoints split",
            )
        results = await self._pass_gates(tx, version, stage) if move is Move.PROMOTE else []
        if not await store.change_version(tx, version, stage=stage):
            raise await self._explain_late(tx, version, stage)
        after, was = {"id": version.id, "ref": version.ref, "stage": stage}, {"stage": before}
        event = "registry.version.promoted"
        await append_revision(tx, event, version.id, version.rev + 1, after, was)
        decision = await self._record(tx, version, _KINDS[move], before, stage, results)
        moved = await self._registry.get_version(tx, version.id)
        return Promotion(version=moved, before=before, decision_id=decision.id, results=results)

    async def assess(self, tx: Tx, ref: str, stage: Stage) -> Assessment:
        """Return what the gates of a stage say of a version, without changing anything."""
        version = await self._registry.get_version(tx, ref)
        policy = await self.get_policy(tx, stage)
        results = [_assess_way(version, stage), *await self._assess(tx, version, policy)]
        if policy.approvals:
            results.append(await self._assess_approval(tx, version, policy))
        return Assessment(version=version, stage=stage, results=results)

    # policies

    async def get_policy(self, tx: Tx, stage: Stage) -> GatePolicy:
        """Return what a stage asks; until somebody says, the default."""
        if stage not in DEFAULT_APPROVALS:
            raise PilotageError(
                "not_found",
                f"{stage} has no gates.",
                hint=f"Gates stand before {' and '.join(DEFAULT_APPROVALS)}.",
                param="stage",
            )
        return await gate_store.find_policy(tx, stage) or GatePolicy(
            id=f"default-{stage}",
            rev=0,
            project_id=tx.project_id,
            stage=stage,
            checks=DEFAULT_CHECKS,
            approvals=DEFAULT_APPROVALS[stage],
        )

    async def list_policies(self, tx: Tx) -> Sequence[GatePolicy]:
        """Return what each stage asks, in the order of the stages."""
        return [await self.get_policy(tx, stage) for stage in DEFAULT_APPROVALS]

    async def replace_policy(
        self,
        tx: Tx,
        stage: Stage,
        checks: Sequence[Check],
        approvals: int,
        expected_rev: int | None = None,
    ) -> GatePolicy:
        """Replace what a stage asks; raise ``precondition_failed`` if it has changed."""
        before = await self.get_policy(tx, stage)
        wanted = check_policy(stage, checks, approvals)
        is_expected = expected_rev in (None, before.rev)
        if is_expected and (wanted, approvals) == (before.checks, before.approvals):
            return before
        after = replace(
            before,
            id=before.id if before.rev else self._clock.new_id("gat"),
            rev=before.rev + 1,
            checks=wanted,
            approvals=approvals,
            changed_at_us=tx.now_us,
            changed_by=tx.actor.principal_id,
        )
        if not is_expected or not await gate_store.put_policy(tx, before, after):
            raise PilotageError(
                "precondition_failed",
                f"The gates of {stage} have changed meanwhile.",
                hint="Read them again and decide anew.",
            )
        event = "registry.gate_policy.changed"
        await append_revision(tx, event, after.id, after.rev, after, before)
        return after

    # what a promotion is made of

    async def _pass_gates(
        self, tx: Tx, version: NamedVersion, stage: Stage
    ) -> Sequence[GateResult]:
        policy = await self.get_policy(tx, stage)
        results = await self._assess(tx, version, policy)
        stopped = [result for result in results if not result.has_passed]
        if stopped:
            commands = dict.fromkeys(result.command for result in stopped if result.command)
            raise PilotageError(
                "gate_failed",
                f"{version.ref} may not go to {stage}: {describe_failures(results)}.",
                hint="; ".join(commands)
                or f"Look closer: pilotage models promote {version.ref} {stage} --dry-run",
                param="stage",
            )
        if policy.approvals:
            await self._governance.require_approval(
                tx,
                action=f"{PROMOTE}:{stage}",
                subject_id=version.id,
                subject=version.ref,
                needed=policy.approvals,
            )
        return results

    async def _assess(self, tx: Tx, version: NamedVersion, policy: GatePolicy) -> list[GateResult]:
        size = None
        if version.artifact_sha256 is not None:
            size = (await self._registry.get_artifact(tx, version.artifact_sha256)).size_bytes
        baseline = await store.find_last_in_stage(tx, version, policy.stage)
        known = await self._registry.list_evidence(tx, baseline.id) if baseline else None
        facts = GateFacts(
            version=version,
            evidence=await self._registry.list_evidence(tx, version.id),
            now_us=tx.now_us,
            size_bytes=size,
            baseline=known,
            baseline_ref=baseline.ref if baseline else "",
        )
        return assess(policy.checks, facts)

    async def _assess_approval(
        self, tx: Tx, version: NamedVersion, policy: GatePolicy
    ) -> GateResult:
        action = f"{PROMOTE}:{policy.stage}"
        found, flaw = await self._governance.approvals.find(
            tx,
            action=action,
            subject_id=version.id,
            subject=version.ref,
            needed=policy.approvals,
        )
        more = "" if policy.approvals == 1 else f" --needed {policy.approvals}"
        request = f'pilotage approvals request {action} {version.ref}{more} --reason "..."'
        return GateResult(
            name=FOUR_EYES,
            state=GateState.PASSED if found else GateState.NOT_EVALUATED,
            value=str(found.given if found else 0),
            threshold=f"at least {policy.approvals}",
            unit="approvals",
            detail=flaw,
            command="" if found else request,
        )

    async def _record(
        self,
        tx: Tx,
        version: NamedVersion,
        kind: DecisionKind,
        before: Stage,
        after: Stage,
        results: Sequence[GateResult],
    ) -> Decision:
        decision = await self._governance.record_change(
            tx,
            kind=kind,
            subject_id=version.id,
            subject=version.ref,
            before={"stage": before},
            after={"stage": after},
            evidence=[result.evidence_id for result in results if result.evidence_id],
        )
        said = {
            "side": "after",
            "version_id": version.id,
            "version": version.ref,
            "artifact_sha256": version.artifact_sha256 or "",
        }
        await self._governance.add_fact(tx, decision.id, "version", said)
        for result in results:
            gate = {name: getattr(result, name) for name in _IN_FACT}
            await self._governance.add_fact(tx, decision.id, "gate", gate)
        if kind is DecisionKind.PROMOTE and after is Stage.PRODUCTION:
            command = f'pilotage models promote {version.ref} {before} --reason "..."'
            way = {"to": before, "command": command}
            await self._governance.add_fact(tx, decision.id, "rollback", way)
        return decision

    async def _explain_late(self, tx: Tx, version: NamedVersion, stage: Stage) -> PilotageError:
        """Return the error for whoever comes second: who was first, and when."""
        latest = await self._governance.decisions.list(
            tx, limit=1, kinds=STAGE_KINDS, subject=version.id, is_newest=True
        )
        who = "".join(
            f" {item.by} moved it at {rfc3339(item.at_us)} ({item.id})." for item in latest
        )
        if version.stage == stage:
            return PilotageError("conflict", f"{version.ref} is in {stage} already.{who}")
        return PilotageError(
            "precondition_failed",
            f"{version.ref} has changed meanwhile: it is in {version.stage} now.{who}",
            hint="Read it again and decide anew.",
        )


def _assess_way(version: NamedVersion, stage: Stage) -> GateResult:
    """Say whether the stage is the next one on the way."""
    is_next = MOVES.get((Stage(version.stage), stage)) is Move.PROMOTE
    return GateResult(
        name="next_stage",
        state=GateState.PASSED if is_next else GateState.FAILED,
        value=version.stage,
        detail="" if is_next else f"from {version.stage} it cannot be promoted to {stage}",
    )


_IN_FACT = ("name", "state", "value", "threshold", "unit", "evidence_id", "detail")
