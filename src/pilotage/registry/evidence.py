"""What was found out about versions: recorded with where it comes from, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import evidence_store as store
from pilotage.registry.comparison import Difference, compare, recommend
from pilotage.registry.lineage import LineageGraph
from pilotage.registry.metrics import KIND_COST, KIND_PERFORMANCE, Direction
from pilotage.registry.rules import check_evidence, check_reported
from pilotage.registry.types import Evidence, EvidenceDraft, NamedVersion, Node, NodeKind

EVERYTHING = 1_000_000
_OTHER_METRIC = {KIND_COST: KIND_PERFORMANCE, KIND_PERFORMANCE: KIND_COST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions side by side, and a sentence of what the second is."""

    version_a: NamedVersion
    version_b: NamedVersion
    performance: Sequence[Difference]
    cost: Sequence[Difference]
    recommendation: str


class EvidenceBook:
    """Adds evidence and reads it; never commits."""

    def __init__(self, clock: Clock, lineage: LineageGraph) -> None:
        self._clock = clock
        self._lineage = lineage

    async def add(self, tx: Tx, version: NamedVersion, draft: EvidenceDraft) -> Evidence:
        """Record something; it supersedes what was current of its kind and subject.

        A name is a metric of performance or of cost, not both: ``conflict`` otherwise.
        """
        check_evidence(draft)
        await self._check_one_kind(tx, version, draft)
        evidence = Evidence(
            **{name: getattr(draft, name) for name in EvidenceDraft.__dataclass_fields__},
            id=self._clock.new_id("ev"),
            project_id=version.project_id,
            version_id=version.id,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        await store.insert_evidence(tx, evidence)
        await append_revision(tx, "registry.evidence.added", evidence.id, 1, evidence)
        if draft.run_id:
            await self._link(tx, evidence)
        return evidence

    async def report(self, tx: Tx, version: NamedVersion, draft: EvidenceDraft) -> Evidence:
        """Record what somebody says, as :meth:`add` does; what is found out here only that adds."""
        check_reported(draft)
        return await self.add(tx, version, draft)

    async def list(
        self,
        tx: Tx,
        version_id: str,
        kind: str | None = None,
        *,
        has_history: bool = False,
        after: str = "",
        limit: int = EVERYTHING,
    ) -> Sequence[Evidence]:
        """Return the current evidence of a version, newest first; with history what was before."""
        return await store.list_evidence(
            tx, version_id, kind, has_history=has_history, after=after, limit=limit
        )

    async def compare(
        self,
        tx: Tx,
        a: NamedVersion,
        b: NamedVersion,
        given: Mapping[str, Direction] | None = None,
    ) -> Comparison:
        """Compare the current metrics of two versions; what has expired is missing."""
        of_a, of_b = [
            [item for item in await self.list(tx, version.id) if not is_expired(item, tx.now_us)]
            for version in (a, b)
        ]
        performance = compare(of_a, of_b, KIND_PERFORMANCE, given)
        cost = compare(of_a, of_b, KIND_COST, given)
        return Comparison(
            version_a=a,
            version_b=b,
            performance=performance,
            cost=cost,
            recommendation=recommend([*performance, *cost]),
        )

    async def _check_one_kind(self, tx: Tx, version: NamedVersion, draft: EvidenceDraft) -> None:
        other = _OTHER_METRIC.get(draft.kind)
        if other is None:
            return
        if await store.find_current(tx, version.id, other, draft.subject) is not None:
            raise PilotageError(
                "conflict",
                f"{draft.subject} of {version.ref} is {other} already.",
                hint=f"Add it as {other}, or under another name.",
                param="kind",
            )

    async def _link(self, tx: Tx, evidence: Evidence) -> None:
        """Record in the lineage which run this comes from, and which data that used."""
        run = Node(NodeKind.EVALUATION, evidence.run_id)
        here, project_id = Node(NodeKind.VERSION, evidence.version_id), evidence.project_id
        await self._lineage.add_edge(tx, here, run, "evaluated_by", project_id)
        if evidence.dataset_version_id:
            data = Node(NodeKind.DATASET, evidence.dataset_version_id)
            await self._lineage.add_edge(tx, data, run, "used_by", project_id)


def is_expired(evidence: Evidence, now_us: int) -> bool:
    """Say whether evidence holds no longer."""
    return evidence.expires_at_us is not None and evidence.expires_at_us <= now_us
