"""The verbs of quality. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence
from dataclasses import replace

from pilotage.finops.service import FinopsService
from pilotage.finops.types import LedgerEntry
from pilotage.kit.db import Tx
from pilotage.monitoring.drift.rules import floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Cells, Held, Measure, Place
from pilotage.monitoring.quality import store
from pilotage.monitoring.quality.rules import (
    KEPT_US,
    UNKNOWN_KEPT_US,
    WAITS_US,
    add_up,
)
from pilotage.monitoring.quality.types import FeedbackState, Grouping, Opinion, Quality

AT_ONCE = 1_000
_PAGE = 200  # ids in one statement


class QualityService:
    """Feedback, and what it adds up to."""

    def __init__(self, finops: FinopsService, drift: DriftService) -> None:
        self._finops = finops
        self._drift = drift

    async def record(self, tx: Tx, opinions: Sequence[Opinion]) -> None:
        """Write opinions; each replaces an earlier one of its tenant, call and aspect."""
        for opinion in opinions:
            await store.replace_opinion(tx, opinion)

    async def match(self, tx: Tx) -> int:
        """Find the calls of opinions that wait for theirs in the ledger; return how many had one.

        An opinion counts only if the call was its own tenant's. One whose call is not in the ledger
        after ten minutes is on none. The newest are looked at first, so that nobody's feedback on
        calls that there never were holds up what others say.
        """
        await store.give_up(tx, tx.now_us - WAITS_US)
        waiting = await store.list_waiting(tx, AT_ONCE)
        calls: dict[str, LedgerEntry] = {}
        for start in range(0, len(waiting), _PAGE):
            ids = [opinion.call_id for opinion in waiting[start : start + _PAGE]]
            calls |= {call.call_id: call for call in await self._finops.list_charges(tx, ids)}
        settled = [
            _settle(opinion, calls[opinion.call_id])
            for opinion in waiting
            if opinion.call_id in calls
        ]
        await store.settle(tx, settled)
        matched = [opinion for opinion in settled if opinion.state is FeedbackState.MATCHED]
        scores = _count_scores(matched)
        if scores:
            await self._drift.record(tx, scores)
        return len(matched)

    async def has_waiting(self, tx: Tx) -> bool:
        """Say whether an opinion waits for its call."""
        return bool(await store.list_waiting(tx, 1))

    async def list_opinions(
        self,
        tx: Tx,
        alias: str | None = None,
        tenant_id: str | None = None,
        after: str = "",
        limit: int = 1_000_000,
    ) -> Sequence[Opinion]:
        """Return opinions in the order in which they were given."""
        return await store.list_opinions(tx, alias, tenant_id, after, limit)

    async def read_quality(
        self,
        tx: Tx,
        by: Sequence[Grouping],
        since_us: int,
        until_us: int,
        alias: str | None = None,
    ) -> list[Quality]:
        """Return what the opinions of a window add up to by group; one without any is absent."""
        return add_up(await store.tally(tx, by, since_us, until_us, alias))

    async def drop_old(self, tx: Tx) -> int:
        """Drop opinions after 400 days, and after one day those on calls that there never were."""
        return await store.drop(tx, tx.now_us - KEPT_US, tx.now_us - UNKNOWN_KEPT_US)


def _settle(opinion: Opinion, call: LedgerEntry) -> Opinion:
    """Return what becomes of an opinion once the call of its id is known."""
    if (call.project_id, call.tenant_id) != (opinion.project_id, opinion.tenant_id):
        return replace(opinion, state=FeedbackState.UNKNOWN)
    return replace(
        opinion,
        state=FeedbackState.MATCHED,
        alias=call.alias,
        version_id=call.version_id,
        model=call.model,
    )


def _count_scores(opinions: Sequence[Opinion]) -> Cells:
    cells: Cells = {}
    for opinion in opinions:
        if opinion.score is not None:
            key = AnswerKey(opinion.project_id, opinion.alias, opinion.version_id, opinion.model)
            place = Place(key, Measure.SCORE, floor(opinion.at_us))
            cells.setdefault(place, Held()).numbers.add(opinion.score)
    return cells
