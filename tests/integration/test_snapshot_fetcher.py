"""Snapshots fetched from a folder and from a plain HTTP server: believed only as far as proved."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway_harness import World
from pilotage.core.snapshot import CURRENT, SECTIONS, SignedManifest
from pilotage.gateway.snapshots import SnapshotReader
from pilotage.kit.crypto import open_signer
from pilotage.runtime import snapshot_sources
from pilotage.runtime.snapshot_fetcher import SnapshotFetcher
from pilotage.runtime.snapshot_sources import BlobSource, FolderSource


class Here:
    """A folder that Snapshots are fetched into, from a world's."""

    def __init__(self, path: Path, world: World) -> None:
        self.folder = path / "here"
        self.folder.mkdir()
        self.world = world
        self.public = world.signer.public
        self.source: Any = FolderSource(world.folder.snapshots)
        self.fetcher = SnapshotFetcher(self.source, self.folder, self.public)

    def served_n(self) -> int:
        """Return what a gateway process would serve from the folder."""
        return SnapshotReader(self.folder, self.public).load(None).n

    def sections(self) -> set[str]:
        """Return the names of the sections that are here."""
        return {path.name for path in (self.folder / SECTIONS).iterdir()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr(snapshot_sources, "FOLDER_LOOK_S", 0.0)
    monkeypatch.setattr(snapshot_sources, "BLOB_LOOK_S", 0.0)
    monkeypatch.setattr("pilotage.runtime.snapshot_fetcher.LONGEST_PAUSE_S", 0.0)
    world = World(tmp_path / "world")
    world.publish()
    return Here(tmp_path, world)


async def test_what_is_published_comes_and_old_sections_go(here: Here) -> None:
    await here.fetcher.step()
    assert (here.fetcher.n, here.served_n()) == (1, 1)
    first = here.sections()
    for weight in (9000, 8000, 7000):
        here.world.publish({"dep_a": weight, "dep_b": 10_000 - weight})
        await here.fetcher.step()
    assert (here.fetcher.n, here.served_n()) == (4, 4)
    now = here.sections()
    assert len(now) == len(first) + 1  # the directory before this one may be being read
    assert SnapshotFetcher(here.source, here.folder, here.public).n == 4


async def test_an_older_snapshot_is_refused(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    old = (here.world.folder.snapshots / CURRENT).read_bytes()
    here.world.publish()
    await here.fetcher.step()
    (here.world.folder.snapshots / CURRENT).write_bytes(old)
    await here.fetcher.step()
    await here.fetcher.step()
    assert here.served_n() == 2
    assert caplog.text.count("Snapshot 1 is older than 2, which is here") == 1
    here.world.publish()
    await here.fetcher.step()
    assert here.served_n() == 3
    assert "Snapshots come again" in caplog.text


async def test_another_signature_is_refused(
    here: Here, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = here.world.folder.snapshots / CURRENT
    signed = msgspec.json.decode(path.read_bytes(), type=SignedManifest)
    stranger = open_signer(tmp_path / "stranger.key")
    forged = SignedManifest(
        manifest=signed.manifest,
        key_id=stranger.key_id,
        signature=stranger.sign(signed.manifest.encode()).hex(),
    )
    path.write_bytes(msgspec.json.encode(forged))
    await here.fetcher.step()
    assert here.fetcher.n == 0
    assert not (here.folder / CURRENT).exists()
    assert "not signed by the pinned key" in caplog.text


@pytest.mark.parametrize("harm", ["changed", "longer", "shorter", "missing"])
async def test_a_section_that_is_not_what_it_says_is_refused_and_fetched_again(
    here: Here, harm: str
) -> None:
    await here.fetcher.step()
    here.world.publish({"dep_a": 1000, "dep_b": 9000})
    sections = here.world.folder.snapshots / SECTIONS
    (added,) = {path.name for path in sections.iterdir()} - here.sections()
    good = (sections / added).read_bytes()
    bad = {"changed": good[:-1] + b"?", "longer": good + b"?", "shorter": good[:-1]}
    if harm == "missing":
        (sections / added).unlink()
    else:
        (sections / added).write_bytes(bad[harm])
    await here.fetcher.step()
    assert here.served_n() == 1
    assert added not in here.sections()
    assert not any(name.startswith(".") for name in here.sections())
    (sections / added).write_bytes(good)
    await here.fetcher.step()
    assert here.served_n() == 2


async def test_a_source_that_is_away_changes_nothing(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    await here.fetcher.step()
    shutil.rmtree(here.world.folder.snapshots)
    await here.fetcher.step()
    assert here.served_n() == 1
    assert "calls go on with number 1" in caplog.text


class BlobServer:
    """A plain HTTP server of a folder, with ETags, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[tuple[str, int]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the request of one connection; whoever leaves before that gets no answer."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1].removeprefix("/bucket/")
            status, content, etag = self._find(path, head)
            self.asked.append((path, status))
            lines = f"HTTP/1.1 {status} X\r\netag: {etag}\r\ncontent-length: {len(content)}\r\n"
            writer.write(f"{lines}connection: close\r\n\r\n".encode() + content)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _find(self, path: str, head: str) -> tuple[int, bytes, str]:
        file = self._folder / path
        if not file.is_file():
            return 404, b"", ""
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return (304, b"", etag) if etag in head else (200, content, etag)


@asynccontextmanager
async def serve_blobs(folder: Path) -> AsyncIterator[tuple[BlobServer, str]]:
    blobs = BlobServer(folder)
    server = await asyncio.start_server(blobs.answer, "127.0.0.1", 0)
    async with server:
        yield blobs, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/bucket/"


async def test_a_blob_store_is_asked_for_what_is_new_only(here: Here) -> None:
    async with (
        serve_blobs(here.world.folder.snapshots) as (blobs, url),
        httpx.AsyncClient(trust_env=False) as http,
    ):
        here.fetcher = SnapshotFetcher(BlobSource(http, url), here.folder, here.public)
        for _ in range(3):
            await here.fetcher.step()
        assert here.served_n() == 1
        assert [status for path, status in blobs.asked if path == CURRENT] == [200, 304, 304]
        here.world.publish({"dep_a": 1000, "dep_b": 9000})
        sections = here.world.folder.snapshots / SECTIONS
        (added,) = {path.name for path in sections.iterdir()} - here.sections()
        content = (sections / added).read_bytes()
        (sections / added).unlink()
        await here.fetcher.step()
        assert here.served_n() == 1
        (sections / added).write_bytes(content)
        await here.fetcher.step()
        assert here.served_n() == 2
        assert blobs.asked[-2:] == [(CURRENT, 200), (f"{SECTIONS}/{added}", 200)]
