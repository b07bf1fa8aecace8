"""What the decision record of a rollout says: its plan, every look that matters, every weight."""

from collections.abc import Iterator, Sequence

from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.types import Deployment
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind, FactKind
from pilotage.kit.db import Tx
from pilotage.rollouts.types import GateLook, Judgement, Rollout, State, Strategy

_WAYS = {Strategy.AB_TEST: "ab"}  # the others are called in decision records as they are here
_OUTCOMES = {
    State.PROMOTED: "succeeded",
    State.ROLLED_BACK: "rolled_back",
    State.FAILED: "failed",
}


class Records:
    """Writes the one decision record that a rollout has."""

    def __init__(self, governance: GovernanceService) -> None:
        self._governance = governance

    async def open(
        self,
        tx: Tx,
        rollout: Rollout,
        baseline: Deployment,
        candidate: Deployment,
        advice: Sequence[str] = (),
    ) -> str:
        """Open the record, behind the revisions of the start; return its id."""
        decision = await self._governance.record_change(
            tx,
            kind=DecisionKind.ROLLOUT,
            subject_id=rollout.endpoint_id,
            subject=rollout.endpoint,
            before={"shares": {baseline.model: "100"}},
            after={"rollout": rollout.id, "candidate": candidate.model},
        )
        for side, item in (("before", baseline), ("after", candidate)):
            if item.version_id:
                said = {
                    "side": side,
                    "version_id": item.version_id,
                    "version": item.model,
                    "artifact_sha256": item.artifact_sha256,
                }
                await self._governance.add_fact(tx, decision.id, FactKind.VERSION, said)
        if rollout.reason != decision.reason:
            await self._governance.add_fact(
                tx, decision.id, FactKind.NOTE, {"text": rollout.reason}
            )
        plan = {
            "way": _WAYS.get(rollout.plan.strategy, rollout.plan.strategy.value),
            "steps": [f"{show_weight(step.weight)} %" for step in rollout.plan.steps],
        }
        await self._governance.add_fact(tx, decision.id, FactKind.PLAN, plan)
        back = {
            "to": baseline.model,
            "command": f'pilotage rollout rollback {rollout.id} --reason "..."',
        }
        await self._governance.add_fact(tx, decision.id, FactKind.ROLLBACK, back)
        for text in advice:
            risk = {"text": text, "source": "rollouts"}
            await self._governance.add_fact(tx, decision.id, FactKind.RISK, risk)
        return decision.id

    async def add_move(
        self, tx: Tx, before: Rollout, after: Rollout, judged: Judgement | None
    ) -> None:
        """Add what was seen, what was said of it, and what became of the weights."""
        if judged is not None:
            await self.add_look(tx, before, judged)
        add, decision_id = self._governance.add_fact, after.decision_id
        if (before.weight, before.progress.step) != (after.weight, after.progress.step):
            said = {
                "weights": {
                    after.baseline: show_weight(FULL_WEIGHT - after.weight),
                    after.candidate: show_weight(after.weight),
                },
                "step": after.progress.step,
                "detail": after.said,
            }
            await add(tx, decision_id, FactKind.WEIGHTS, said)
        if after.progress.state is State.HELD:
            held = {"verdict": "hold", "reason": after.said}
            await add(tx, decision_id, FactKind.VERDICT, held)
        if is_resumed(before, after):
            await self.add_note(tx, after, f"resumed: {after.said}")

    async def close(self, tx: Tx, rollout: Rollout) -> None:
        """Add what came of a rollout, and the way back from here."""
        add, decision_id = self._governance.add_fact, rollout.decision_id
        outcome = {"state": _OUTCOMES[rollout.progress.state], "detail": rollout.said}
        await add(tx, decision_id, FactKind.OUTCOME, outcome)
        if rollout.progress.state is State.PROMOTED and rollout.weight:
            command = f"pilotage endpoints split {rollout.endpoint} {rollout.baseline}=100"
            back = {"to": rollout.baseline, "command": command}
            await add(tx, decision_id, FactKind.ROLLBACK, back)

    async def add_cost(self, tx: Tx, rollout: Rollout, cost_nano: int) -> None:
        """Add what a rollout has cost."""
        cost = {
            "what": "rollout",
            "cost_nano": cost_nano,
            "is_estimated": True,
            "basis": f"what {rollout.candidate} has cost since the day of the start, by the ledger",
        }
        await self._governance.add_fact(tx, rollout.decision_id, FactKind.COST, cost)

    async def add_note(self, tx: Tx, rollout: Rollout, text: str) -> None:
        """Add what became of something beside the plan."""
        note = {"text": text}
        await self._governance.add_fact(tx, rollout.decision_id, FactKind.NOTE, note)

    async def add_wait(self, tx: Tx, rollout: Rollout, reason: str) -> None:
        """Add that a step is due and cannot be made yet."""
        held = {"verdict": "hold", "reason": reason}
        await self._governance.add_fact(tx, rollout.decision_id, FactKind.VERDICT, held)

    async def add_used(self, tx: Tx, rollout: Rollout) -> None:
        """Add the approvals and overrides that a move has used."""
        await self._governance.add_used(tx, rollout.decision_id)

    async def add_intervention(self, tx: Tx, rollout: Rollout, what: str, reason: str) -> None:
        """Add that a person overruled the gates, or did what they would do."""
        said = {"what": what, "reason": reason, "by": tx.actor.principal_id}
        await self._governance.add_fact(tx, rollout.decision_id, FactKind.INTERVENTION, said)

    async def add_look(self, tx: Tx, rollout: Rollout, judged: Judgement) -> None:
        """Add what each gate said at a look, and what follows from it."""
        for fact in _list_looks(rollout, judged):
            await self._governance.add_fact(tx, rollout.decision_id, FactKind.LOOK, fact)
        verdict = {"verdict": judged.verdict.value, "reason": judged.cause.value}
        await self._governance.add_fact(tx, rollout.decision_id, FactKind.VERDICT, verdict)


def is_resumed(before: Rollout, after: Rollout) -> bool:
    """Say whether a move does no more than let the gates of a held rollout decide again."""
    was_held, runs = before.progress.state is State.HELD, after.progress.state is State.RUNNING
    return was_held and runs and before.progress.step == after.progress.step


def show_weight(points: int) -> str:
    """Write basis points as a percentage: ``12.5``."""
    return f"{points / 100:.2f}".rstrip("0").rstrip(".")


def _list_looks(rollout: Rollout, judged: Judgement) -> Iterator[dict[str, object]]:
    for look in judged.looks:
        yield {
            "metric": look.gate,
            "n": look.candidate_units + look.baseline_units,
            "statistic": f"ln E worse {look.worse:.3f}, fine {look.fine:.3f}",
            "bound": f"worse {look.worse_bound:.3f}, fine {look.fine_bound:.3f}",
            "verdict": _say(look),
            "step": rollout.progress.step,
            "detail": f"candidate {_count(look.candidate_bad, look.candidate_units)}, "
            f"baseline {_count(look.baseline_bad, look.baseline_units)}",
        }


def _count(bad: int, units: int) -> str:
    return f"{bad} bad of {units}" if bad else f"{units}"


def _say(look: GateLook) -> str:
    if look.is_worse:
        return "worse"
    return "fine" if look.is_fine else "open"
