"""What people do to a running rollout: promote, hold, resume, roll back. Never commits.

Whoever stops or goes back needs a reason and nobody else. Whoever goes on against the gates
overrules them: where traffic needs approvals, that needs them, too. A step that waits for a person
because its gates have said yes needs that person alone, whatever evidence does meanwhile.
"""

from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.endpoints.service import EndpointService
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import Subject
from pilotage.kit.db import Tx
from pilotage.rollouts.service import RolloutService
from pilotage.rollouts.step_rules import end, go_on, go_to_end, roll_back
from pilotage.rollouts.types import Move, Rollout, State, Verdict

PROMOTE = "rollouts.rollout.promote"
_TO_END = "to-end"


class Steering:
    """Moves rollouts by hand."""

    def __init__(
        self, rollouts: RolloutService, governance: GovernanceService, endpoints: EndpointService
    ) -> None:
        self._rollouts = rollouts
        self._governance = governance
        self._endpoints = endpoints
        governance.approvals.register(PROMOTE, self._describe)

    async def promote(
        self,
        tx: Tx,
        rollout_id: str,
        reason: str,
        *,
        to_end: bool = False,
        from_step: int | None = None,
    ) -> Rollout:
        """Go on to the next step, or with ``to_end`` behind the last one.

        A baseline that is kept warm is kept no longer. Raises ``conflict`` if the rollout is not at
        ``from_step`` any more, ``frozen`` inside a freeze, ``approval_required`` where the gates do
        not say so and others must agree to traffic.
        """
        rollout = await self._get(tx, rollout_id, State.RUNNING, State.HELD, State.KEEPING)
        _check_step(rollout, from_step)
        await self._rollouts.check_may_widen(tx, rollout, PROMOTE)
        now = rollout.progress
        is_kept = now.state is State.KEEPING
        is_last = now.step + 1 >= len(rollout.plan.steps)
        judged = None if is_kept else await self._rollouts.judge(tx, rollout)
        verdict = judged.verdict if judged else None
        has_passed = now.has_passed or verdict is Verdict.PROMOTE
        is_agreed = has_passed and (is_last or not to_end)
        policy = await self._endpoints.traffic.policies.get(tx)
        if not is_agreed and policy.approvals:
            await self._governance.require_approval(
                tx,
                action=PROMOTE,
                subject_id=_name_way(rollout, to_end=to_end),
                subject=_name_way(rollout, to_end=to_end),
                needed=policy.approvals,
            )
        way = go_to_end if to_end else go_on
        move = way(rollout.plan, now, tx.now_us, reason)
        if is_kept:
            move = end(now, tx.now_us, reason)
        await self._rollouts.records.add_used(tx, rollout)
        moved = await self._rollouts.move(tx, rollout, move, judged)
        if not is_agreed and not is_kept:
            await self._rollouts.records.add_intervention(tx, moved, "forced", reason)
        return moved

    async def hold(self, tx: Tx, rollout_id: str, reason: str) -> Rollout:
        """Leave the weights where they are until somebody goes on."""
        rollout = await self._get(tx, rollout_id, State.RUNNING)
        progress = replace(rollout.progress, state=State.HELD, since_us=tx.now_us)
        return await self._rollouts.move(
            tx, rollout, Move(progress=progress, weight=None, reason=reason)
        )

    async def resume(self, tx: Tx, rollout_id: str, reason: str) -> Rollout:
        """Let the gates decide again; the step's time begins anew, what was counted stays."""
        rollout = await self._get(tx, rollout_id, State.HELD)
        progress = replace(
            rollout.progress, state=State.RUNNING, since_us=tx.now_us, has_passed=False
        )
        return await self._rollouts.move(
            tx, rollout, Move(progress=progress, weight=None, reason=reason)
        )

    async def roll_back(self, tx: Tx, rollout_id: str, reason: str) -> Rollout:
        """Give all traffic back to the baseline; neither freeze nor approval is in the way."""
        states = (State.PREPARING, State.RUNNING, State.HELD, State.KEEPING)
        rollout = await self._get(tx, rollout_id, *states)
        moved = await self._rollouts.move(
            tx, rollout, roll_back(rollout.progress, tx.now_us, reason)
        )
        await self._rollouts.records.add_intervention(tx, moved, "rollback", reason)
        return moved

    async def _get(self, tx: Tx, rollout_id: str, *states: State) -> Rollout:
        """Return a rollout that is in one of some states; raise ``conflict`` if it is in none."""
        rollout = await self._rollouts.get(tx, rollout_id)
        state = rollout.progress.state
        if state in states:
            return rollout
        hint = f"Look at it: pilotage rollout show {rollout.id}"
        if rollout.progress.has_ended:
            hint = f"Move traffic: pilotage endpoints split {rollout.endpoint} MODEL=100"
        raise PilotageError("conflict", f"{rollout.id} is {state}: {rollout.said}.", hint=hint)

    async def _describe(self, tx: Tx, text: str) -> Subject:
        """Read ``ROLLOUT`` or ``ROLLOUT to-end``: once it has moved, nobody has agreed any more."""
        rollout_id, _, way = text.partition(" ")
        if way not in ("", _TO_END):
            raise PilotageError(
                "invalid_request",
                f"{way[:80]!r} is no way to go on.",
                hint=f"Write ROLLOUT for the next step, or ROLLOUT {_TO_END} for all traffic.",
                param="subject",
            )
        rollout = await self._rollouts.get(tx, rollout_id)
        authors = await self._rollouts.find_authors(tx, rollout.candidate_id)
        state = {"state": rollout.progress.state, "step": rollout.progress.step}
        name = _name_way(rollout, to_end=bool(way))
        return Subject(id=name, name=name, state=state, authors=authors)


def _check_step(rollout: Rollout, from_step: int | None) -> None:
    """Raise ``conflict`` if a rollout has left the step that somebody has seen it at."""
    if from_step not in (None, rollout.progress.step):
        raise PilotageError(
            "conflict",
            f"{rollout.id} has left that step: {rollout.said}.",
            hint=f"Look at it again: pilotage rollout show {rollout.id}",
            param="step",
        )


def _name_way(rollout: Rollout, *, to_end: bool) -> str:
    """Return what others agree to: the next step, or all traffic at once."""
    return f"{rollout.id} {_TO_END}" if to_end else rollout.id
