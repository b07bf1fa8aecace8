"""Collecting the blobs that nothing refers to any more.

A blob is left alone for a day after it was stored or taken up, and as long as work holds it: what
is being registered is never garbage, whoever collects meanwhile.
"""

from pilotage.kit.blobs_file import BlobFile, FileBlobs
from pilotage.kit.clock import Clock
from pilotage.kit.db import Actor, Database
from pilotage.kit.outbox import append_revision
from pilotage.registry.artifacts.service import ArtifactService
from pilotage.registry.artifacts.types import Collected

KEPT_US = 24 * 3600 * 1_000_000
_BATCH = 500


class GarbageCollector:
    """Finds and removes blobs without a reference; opens its own transactions."""

    def __init__(
        self, db: Database, service: ArtifactService, blobs: FileBlobs, clock: Clock
    ) -> None:
        self._db = db
        self._service = service
        self._blobs = blobs
        self._clock = clock

    async def collect(self, actor: Actor, *, dry_run: bool) -> Collected:
        """Remove what nothing refers to, or only count it."""
        since_us = self._clock.now_us() - KEPT_US
        old, young = [], 0
        for blob in self._blobs.list_all():
            if blob.touched_ns // 1000 < since_us:
                old.append(blob)
            else:
                young += 1
        removed = []
        for start in range(0, len(old), _BATCH):
            batch = old[start : start + _BATCH]
            removed += [
                blob
                for blob in await self._find_garbage(actor, batch, since_us)
                if dry_run or await self._remove(actor, blob, since_us)
            ]
        found = Collected(
            blobs=len(removed),
            bytes=sum(blob.size for blob in removed),
            kept_young=young,
            deleted=not dry_run,
        )
        if removed and not dry_run:
            async with self._db.write(actor) as tx:
                name = self._clock.new_id("gc")
                await append_revision(tx, "registry.blobs.collected", name, 1, found)
        return found

    async def _find_garbage(
        self, actor: Actor, blobs: list[BlobFile], since_us: int
    ) -> list[BlobFile]:
        async with self._db.read(actor) as tx:
            needed = await self._service.find_needed(tx, [b.sha256 for b in blobs], since_us)
        return [
            blob
            for blob in blobs
            if blob.sha256 not in needed and not self._blobs.is_held(blob.sha256)
        ]

    async def _remove(self, actor: Actor, blob: BlobFile, since_us: int) -> bool:
        async def is_needed(sha256: str) -> bool:
            async with self._db.read(actor) as tx:
                return bool(await self._service.find_needed(tx, [sha256], since_us))

        if not await self._blobs.remove(blob, is_needed):
            return False
        async with self._db.write(actor) as tx:
            await self._service.forget_blob(tx, blob.sha256)
        return True
