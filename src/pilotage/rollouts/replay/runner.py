"""Running a replay: one sample after the other, each asked of both deployments, within the cap.

One request at a time, so that what an engine answers does not depend on what else it computes, and
serving calls notice as little as can be.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.kit.db import Actor, Database
from pilotage.kit.operations import Progress
from pilotage.rollouts.replay.ports import Answers, Asking, Samples
from pilotage.rollouts.replay.rules import UNASKED, UNHEARD, make_body, make_report, weigh
from pilotage.rollouts.replay.service import Prepared, ReplayService
from pilotage.rollouts.replay.types import Answer, Outcome, Recorded, ReplayPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What an operation says that replayed: where the report is, its hash and its verdict."""

    replay: str
    hash: str
    verdict: str
    pairs: int
    cost_nano: int


class ReplayRunner:
    """Replays; opens its own transactions, as an operation does."""

    def __init__(
        self, db: Database, service: ReplayService, samples: Samples, answers: Answers
    ) -> None:
        self._db = db
        self._service = service
        self._samples = samples
        self._answers = answers

    async def run(self, actor: Actor, prepared: Prepared, progress: Progress) -> dict[str, Any]:
        """Replay and record what was found; raise ``unavailable`` if a deployment cannot answer."""
        plan = prepared.plan
        async with self._db.write(actor) as tx:
            kept = await self._samples.read(tx, plan.alias, plan.since_us, plan.samples)
        left = Counter({"no key opens it": kept.unopened} if kept.unopened else {})
        outcomes = await self._ask_all(plan, kept.calls, left, progress) if kept.calls else []
        progress("recording", len(kept.calls), len(kept.calls))
        report = make_report(plan, prepared.names, outcomes, left)
        async with self._db.write(actor) as tx:
            replay = await self._service.record(tx, prepared, report)
        ended = Ended(
            replay=replay.id,
            hash=report.hash,
            verdict=report.verdict,
            pairs=report.pairs,
            cost_nano=report.baseline_nano + report.candidate_nano,
        )
        return asdict(ended)

    async def _ask_all(
        self,
        plan: ReplayPlan,
        recorded: Sequence[Recorded],
        left: Counter[str],
        progress: Progress,
    ) -> list[Outcome]:
        """Return what came of the samples; those that cannot be asked are counted in ``left``."""
        outcomes: list[Outcome] = []
        spent = 0
        async with self._answers.open() as asking:
            for number, one in enumerate(recorded):
                progress("replaying", number, len(recorded))
                worst = _bound(asking, plan, one)
                if worst is None:
                    left["not allowed"] += 1
                elif spent + worst > plan.cap_nano:
                    left["beyond the cost cap"] += 1
                else:
                    baseline = await _ask(asking, plan, one, plan.baseline)
                    spent += baseline.cost_nano
                    if baseline.code in UNHEARD:
                        left[f"baseline {baseline.code}"] += 1
                        continue
                    candidate = await _ask(asking, plan, one, plan.candidate)
                    spent += candidate.cost_nano
                    outcomes.append(weigh(plan, one, baseline, candidate))
        return outcomes


def _bound(asking: Asking, plan: ReplayPlan, one: Recorded) -> int | None:
    """Return what a sample may cost with both; None if one of them may not have it."""
    body = make_body(plan.alias, one.texts, plan.seed)
    both = [
        asking.bound(plan.project_id, one.tenant_id, plan.alias, arm, body)
        for arm in (plan.baseline, plan.candidate)
    ]
    known = [worst for worst in both if worst is not None]
    return sum(known) if len(known) == len(both) else None


async def _ask(asking: Asking, plan: ReplayPlan, one: Recorded, arm: str) -> Answer:
    body = make_body(plan.alias, one.texts, plan.seed)
    answer = await asking.ask(plan.project_id, one.tenant_id, plan.alias, arm, body)
    if answer.code in UNASKED:
        raise PilotageError(
            "unavailable",
            f"{arm} cannot answer now: {answer.code}.",
            hint="Replay again once its replicas are ready: pilotage endpoints show NAME",
        )
    return answer
