"""Bringing datasets in: files that were uploaded, read in the limited child, made a version."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Actor, Database
from pilotage.registry.artifacts.files import ArtifactFiles
from pilotage.registry.artifacts.service import ArtifactService
from pilotage.registry.datasets.rules import (
    check_draft,
    count_splits,
    hash_manifest,
    judge_leaks,
    make_key,
    write_manifest,
)
from pilotage.registry.datasets.service import DatasetService
from pilotage.registry.datasets.store import find_used
from pilotage.registry.datasets.types import (
    Checked,
    DataFile,
    Dataset,
    DatasetDraft,
    DatasetVersion,
)
from pilotage.registry.inspection import Limits, ask_child

_BYTES_PER_CPU_S = 4 << 20
_HINT = "JSON Lines has an object in each line, CSV the names of its columns in the first."


class TakenData(NamedTuple):
    """A version that was read and checked, to be added within its block."""

    version: DatasetVersion
    files: Sequence[DataFile]


class DatasetFiles:
    """Makes versions of uploaded files."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        service: DatasetService,
        artifacts: ArtifactService,
        files: ArtifactFiles,
    ) -> None:
        self._db = db
        self._clock = clock
        self._service = service
        self._artifacts = artifacts
        self.files = files
        artifacts.uses.append(find_used)  # what versions are made of is no garbage

    @asynccontextmanager
    async def take_version(
        self, actor: Actor, dataset: str, draft: DatasetDraft
    ) -> AsyncIterator[TakenData]:
        """Read the files of a version and hold them until the block ends.

        Raises ``not_found`` for files that the project has not uploaded, ``invalid_dataset`` for
        lines that are wrong and for records that are in two splits.
        """
        listed = check_draft(draft)
        async with self._db.read(actor) as tx:
            owner = await self._service.get_dataset(tx, dataset)
            derived = ""
            if draft.derived_from:
                derived = (await self._service.get_version(tx, draft.derived_from)).id
            await self._artifacts.check_owned(tx, [sha256 for _, _, sha256 in listed])
        make_key(owner.numbering, draft.version)
        async with self.files.holding() as hold:
            sizes = [hold.take(sha256).size for _, _, sha256 in listed]
            checked = await self._check(draft.format, listed, sum(sizes))
            judge_leaks(checked, draft.leak_reason)
            files = [
                DataFile(split, path, sha256, size, checked.records[f"{split}/{path}"])
                for (split, path, sha256), size in zip(listed, sizes, strict=True)
            ]
            manifest = write_manifest(draft.format, files)
            await hold.put(_once(manifest), len(manifest))
            version = self._make(owner, draft, derived, files, checked, actor)
            yield TakenData(version, files)

    async def _check(
        self, format_name: str, listed: Sequence[tuple[str, str, str]], size: int
    ) -> Checked:
        asked = {
            "format": format_name,
            "files": [
                (split, path, str(self.files.blobs.path_of(sha256).absolute()))
                for split, path, sha256 in listed
            ],
        }
        cpu_s = 20 + size // _BYTES_PER_CPU_S
        limits = Limits(memory_bytes=2 << 30, cpu_s=cpu_s, wall_s=4.0 * cpu_s)
        try:
            return await ask_child("dataset", asked, Checked, limits)
        except ValueError as why:
            raise PilotageError(
                "invalid_dataset", f"The dataset cannot be read: {why}.", hint=_HINT, param="files"
            ) from None

    def _make(
        self,
        dataset: Dataset,
        draft: DatasetDraft,
        derived: str,
        files: Sequence[DataFile],
        checked: Checked,
        actor: Actor,
    ) -> DatasetVersion:
        number, key = make_key(dataset.numbering, draft.version)
        splits = count_splits(files)
        return DatasetVersion(
            id=self._clock.new_id("dsv"),
            rev=1,
            project_id=dataset.project_id,
            dataset_id=dataset.id,
            dataset=dataset.name,
            version=number,
            version_key=key,
            manifest_sha256=hash_manifest(write_manifest(draft.format, files)),
            format=draft.format,
            license=draft.license,
            source=draft.source,
            description=draft.description,
            splits=splits,
            schema=checked.schema,
            records=sum(split.records for split in splits),
            size_bytes=sum(split.bytes for split in splits),
            duplicates=checked.duplicates,
            leaks=checked.leaks,
            leak_reason=draft.leak_reason.strip() if checked.leaks else "",
            pii=draft.pii,
            pii_scanned_by=draft.pii_scanned_by,
            pii_findings=dict(draft.pii_findings),
            keep_until_us=draft.keep_until_us,
            hold_reason="",
            blocked_by="",
            looked_at_us=0,
            derived_from_id=derived,
            created_at_us=self._clock.now_us(),
            created_by=actor.principal_id,
            deleted_at_us=None,
        )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
