"""Where the files of deployed models are: blobs, or folders of links for models of many files."""

import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pilotage.core.names import LLAMACPP
from pilotage.endpoints.types import Deployment
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.db import Tx
from pilotage.registry.artifacts.service import ArtifactService
from pilotage.registry.artifacts.types import TreeEntry


class ModelFiles:
    """Finds what engines load; ``folder`` is for the models that are trees of files.

    These are laid out as commands expect them, each under its hash. The folders may be thrown away
    at any time: what is wanted is laid out again.
    """

    def __init__(self, blobs: FileBlobs, artifacts: ArtifactService, folder: Path) -> None:
        self._blobs = blobs
        self._artifacts = artifacts
        self._folder = folder

    async def find(self, tx: Tx, deployments: Iterable[Deployment]) -> dict[str, str]:
        """Return where the models and adapters of deployments are, by SHA-256, if they are there.

        Trees that none of them needs are removed: who has read one does not need it.
        """
        paths: dict[str, Path | None] = {}
        for item in deployments:
            for sha256 in filter(None, (item.artifact_sha256, item.adapter_sha256)):
                if sha256 not in paths:
                    paths[sha256] = await self._find_one(tx, item, sha256)
        self._keep_only(paths.keys())
        return {sha256: str(path) for sha256, path in paths.items() if path}

    async def _find_one(self, tx: Tx, item: Deployment, sha256: str) -> Path | None:
        if item.engine == LLAMACPP:
            return self._blobs.find(sha256)
        place = self._folder / sha256
        if place.is_dir():
            return place
        own = replace(tx, actor=replace(tx.actor, project_id=item.project_id))
        files = await self._artifacts.list_files(own, sha256)
        # the blob of that hash is the model itself, or what lists the files of one
        return self._lay_out(place, files) if files else self._blobs.find(sha256)

    def _lay_out(self, place: Path, files: Sequence[TreeEntry]) -> Path | None:
        """Make the folder of a tree, whole or not at all; None if a blob is missing."""
        blobs = {entry.path: self._blobs.find(entry.sha256) for entry in files}
        if None in blobs.values():
            return None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        begun = Path(tempfile.mkdtemp(dir=self._folder))
        for path, blob in blobs.items():
            link = begun / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob or "")
        return begun.rename(place)

    def _keep_only(self, wanted: Collection[str]) -> None:
        there = self._folder.iterdir() if self._folder.is_dir() else ()
        for place in [found for found in there if found.name not in wanted]:
            shutil.rmtree(place)
