"""Bringing files in: single ones, trees of uploaded blobs, archives, folders of the data folder.

Each way stores, inspects and yields what was taken; its blobs are held until the block ends, within
which it is registered. A block that fails leaves nothing behind of what it stored.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.blobs_file import BlobHold, BlobRef, FileBlobs
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.registry.artifacts.folders import Place, list_place, locate_uri, open_below
from pilotage.registry.artifacts.rules import (
    check_sha256,
    check_tree,
    judge_pickles,
    write_manifest,
)
from pilotage.registry.artifacts.service import ArtifactService
from pilotage.registry.artifacts.types import Inspection, Pickle, TreeEntry, UnpackLimits
from pilotage.registry.artifacts.unpack import open_archive
from pilotage.registry.inspection import Surveyed, inspect_file, inspect_tree
from pilotage.registry.types import Artifact

MAX_BYTES = 1 << 40
_PART_BYTES = 1 << 20


class Taken(NamedTuple):
    """What was stored and inspected: ``files`` are those of a tree, none for a single file."""

    sha256: str
    size: int
    info: Inspection
    files: tuple[TreeEntry, ...] = ()


class ArtifactFiles:
    """Stores the files of artifacts, inspected before anything refers to them."""

    def __init__(
        self,
        db: Database,
        service: ArtifactService,
        blobs: FileBlobs,
        gs: Path,
        *,
        max_bytes: int = MAX_BYTES,
        limits: UnpackLimits | None = None,
    ) -> None:
        self._db = db
        self._service = service
        self._gs = gs
        self._max_bytes = max_bytes
        self._limits = limits or UnpackLimits(total_bytes=max_bytes)
        self.blobs = blobs

    async def register(self, tx: Tx, taken: Taken) -> Artifact:
        """Register what was taken, within its block."""
        return await self._service.add_artifact(
            tx, taken.sha256, taken.size, taken.info, taken.files
        )

    @asynccontextmanager
    async def take_blob(
        self, stream: AsyncIterator[bytes], sha256: str | None = None
    ) -> AsyncIterator[BlobRef]:
        """Store a stream that becomes part of something later."""
        async with self.holding() as hold:
            blob = await hold.put(stream, self._max_bytes)
            _check_expected(blob, sha256)
            yield blob

    @asynccontextmanager
    async def take_file(
        self,
        stream: AsyncIterator[bytes],
        *,
        sha256: str | None = None,
        pickle_reason: str | None = None,
    ) -> AsyncIterator[Taken]:
        """Store a single file; raise ``invalid_artifact`` if it is no model, or not that hash."""
        async with self.holding() as hold:
            blob = await hold.put(stream, self._max_bytes)
            _check_expected(blob, sha256)
            surveyed = await inspect_file(self.blobs.path_of(blob.sha256))
            named = {"": TreeEntry("the file", blob.sha256, blob.size)}
            yield Taken(blob.sha256, blob.size, _judge(surveyed, named, pickle_reason))

    @asynccontextmanager
    async def take_tree(
        self, actor: Actor, files: Mapping[str, str], *, pickle_reason: str | None = None
    ) -> AsyncIterator[Taken]:
        """Make a tree of blobs that the actor's project has uploaded: SHA-256 by path.

        Raises ``not_found`` for blobs that are not there.
        """
        hashes = {check_sha256(sha256) for sha256 in files.values()}
        async with self._db.read(actor) as tx:
            await self._service.check_owned(tx, hashes)
        async with self.holding() as hold:
            entries = [
                TreeEntry(path, sha256, hold.take(sha256).size) for path, sha256 in files.items()
            ]
            yield await self._take_entries(hold, entries, pickle_reason)

    @asynccontextmanager
    async def take_archive(
        self, stream: AsyncIterator[bytes], *, pickle_reason: str | None = None
    ) -> AsyncIterator[Taken]:
        """Unpack a zip archive into a tree; the archive itself is not kept."""
        async with self.holding() as hold:
            packed = await hold.put(stream, self._max_bytes)
            archive = await open_archive(self.blobs.path_of(packed.sha256), self._limits)
            try:
                found = [TreeEntry(item.path, "0" * 64, item.size) for item in archive.list_files()]
                check_tree(found)  # its paths, before anything is unpacked
                entries = []
                for item in found:
                    async with aclosing(archive.read(item.path)) as parts:
                        blob = await hold.put(parts, item.size)
                    entries.append(TreeEntry(item.path, blob.sha256, blob.size))
            finally:
                archive.close()
            if packed.sha256 not in {entry.sha256 for entry in entries}:  # as it is in a quine
                await hold.drop_one(packed.sha256, self._is_needed)
            yield await self._take_entries(hold, entries, pickle_reason)

    def take_uri(
        self, uri: str, *, pickle_reason: str | None = None
    ) -> AbstractAsyncContextManager[Taken]:
        """Store the file or the folder at ``gs://BUCKET/PATH``; raise ``not_found``."""
        return self.take_place(locate_uri(self._gs, uri), pickle_reason=pickle_reason)

    def take_path(
        self, path: Path, *, pickle_reason: str | None = None
    ) -> AbstractAsyncContextManager[Taken]:
        """Store a file or a folder of this machine."""
        whole = path.absolute()
        place = Place(whole.parent, (whole.name,), str(path))
        return self.take_place(place, pickle_reason=pickle_reason)

    @asynccontextmanager
    async def take_place(
        self, place: Place, *, pickle_reason: str | None = None
    ) -> AsyncIterator[Taken]:
        """Store the file or the folder at a place."""
        paths = list_place(place)
        if paths == [""]:
            async with self.take_file(_read(place, ""), pickle_reason=pickle_reason) as taken:
                yield taken
            return
        async with self.holding() as hold:
            entries, left = [], self._max_bytes
            for path in paths:
                blob = await hold.put(_read(place, path), left)
                left -= blob.size
                entries.append(TreeEntry(path, blob.sha256, blob.size))
            yield await self._take_entries(hold, entries, pickle_reason)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[BlobHold]:
        """Hold what is stored within a block; remove it if the block fails."""
        with self.blobs.hold() as hold:
            try:
                yield hold
            except BaseException:
                await hold.drop(self._is_needed)
                raise

    async def _take_entries(
        self, hold: BlobHold, entries: Sequence[TreeEntry], pickle_reason: str | None
    ) -> Taken:
        tree = check_tree(entries)
        total = sum(entry.size for entry in tree)
        if total > self._max_bytes:
            raise PilotageError(
                "request_too_large", f"A tree may have {self._max_bytes} bytes at most."
            )
        surveyed = await inspect_tree(
            {entry.path: self.blobs.path_of(entry.sha256) for entry in tree}
        )
        info = _judge(surveyed, {entry.path: entry for entry in tree}, pickle_reason)
        manifest = write_manifest(tree)
        blob = await hold.put(_once(manifest), len(manifest))
        return Taken(blob.sha256, total, info, tree)

    async def _is_needed(self, sha256: str) -> bool:
        async with self._db.read(SYSTEM) as tx:
            return bool(await self._service.find_needed(tx, [sha256]))


def _judge(
    surveyed: Surveyed, files: Mapping[str, TreeEntry], pickle_reason: str | None
) -> Inspection:
    pickles = tuple(
        Pickle(files[path].path, files[path].sha256, why)
        for path, why in sorted(surveyed.pickles.items())
    )
    judge_pickles(pickles, pickle_reason)
    reason = pickle_reason if pickles and pickle_reason else ""
    return replace(surveyed.inspection, pickles=pickles, pickle_reason=reason)


def _check_expected(blob: BlobRef, sha256: str | None) -> None:
    if sha256 not in (None, blob.sha256):
        raise PilotageError(
            "invalid_artifact", f"The file has the SHA-256 {blob.sha256}, not {sha256}."
        )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _read(place: Place, path: str) -> AsyncIterator[bytes]:
    with open_below(place, path) as file:
        while part := file.read(_PART_BYTES):
            yield part
