"""The verbs of samples. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence
from contextlib import suppress

from pilotage.core.errors import PilotageError
from pilotage.core.samples import SAMPLE, Sampled, Texts, decode_texts
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.kit.secrets import Vault
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.rollouts.samples import store
from pilotage.rollouts.samples.types import Sample, SampleCount


class SampleService:
    """Keeps the calls that gateways have sealed, for ``keep_us``, and opens them for a replay."""

    def __init__(self, clock: Clock, vault: Vault, keep_us: int) -> None:
        self._clock = clock
        self._vault = vault
        self._keep_us = keep_us

    async def get_place(self, tx: Tx, spool: str, epoch: str) -> int:
        """Return the last record of a spool that was taken, 0 for none."""
        return await store.get_place(tx, spool, epoch)

    async def record(self, tx: Tx, batch: SpoolBatch, found: Sequence[Sampled]) -> None:
        """Write what a batch of a spool holds, once; raise ``conflict`` if another has done so."""
        if not await store.move_place(
            tx, batch.spool, batch.epoch, batch.after_seq, batch.last_seq
        ):
            raise PilotageError("conflict", f"The samples of {batch.spool} were taken meanwhile.")
        await store.insert_samples(
            tx,
            [
                Sample(
                    id=one.sample_id,
                    project_id=one.project_id,
                    tenant_id=one.tenant_id,
                    alias=one.alias,
                    call_id=one.call_id,
                    at_us=one.at_us,
                    version_id=one.version_id,
                    model=one.model,
                    letter=one.letter,
                    due_us=min(one.at_us, tx.now_us) + self._keep_us,
                )
                for one in found
            ],
        )

    async def list(self, tx: Tx, alias: str, since_us: int, limit: int) -> Sequence[Sample]:
        """Return the newest samples of an endpoint since a time, oldest first, still sealed."""
        return await store.list_samples(tx, alias, since_us, limit)

    async def count(self, tx: Tx, alias: str | None = None) -> Sequence[SampleCount]:
        """Return how many calls are kept by endpoint and tenant."""
        return await store.count_samples(tx, alias)

    async def open(self, tx: Tx, samples: Sequence[Sample]) -> dict[str, Texts]:
        """Return the texts of samples by id, and note in the audit log who had them opened.

        What no key opens any more is left out.
        """
        keys = await self._vault.find_keys(tx, {sample.tenant_id for sample in samples})
        opened = {}
        for sample in samples:
            if sample.tenant_id in keys:
                with suppress(ValueError):
                    plain = keys[sample.tenant_id].open_letter(sample.letter, SAMPLE, sample.id)
                    opened[sample.id] = decode_texts(plain)
        if opened:
            note = {"samples": len(opened), "first": min(opened), "last": max(opened)}
            reading = self._clock.new_id("rdg")
            await append_revision(tx, "rollouts.samples.opened", reading, 1, note)
        return opened

    async def forget(self, tx: Tx, tenant_id: str) -> int:
        """Drop the samples of a tenant; return how many."""
        return await store.drop_of_tenant(tx, tenant_id)

    async def drop_old(self, tx: Tx) -> int:
        """Drop the samples that were kept long enough; return how many."""
        return await store.drop_due(tx)
