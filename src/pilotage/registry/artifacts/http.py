"""Control-plane routes of artifacts and blobs."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RawReply, Route, View, make_page
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView
from pilotage.registry.artifacts.files import ArtifactFiles, Taken
from pilotage.registry.artifacts.garbage import GarbageCollector
from pilotage.registry.artifacts.rules import MOST_FILES, check_sha256
from pilotage.registry.artifacts.service import ArtifactService
from pilotage.registry.types import Artifact

ALLOW_PICKLES = "registry.pickles.allow"
KIND_IMPORT = OperationKind("registry.artifacts.import", "registry.artifacts.create")


class ArtifactView(View):
    """A stored model and what was found in it; a tree has ``file_count`` files, a file has 0."""

    sha256: str
    project_id: str
    size_bytes: int
    format: str
    file_count: int
    info: dict[str, Any]
    created_at: datetime


class TreeBody(Body):
    """A tree to make of uploaded blobs: the SHA-256 of each file by its path."""

    files: dict[str, str] = Field(min_length=1, max_length=MOST_FILES)
    allow_pickles: bool = False


class ImportBody(Body):
    """A file or folder below the data folder's ``gs`` to make an artifact of."""

    uri: str
    allow_pickles: bool = False


class FileView(View):
    """A file of a tree."""

    path: str
    sha256: str
    size: int


class BlobView(View):
    """Bytes that were uploaded, to become part of something within a day."""

    sha256: str
    size: int


class HashesBody(Body):
    """Hashes of blobs to ask after."""

    sha256: list[str] = Field(max_length=MOST_FILES)


class MissingView(View):
    """The blobs that have to be uploaded."""

    missing: list[str]


class CollectBody(Body):
    """How to collect garbage: ``dry_run`` only counts."""

    dry_run: bool = True


class CollectedView(View):
    """Blobs that nothing refers to: removed if ``deleted``; ``kept_young`` were not looked at."""

    blobs: int
    bytes: int
    kept_young: int
    deleted: bool


def artifact_routes(
    service: ArtifactService,
    files: ArtifactFiles,
    operations: Operations,
    garbage: GarbageCollector,
) -> list[Route]:
    """List the routes of artifacts and blobs."""
    return [
        *_upload_routes(files, operations),
        *_artifact_routes(service, files),
        *_blob_routes(service, files, garbage),
    ]


def _upload_routes(files: ArtifactFiles, operations: Operations) -> list[Route]:
    async def register(call: ApiCall, taking: AbstractAsyncContextManager[Taken]) -> ArtifactView:
        async with taking as taken, call.write() as tx:
            return show_artifact(await files.register(tx, taken))

    async def add_artifact(
        call: ApiCall,
        unpack: Literal["", "zip"] = "",
        allow_pickles: bool = False,  # noqa: FBT001, FBT002 - a parameter in the query
    ) -> ArtifactView:
        """Upload a model file, or with ``unpack=zip`` a tree, as the raw body; it is inspected."""
        reason = await _allow(call, allow_pickles)
        take = files.take_archive if unpack else files.take_file
        return await register(call, take(call.body(), pickle_reason=reason))

    async def add_tree(call: ApiCall, body: TreeBody) -> ArtifactView:
        """Make a tree of uploaded blobs; it is inspected before it is registered."""
        reason = await _allow(call, body.allow_pickles)
        return await register(call, files.take_tree(call.actor, body.files, pickle_reason=reason))

    async def import_artifact(call: ApiCall, body: ImportBody) -> OperationView:
        """Make an artifact of what lies at gs://BUCKET/PATH; its result names the artifact."""
        reason = await _allow(call, body.allow_pickles)
        taking = files.take_uri(body.uri, pickle_reason=reason)

        async def work(progress: Progress) -> Mapping[str, str]:
            progress("store")
            return {"sha256": (await register(call, taking)).sha256}

        return OperationView.of(await operations.start(call.actor, KIND_IMPORT, body.uri, work))

    return [
        _create("/artifacts", add_artifact),
        _create("/artifacts:tree", add_tree),
        Route(
            method="POST",
            path="/artifacts:import",
            permission="registry.artifacts.create",
            handler=import_artifact,
            status=202,
        ),
    ]


def _artifact_routes(service: ArtifactService, files: ArtifactFiles) -> list[Route]:
    async def get_artifact(call: ApiCall, sha256: str) -> ArtifactView:
        """Show an artifact."""
        async with call.read() as tx:
            return show_artifact(await service.get_artifact(tx, sha256))

    async def delete_artifact(call: ApiCall, sha256: str) -> None:
        """Delete an artifact; refused while a version is made of it."""
        async with call.write() as tx:
            await service.delete_artifact(tx, sha256)

    async def list_artifact_files(
        call: ApiCall, tree: str, limit: int = 50, after: str = ""
    ) -> Page[FileView]:
        """List the files of an artifact by path; none for one that is a single file."""
        async with call.read() as tx:
            found = await service.list_files(tx, tree, after, limit + 1)
        return make_page(found, limit, FileView.of, "path")

    async def get_artifact_content(call: ApiCall, sha256: str, path: str = "") -> RawReply:
        """Fetch the bytes of a single file; of a tree's file by ``path``, or of its manifest."""
        async with call.read() as tx:
            await service.get_artifact(tx, sha256)
            blob = (await service.get_file(tx, sha256, path)).sha256 if path else sha256
        return RawReply(body=files.blobs.path_of(blob))

    def read(path: str, handler: Any) -> Route:  # noqa: ANN401 - any handler
        permission = "registry.artifacts.read"
        return Route(method="GET", path=path, permission=permission, handler=handler)

    return [
        read("/artifacts/{sha256}", get_artifact),
        read("/artifacts/{tree}/files", list_artifact_files),
        read("/artifacts/{sha256}/content", get_artifact_content),
        Route(
            method="DELETE",
            path="/artifacts/{sha256}",
            permission="registry.artifacts.delete",
            handler=delete_artifact,
            status=204,
        ),
    ]


def _blob_routes(
    service: ArtifactService, files: ArtifactFiles, garbage: GarbageCollector
) -> list[Route]:
    async def add_blob(call: ApiCall, sha256: str | None = None) -> BlobView:
        """Upload bytes, as the raw body, that become part of a tree or a dataset within a day."""
        expected = check_sha256(sha256) if sha256 is not None else None
        async with files.take_blob(call.body(), expected) as blob:
            async with call.write() as tx:
                await service.add_blob(tx, blob.sha256, blob.size)
            return BlobView.of(blob)

    async def list_missing(call: ApiCall, body: HashesBody) -> MissingView:
        """Say which blobs have to be uploaded before they can be referred to."""
        hashes = [check_sha256(sha256) for sha256 in body.sha256]
        async with call.read() as tx:
            return MissingView(missing=list(await service.list_missing(tx, hashes)))

    async def collect_blobs(call: ApiCall, body: CollectBody) -> CollectedView:
        """Remove the blobs that nothing has referred to for a day, or only count them."""
        return CollectedView.of(await garbage.collect(call.actor, dry_run=body.dry_run))

    return [
        _create("/blobs", add_blob),
        Route(
            method="POST",
            path="/blobs:missing",
            permission="registry.artifacts.create",
            handler=list_missing,
        ),
        Route(
            method="POST",
            path="/blobs:collect",
            permission="registry.blobs.collect",
            handler=collect_blobs,
            is_global=True,
        ),
    ]


def show_artifact(artifact: Artifact) -> ArtifactView:
    """Return what the API shows of an artifact."""
    return ArtifactView.of(artifact, info=msgspec.json.decode(artifact.info))


def _create(path: str, handler: Any) -> Route:  # noqa: ANN401 - any handler
    permission = "registry.artifacts.create"
    return Route(method="POST", path=path, permission=permission, handler=handler, status=201)


async def _allow(call: ApiCall, allow_pickles: bool) -> str | None:  # noqa: FBT001 - as asked for
    """Return why pickles may come in, None if they may not; raise unless the caller may say so."""
    if not allow_pickles:
        return None
    await call.require(ALLOW_PICKLES)
    if not call.actor.reason.strip():
        raise PilotageError(
            "invalid_request",
            "Letting a pickle in needs a reason.",
            hint="Send it as X-Pilotage-Reason, or: --reason WHY",
            param="allow_pickles",
        )
    return call.actor.reason.strip()
