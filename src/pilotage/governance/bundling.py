"""Makes the signed bundle of a decision: gathers what it rests on, and proves it by the log."""

from collections.abc import Sequence

import msgspec

from pilotage.audit.service import AuditService
from pilotage.core.errors import PilotageError
from pilotage.governance import store
from pilotage.governance.bundle import (
    Artifact,
    BundledApproval,
    BundledFact,
    LogKey,
    Payload,
    ProvenEntry,
    Record,
    write_bundle,
)
from pilotage.governance.decisions import Decisions
from pilotage.governance.facts import Version
from pilotage.governance.types import Approval, Fact, FactKind
from pilotage.kit.clock import rfc3339
from pilotage.kit.crypto import Signer
from pilotage.kit.db import Actor, Database, Tx
from pilotage.kit.outbox import read_revisions


class Bundles:
    """Bundles of decisions, signed with the key of the audit log."""

    def __init__(
        self, db: Database, decisions: Decisions, audit: AuditService, signer: Signer
    ) -> None:
        self._db = db
        self._decisions = decisions
        self._audit = audit
        self._signer = signer

    async def make(self, actor: Actor, decision_id: str) -> bytes:
        """Return the bundle of a decision as a file; raise ``not_found``.

        What is not in the log yet is appended first: a bundle has everything that there is.
        """
        while await self._audit.append_next():
            pass
        async with self._db.read(actor) as tx:
            decision = await self._decisions.get(tx, decision_id)
            facts = await self._decisions.list_facts(tx, decision_id)
            named = [
                fact.content["approval_id"] for fact in facts if fact.kind is FactKind.APPROVAL
            ]
            approvals = await store.get_approvals(tx, named)
            approval_seqs = await store.list_revisions_of(tx, named)
            seqs = {
                decision.seq,
                *decision.revisions,
                *(fact.seq for fact in facts),
                *approval_seqs,
            }
            checkpoints, entries = await self._prove(tx, sorted(seqs))
            payload = Payload(
                format=1,
                made_at=rfc3339(tx.now_us),
                log=LogKey(name=self._audit.log.name, public_key=self._signer.public.hex()),
                checkpoints=checkpoints,
                decision=msgspec.convert(decision, Record, from_attributes=True),
                facts=[_fact(fact) for fact in facts],
                approvals=[_approval(approvals[name]) for name in named],
                artifacts=_list_artifacts(facts),
                entries=entries,
            )
        return write_bundle(payload, self._signer.key_id, self._signer.sign)

    async def _prove(self, tx: Tx, seqs: Sequence[int]) -> tuple[list[str], list[ProvenEntry]]:
        checkpoints: list[str] = []
        entries = []
        for seq in seqs:
            proof = await self._audit.prove_revision(tx, seq)
            if proof.checkpoint not in checkpoints:
                checkpoints.append(proof.checkpoint)
            entries.append(
                ProvenEntry(
                    seq=seq,
                    entry=proof.entry,
                    record=await _find_record(tx, seq, proof.entry),
                    index=proof.index,
                    path=list(proof.path),
                    checkpoint=checkpoints.index(proof.checkpoint),
                )
            )
        return checkpoints, entries


async def _find_record(tx: Tx, seq: int, entry: bytes) -> bytes | None:
    """Return what an entry names by its hash, as the log keeps it; None if it holds all itself."""
    if msgspec.json.decode(entry).get("record") is None:
        return None
    for revision in await read_revisions(tx, seq - 1, 1):
        if revision.seq == seq:
            states = {
                name: None if text is None else msgspec.Raw(text.encode())
                for name, text in (("before", revision.before), ("after", revision.after))
            }
            return msgspec.json.encode(states)
    raise PilotageError("not_found", f"There is no revision {seq}.")


def _fact(fact: Fact) -> BundledFact:
    return msgspec.convert(fact, BundledFact, from_attributes=True)


def _approval(approval: Approval) -> BundledApproval:
    return msgspec.convert(msgspec.to_builtins(approval), BundledApproval)


def _list_artifacts(facts: Sequence[Fact]) -> list[Artifact]:
    versions = [
        msgspec.convert(fact.content, Version) for fact in facts if fact.kind is FactKind.VERSION
    ]
    return [
        Artifact(
            side=item.side,
            version=item.version,
            version_id=item.version_id,
            sha256=item.artifact_sha256,
        )
        for item in versions
    ]
