"""The verbs of quality. Never commits: whoever opened the transaction does."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from pilotage.finops.service import FinopsService
from pilotage.finops.types import LedgerEntry
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.kit.secrets import Vault
from pilotage.monitoring.drift.rules import floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Cells, Held, Measure, Place
from pilotage.monitoring.quality import store
from pilotage.monitoring.quality.rules import add_up, gather, settle
from pilotage.monitoring.quality.types import COMMENT, Grouping, Opinion, Quality, Said

AT_ONCE = 1_000
_PAGE = 200  # ids in one statement
_PARTS = 3  # a score, a label, a comment


class QualityService:
    """Feedback, and what it adds up to."""

    def __init__(
        self, clock: Clock, *, finops: FinopsService, drift: DriftService, vault: Vault
    ) -> None:
        self._clock = clock
        self._vault = vault
        self._finops = finops
        self._drift = drift

    async def record(self, tx: Tx, opinions: Sequence[Opinion]) -> None:
        """Write opinions; each replaces an earlier one of its tenant, call and aspect."""
        await store.put_opinions(tx, opinions)

    async def match(self, tx: Tx) -> bool:
        """Look the next calls up in the ledger that opinions wait for; say if there may be more.

        Every opinion has its turn, however many others wait for calls that there never were.
        """
        due = await store.list_due(tx, AT_ONCE)
        calls: dict[str, LedgerEntry] = {}
        for start in range(0, len(due), _PAGE):
            ids = {opinion.call_id for opinion in due[start : start + _PAGE]}
            calls |= {call.call_id: call for call in await self._finops.list_charges(tx, ids)}
        settled = [settle(one, calls.get(one.call_id), tx.now_us) for one in due]
        await store.settle(tx, settled)
        scores = _count_scores(
            new
            for old, new in zip(due, settled, strict=True)
            if new.is_counted and not old.is_counted
        )
        if scores:
            await self._drift.record(tx, scores)
        return len(due) == AT_ONCE

    async def has_due(self, tx: Tx) -> bool:
        """Say whether the call of an opinion is to be looked up."""
        return bool(await store.list_due(tx, 1))

    async def list_feedback(
        self,
        tx: Tx,
        alias: str | None = None,
        tenant_id: str | None = None,
        after: str = "",
        limit: int = 1_000_000,
    ) -> list[Said]:
        """Return feedback in the order in which it was given."""
        most = limit * _PARTS
        return gather(await store.list_opinions(tx, alias, tenant_id, after, most), limit)

    async def open_comments(self, tx: Tx, feedback: Sequence[Said]) -> dict[str, str]:
        """Return the comments of feedback by its id, and note in the audit log who read them.

        What no key opens any more is left out.
        """
        sealed = [said for said in feedback if said.comment is not None]
        keys = await self._vault.find_keys(tx, {said.tenant_id for said in sealed})
        found = {}
        for said in sealed:
            if said.comment is not None and said.tenant_id in keys:
                with suppress(ValueError):
                    opened = keys[said.tenant_id].open_letter(said.comment, COMMENT, said.id)
                    found[said.id] = opened.decode()
        if found:
            read_id = self._clock.new_id("rdg")
            note = {"comments": len(found), "first": min(found), "last": max(found)}
            await append_revision(tx, "monitoring.comments.read", read_id, 1, note)
        return found

    async def forget(self, tx: Tx, tenant_id: str) -> int:
        """Drop the comments of a tenant; return how many."""
        return await store.drop_comments(tx, tenant_id)

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
        """Drop opinions after 400 days, and sooner those on calls that there never were."""
        return await store.drop_due(tx)


def _count_scores(opinions: Iterable[Opinion]) -> Cells:
    cells: Cells = {}
    for opinion in opinions:
        if opinion.score is not None:
            key = AnswerKey(opinion.project_id, opinion.alias, opinion.version_id, opinion.model)
            place = Place(key, Measure.SCORE, floor(opinion.at_us))
            cells.setdefault(place, Held()).numbers.add(opinion.score)
    return cells
