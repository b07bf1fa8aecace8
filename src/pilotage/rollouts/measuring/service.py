"""The verbs of measuring. Never commits: whoever opened the transaction does."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilotage.core.frames import Begun, Ended
from pilotage.core.gates.ranks import Ranks
from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.service import CallBatch
from pilotage.rollouts.measuring import store
from pilotage.rollouts.measuring.rules import (
    Counting,
    make_ranks,
    measure,
    parse_step,
    read_scores,
    refer_to,
    watch,
)
from pilotage.rollouts.measuring.types import Answer, CallKey, Standing, Watched
from pilotage.rollouts.types import Known, Measured, Rollout

_MOST_RANKED = 100  # rollouts whose ranks are kept in memory


@dataclass(slots=True)
class Calls:
    """What a batch says of one rollout's calls: some began, some ended, some were scored."""

    begun: list[Begun] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    scored: list[Answer] = field(default_factory=list)

    @property
    def units(self) -> set[str]:
        """The units of these calls that are not calls themselves."""
        units = {frame.unit for frame in self.begun} | {frame.unit for frame in self.ended}
        return (units | {answer.unit for answer in self.scored}) - {""}


@dataclass(frozen=True, slots=True)
class Heard:
    """What a batch of a spool says of calls that rollouts have dealt, and of scores of any call."""

    calls: Mapping[str, Calls] = field(default_factory=dict)
    scores: Mapping[CallKey, Answer] = field(default_factory=dict)

    @property
    def project_ids(self) -> set[str]:
        """The projects that it is about."""
        begun = {one.project_id for calls in self.calls.values() for one in calls.begun}
        ended = {one.project_id for calls in self.calls.values() for one in calls.ended}
        return begun | ended | {score.project_id for score in self.scores.values()}


class MeasuringService:
    """What is counted of rollouts from when they begin until they end."""

    def __init__(self) -> None:
        self._ranks: dict[str, dict[str, Ranks]] = {}  # they remember what values are worth

    async def begin(self, tx: Tx, rollout: Rollout, known: Known) -> None:
        """Count from now on what carries the steps of a rollout.

        Ranks are those in the baseline's values that are known, if there are enough of them.
        """
        watched = watch(rollout)
        await store.insert_watch(tx, watched, refer_to(watched, known.taken))

    async def read(self, tx: Tx, rollout: Rollout, now_us: int) -> Measured:
        """Return what was counted so far, of a rollout that has begun."""
        found = await store.find_watch(tx, rollout.id)
        if found is None:
            raise LookupError(f"{rollout.id} was never counted")
        watched, standing = found
        counts = await store.list_counts(tx, rollout.id)
        measurement = await asyncio.to_thread(
            measure, watched, counts, standing, rollout.progress, now_us
        )
        ranks = make_ranks(standing, self._ranks.get(rollout.id, {}))
        if len(self._ranks) >= _MOST_RANKED:
            self._ranks.clear()
        self._ranks[rollout.id] = ranks
        return Measured(measurement=measurement, ranks=ranks)

    async def end(self, tx: Tx, rollout: Rollout) -> None:
        """Count no more; counts stay."""
        await store.close_watch(tx, rollout.id)

    async def forget(self, tx: Tx, rollout: Rollout) -> bool:
        """Drop some of what single units did in a rollout that has ended; say if there is more.

        Whoever counts is waited for: what it has read before the end is there, or never will be.
        """
        await store.hold_counts(tx)
        counted = await store.list_open(tx, {rollout.project_id})
        are_wanted = any(watched.wants_feedback for watched, _ in counted)
        return (
            await store.drop_units(tx, rollout.id)
            or await store.drop_answers(tx, rollout.id)
            or await store.drop_scores(tx, are_wanted=are_wanted)
        )

    async def record(self, tx: Tx, heard: Heard) -> None:
        """Count calls and scores by their rollout; of those not counted now nothing is."""
        project_ids = heard.project_ids
        if not project_ids:
            return
        await store.hold_counts(tx)
        counted = await store.list_open(tx, project_ids)
        scored: list[Answer] = []
        for watched, standing in counted:
            calls = heard.calls.get(watched.rollout_id)
            if calls is not None:
                scored += await _keep(tx, await _count(tx, watched, standing, calls))
        listening = {watched.project_id for watched, _ in counted if watched.wants_feedback}
        if listening:
            wanted = {
                key: score for key, score in heard.scores.items() if score.project_id in listening
            }
            scored += await _score(tx, wanted)
        for watched, standing in counted:
            mine = [answer for answer in scored if answer.rollout_id == watched.rollout_id]
            if mine:
                await _count(tx, watched, standing, Calls(scored=mine))


def hear(batch: CallBatch) -> Heard:
    """Return what a batch of a spool says of rollouts."""
    calls: dict[str, Calls] = {}
    for begun in batch.begun:
        if begun.rollout:
            calls.setdefault(parse_step(begun.rollout)[0], Calls()).begun.append(begun)
    for _, ended in batch.ended:
        if ended.rollout:
            calls.setdefault(parse_step(ended.rollout)[0], Calls()).ended.append(ended)
    return Heard(calls, read_scores(batch.feedback))


async def _count(tx: Tx, watched: Watched, standing: Standing, calls: Calls) -> Sequence[Answer]:
    """Count a rollout's calls; return those whose feedback counts, too."""
    units = await store.list_units(tx, watched.rollout_id, calls.units)
    known = frozenset(units)
    counting = Counting(watched, standing, units)
    await asyncio.to_thread(_count_all, counting, calls)
    await store.add_counts(tx, watched, counting.steps)
    await store.put_units(tx, watched, counting.units, known)
    await store.write_standing(tx, watched.rollout_id, counting.standing)
    return counting.answers


def _count_all(counting: Counting, calls: Calls) -> None:
    for begun in calls.begun:
        counting.begin(begun)
    for ended in calls.ended:
        counting.end(ended)
    for answer in calls.scored:
        counting.score(answer)


async def _keep(tx: Tx, answers: Sequence[Answer]) -> list[Answer]:
    """Keep answers until somebody scores them; return those that somebody has already."""
    known = await store.find_answers(tx, {answer.key for answer in answers})
    waited = [
        answer._replace(score=known[answer.key].score)
        for answer in answers
        if answer.key in known and not known[answer.key].rollout_id
    ]
    await store.insert_answers(tx, [one for one in answers if one.key not in known])
    await store.change_answers(tx, waited)
    return waited


async def _score(tx: Tx, scores: Mapping[CallKey, Answer]) -> list[Answer]:
    """Return the answers that are scored for the first time; what is said of others has to wait."""
    known = await store.find_answers(tx, scores.keys())
    fresh = [
        answer._replace(score=scores[key].score)
        for key, answer in known.items()
        if answer.rollout_id and answer.score < 0
    ]
    await store.drop_scores(tx, are_wanted=True)
    await store.insert_answers(tx, [one for key, one in scores.items() if key not in known])
    await store.change_answers(tx, fresh)
    return fresh
