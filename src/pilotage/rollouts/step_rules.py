"""What a rollout does next: pure, of its plan, how far it is, what is seen, and the last verdict.

Traffic moves only by a :class:`Move`, which says the weight and the progress together, so that both
are written in one transaction and no traffic moves without a record.
"""

from dataclasses import replace

from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.rollouts.types import (
    Cause,
    Judgement,
    Move,
    Plan,
    Progress,
    Readiness,
    State,
    Strategy,
    Verdict,
)


def next_move(
    plan: Plan, now: Progress, seen: Readiness, judged: Judgement | None, now_us: int
) -> Move | None:
    """Return what to do, None where there is nothing but to wait.

    ``judged`` is the look that was just taken at the running step, None if there was none.
    """
    if now.state is State.PREPARING:
        return _prepare(plan, now, seen, now_us)
    if now.has_ended:
        return None
    if seen is Readiness.FAILED:
        return roll_back(now, now_us, "no replica of the candidate runs")
    if judged is not None and judged.verdict is Verdict.ROLL_BACK:
        return roll_back(now, now_us, explain(judged))
    if now.state is State.KEEPING:
        is_over = now_us - now.since_us >= plan.keep_us
        return end(now, now_us, "the baseline is no longer kept warm") if is_over else None
    return _step(plan, now, judged, now_us) if now.state is State.RUNNING and judged else None


def leave_out_unseen(now: Progress, seen_until_us: int, now_us: int) -> Progress:
    """Return a progress whose time leaves out that in which nobody has looked at it.

    What gets ready begins anew, as its replicas do. A baseline is kept warm by the wall clock.
    """
    if now.state is State.PREPARING:
        return replace(now, since_us=now_us) if seen_until_us < now_us else now
    if now.state is State.KEEPING:
        return now
    unseen_us = max(0, now_us - max(seen_until_us, now.since_us))
    return replace(now, since_us=now.since_us + unseen_us, began_us=now.began_us + unseen_us)


def go_on(plan: Plan, now: Progress, now_us: int, reason: str) -> Move:
    """Return the move to the next step, or behind the last one; a shadow moves no traffic."""
    step = now.step + 1
    if step < len(plan.steps):
        progress = Progress(state=State.RUNNING, step=step, since_us=now_us, began_us=now_us)
        weight = 0 if plan.strategy is Strategy.SHADOW else plan.steps[step].weight
        return Move(progress=progress, weight=weight, reason=reason)
    return go_to_end(plan, now, now_us, reason)


def go_to_end(plan: Plan, _: Progress, now_us: int, reason: str) -> Move:
    """Return the move behind the last step."""
    state = State.KEEPING if plan.keep_us else State.PROMOTED
    progress = Progress(state=state, step=len(plan.steps), since_us=now_us, began_us=now_us)
    weight = 0 if plan.strategy is Strategy.SHADOW else FULL_WEIGHT
    return Move(progress=progress, weight=weight, reason=reason)


def end(now: Progress, now_us: int, reason: str) -> Move:
    """Return the move that keeps the baseline no longer."""
    progress = replace(now, state=State.PROMOTED, since_us=now_us)
    return Move(progress=progress, weight=None, reason=reason)


def roll_back(now: Progress, now_us: int, reason: str) -> Move:
    """Return the move of all traffic back to the baseline."""
    progress = replace(now, state=State.ROLLED_BACK, since_us=now_us)
    return Move(progress=progress, weight=0, reason=reason)


def explain(judged: Judgement) -> str:
    """Return a verdict in words."""
    if judged.cause is Cause.EVIDENCE:
        said = "good enough" if judged.verdict is Verdict.PROMOTE else "worse"
        return f"shown to be {said}: {', '.join(judged.gates)}"
    return _CAUSES[judged.cause]


_CAUSES = {
    Cause.ALL_BAD: "the candidate's last units were bad, one and all, and the baseline's were not",
    Cause.SHARED_FAULT: "candidate and baseline fail alike",
    Cause.RATIO_MISMATCH: "units were not dealt as the weights say",
    Cause.COLLECTING: "there is not enough evidence yet",
    Cause.HANGING: "too many of the candidate's calls have not ended",
    Cause.OUT_OF_TIME: "the step's time is over, and nothing was shown",
    Cause.TOO_SLOW: "what is left of the step will not suffice",
}


def _prepare(plan: Plan, now: Progress, seen: Readiness, now_us: int) -> Move | None:
    if seen is Readiness.READY:
        return go_on(plan, now, now_us, "the candidate is ready")
    if now_us - now.since_us < plan.ready_us:
        return None
    progress = replace(now, state=State.FAILED, since_us=now_us)
    return Move(progress=progress, weight=None, reason="the candidate did not get ready in time")


def _step(plan: Plan, now: Progress, judged: Judgement, now_us: int) -> Move | None:
    if judged.cause in (Cause.OUT_OF_TIME, Cause.RATIO_MISMATCH):
        return _hold(now, now_us, explain(judged))
    if judged.verdict is not Verdict.PROMOTE:
        return None
    if plan.steps[now.step].needs_person:
        move = _hold(now, now_us, "the gates would promote; the step waits for a person")
        return replace(move, progress=replace(move.progress, has_passed=True))
    return go_on(plan, now, now_us, explain(judged))


def _hold(now: Progress, now_us: int, reason: str) -> Move:
    progress = replace(now, state=State.HELD, since_us=now_us)
    return Move(progress=progress, weight=None, reason=reason)
