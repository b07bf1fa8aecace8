"""Where the files of deployed models are: models of many files get a folder of their own."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import stores
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.files import ModelFiles
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment
from pilotage.identity.service import IdentityService
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.registry.artifacts.rules import write_manifest
from pilotage.registry.artifacts.types import Inspection, TreeEntry
from pilotage.registry.service import RegistryService

CONTENT = {"config.json": b"{}", "weights/one.safetensors": b"one", "weights/two": b"one"}


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    (tmp_path / "blobs").mkdir()
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
async def deployment(database: Database, clock: ManualClock, blobs: FileBlobs) -> Deployment:
    """Deploy a tree of files on a command."""
    registry = RegistryService(clock)
    service = EndpointService(
        clock, IdentityService(clock), registry, AbsentFleet(), engines=("big",)
    )
    projects = await stores.make_projects(database, clock)
    files = [await store(blobs, path, content) for path, content in CONTENT.items()]
    manifest = await store(blobs, "", write_manifest(files))  # as every tree has one
    async with database.write(projects.mine) as tx:
        await registry.create_model(tx, "tiny")
        info = Inspection(architecture="llama", format="safetensors")
        await registry.artifacts.add_artifact(tx, manifest.sha256, 10, info, files)
        await registry.create_version(tx, "tiny", "1.0.0", manifest.sha256)
        await service.create_endpoint(tx, "chat")
        return await service.deploy(tx, "chat", "tiny@1.0.0", engine="big")


async def store(blobs: FileBlobs, path: str, content: bytes) -> TreeEntry:
    async def read() -> AsyncIterator[bytes]:
        yield content

    stored = await blobs.put(read(), 1 << 20)
    return TreeEntry(path, stored.sha256, stored.size)


def read_all(folder: Path) -> Mapping[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


async def test_a_tree_is_laid_out_once_and_removed_when_nobody_needs_it(
    database: Database, clock: ManualClock, blobs: FileBlobs, deployment: Deployment, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    files = ModelFiles(blobs, RegistryService(clock).artifacts, folder)
    async with database.read(SYSTEM) as tx:
        found = await files.find(tx, [deployment, deployment])
        place = folder / deployment.artifact_sha256
        assert found == {deployment.artifact_sha256: str(place)}
        assert read_all(place) == CONTENT
        made_ns = place.stat().st_mtime_ns
        assert await files.find(tx, [deployment]) == found
        assert place.stat().st_mtime_ns == made_ns

        await files.find(tx, [])
        assert list(folder.iterdir()) == []
        assert read_all(tmp_path / "blobs").keys()


async def test_a_tree_without_all_its_blobs_is_not_there(
    database: Database, clock: ManualClock, blobs: FileBlobs, deployment: Deployment, tmp_path: Path
) -> None:
    files = ModelFiles(blobs, RegistryService(clock).artifacts, tmp_path / "models")
    lost = blobs.find(hashlib.sha256(CONTENT["config.json"]).hexdigest())
    assert lost is not None
    await asyncio.to_thread(lost.unlink)
    async with database.read(SYSTEM) as tx:
        assert await files.find(tx, [deployment]) == {}
    assert not (tmp_path / "models").exists()


async def test_a_file_that_is_a_model_stays_where_it_is(
    database: Database, clock: ManualClock, blobs: FileBlobs, deployment: Deployment, tmp_path: Path
) -> None:
    files = ModelFiles(blobs, RegistryService(clock).artifacts, tmp_path / "models")
    model, adapter = await store(blobs, "", b"model"), await store(blobs, "", b"adapter")
    single = replace(
        deployment,
        engine="llamacpp",
        artifact_sha256=model.sha256,
        adapter_sha256=adapter.sha256,
    )
    async with database.read(SYSTEM) as tx:
        found = await files.find(tx, [single])
        assert await files.find(tx, []) == {}
    assert found == {entry.sha256: str(blobs.find(entry.sha256)) for entry in (model, adapter)}
