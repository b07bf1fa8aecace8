"""The verbs of datasets. Never commits: whoever opened the transaction does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import store as registry_store
from pilotage.registry.datasets import store
from pilotage.registry.datasets.rules import (
    check_choice,
    compare,
    is_number,
    list_obstacles,
    make_key,
)
from pilotage.registry.datasets.types import (
    DataFile,
    Dataset,
    DatasetDiff,
    DatasetRelease,
    DatasetVersion,
    Numbering,
)
from pilotage.registry.lineage import LineageGraph
from pilotage.registry.rules import check_tags
from pilotage.registry.types import Node, NodeKind

EVERYTHING = 1_000_000
MOST_TEXT = 1000
LOOK_AGAIN_US = 24 * 3600 * 1_000_000


class DatasetService:
    """Datasets of projects, their versions and releases."""

    def __init__(self, clock: Clock, lineage: LineageGraph) -> None:
        self._clock = clock
        self._lineage = lineage

    # datasets

    async def create_dataset(
        self,
        tx: Tx,
        name: str,
        *,
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
        numbering: str = Numbering.SEMVER,
    ) -> Dataset:
        """Create a dataset; raise ``already_exists`` if there is one of that name."""
        dataset = Dataset(
            id=self._clock.new_id("ds"),
            rev=1,
            project_id=tx.project_id,
            name=check_name(name),
            description=_check_text(description, "description"),
            owner=_check_text(owner, "owner"),
            tags=check_tags(tags),
            numbering=check_choice(Numbering, numbering, "numbering"),
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
            deleted_at_us=None,
        )
        if await store.find_dataset(tx, name) or not await store.insert_dataset(tx, dataset):
            raise PilotageError(
                "already_exists", f"There is a dataset {name!r} already.", param="name"
            )
        await append_revision(tx, "registry.dataset.created", dataset.id, 1, dataset)
        return dataset

    async def get_dataset(self, tx: Tx, name_or_id: str) -> Dataset:
        """Return a living dataset by name or id; raise ``not_found``."""
        dataset = await store.find_dataset(tx, name_or_id)
        if dataset is None:
            raise PilotageError(
                "not_found",
                f"There is no dataset {name_or_id!r}.",
                hint="List them: pilotage datasets list",
                param="dataset",
            )
        return dataset

    async def list_datasets(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Dataset]:
        """Return living datasets by name."""
        return await store.list_datasets(tx, after, limit)

    async def change_dataset(
        self,
        tx: Tx,
        name_or_id: str,
        *,
        description: str,
        owner: str,
        tags: Sequence[str],
        expected_rev: int | None = None,
    ) -> Dataset:
        """Change what is said of a dataset; raise ``precondition_failed`` if it has changed."""
        dataset = await self.get_dataset(tx, name_or_id)
        after = replace(
            dataset,
            description=_check_text(description, "description"),
            owner=_check_text(owner, "owner"),
            tags=check_tags(tags),
        )
        if expected_rev not in (None, dataset.rev):
            raise _changed(dataset.name)
        if after == dataset:
            return dataset
        values = {
            "description": description,
            "owner": owner,
            "tags": registry_store.to_json(after.tags),
        }
        if not await store.change_dataset(tx, dataset, **values):
            raise _changed(dataset.name)
        after = replace(after, rev=dataset.rev + 1)
        await append_revision(tx, "registry.dataset.changed", dataset.id, after.rev, after, dataset)
        return after

    async def delete_dataset(self, tx: Tx, name_or_id: str) -> None:
        """Delete a dataset and its versions; raise ``conflict`` if one of them must stay."""
        dataset = await self.get_dataset(tx, name_or_id)
        for version in await store.list_versions(tx, dataset.id, "", EVERYTHING):
            await self._delete(tx, version)
        if not await store.change_dataset(tx, dataset, deleted_at_us=tx.now_us):
            raise _changed(dataset.name)
        gone = {"id": dataset.id, "name": dataset.name}
        await append_revision(
            tx, "registry.dataset.deleted", dataset.id, dataset.rev + 1, gone, dataset
        )

    # versions

    async def add_version(
        self, tx: Tx, version: DatasetVersion, files: Sequence[DataFile]
    ) -> DatasetVersion:
        """Add a version whose files are stored and checked.

        The same content under the same number changes nothing; raises ``already_exists`` for other
        content. The blobs must be held until the transaction ends.
        """
        taken = await store.find_numbered(tx, version.dataset_id, version.version_key)
        if taken is not None and taken.manifest_sha256 == version.manifest_sha256:
            return taken
        if taken is not None or not await store.insert_version(tx, version, files):
            raise PilotageError(
                "already_exists",
                f"There is a version {version.ref} already, of other records.",
                hint="Choose a higher version: versions never change.",
                param="version",
            )
        await append_revision(tx, "registry.dataset_version.created", version.id, 1, version)
        if version.derived_from_id:
            source = Node(NodeKind.DATASET, version.derived_from_id)
            here = Node(NodeKind.DATASET, version.id)
            await self._lineage.add_edge(tx, source, here, "derived_into", version.project_id)
        return version

    async def get_version(self, tx: Tx, ref: str) -> DatasetVersion:
        """Return ``NAME@VERSION``, ``NAME@RELEASE``, ``NAME``'s highest, or a version by its id.

        Raises ``not_found``.
        """
        by_id = await store.find_version(tx, ref)
        if by_id is not None:
            return by_id
        name, at, version = ref.partition("@")
        dataset = await self.get_dataset(tx, name)
        found = None
        if not at:
            found = await store.find_highest(tx, dataset.id)
        else:
            is_release = not is_number(dataset.numbering, version)
            release = await store.find_release(tx, dataset.id, version) if is_release else None
            if release is not None:
                found = await store.find_version(tx, release.version_id)
            else:
                _, key = make_key(dataset.numbering, version)
                found = await store.find_numbered(tx, dataset.id, key)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no dataset version {ref!r}.",
                hint=f"List them: pilotage datasets show {name}",
                param="version",
            )
        return found

    async def list_versions(
        self, tx: Tx, name_or_id: str, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[DatasetVersion]:
        """Return the versions of a dataset from lowest to highest, above ``after``."""
        dataset = await self.get_dataset(tx, name_or_id)
        key = make_key(dataset.numbering, after)[1] if after else ""
        return await store.list_versions(tx, dataset.id, key, limit)

    async def list_files(
        self, tx: Tx, ref: str, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[DataFile]:
        """Return the files of a version by split and path, behind ``SPLIT/PATH``."""
        split, _, path = after.partition("/")
        version = await self.get_version(tx, ref)
        return await store.list_files(tx, version.id, (split, path), limit)

    async def get_file(self, tx: Tx, ref: str, split: str, path: str) -> DataFile:
        """Return a file of a version; raise ``not_found``."""
        version = await self.get_version(tx, ref)
        found = await store.find_file(tx, version.id, split, path)
        if found is None:
            raise PilotageError(
                "not_found", f"{version.ref} has no file {f'{split}/{path}'[:200]!r}.", param="path"
            )
        return found

    async def compare_versions(self, tx: Tx, before: str, after: str) -> DatasetDiff:
        """Return what is different between two versions."""
        old, new = await self.get_version(tx, before), await self.get_version(tx, after)
        return compare(
            old, new, await store.list_files(tx, old.id), await store.list_files(tx, new.id)
        )

    async def retain_version(
        self,
        tx: Tx,
        ref: str,
        *,
        keep_until_us: int | None,
        hold_reason: str,
        expected_rev: int | None = None,
    ) -> DatasetVersion:
        """Say until when a version is kept, and whether and why it is held beyond that."""
        version = await self.get_version(tx, ref)
        if expected_rev not in (None, version.rev):
            raise _changed(version.ref)
        after = replace(
            version,
            keep_until_us=keep_until_us,
            hold_reason=_check_text(hold_reason.strip(), "hold_reason"),
            looked_at_us=0,
            rev=version.rev + 1,
        )
        if not await store.change_version(
            tx,
            version,
            keep_until_us=after.keep_until_us,
            hold_reason=after.hold_reason,
            looked_at_us=0,
        ):
            raise _changed(version.ref)
        event = "registry.dataset_version.retained"
        await append_revision(tx, event, version.id, after.rev, after, version)
        return after

    async def delete_version(self, tx: Tx, ref: str) -> None:
        """Delete a version; raise ``conflict`` that says what keeps it.

        Its blobs go with the next collection of garbage.
        """
        await self._delete(tx, await self.get_version(tx, ref))

    async def delete_due(self, tx: Tx) -> DatasetVersion | None:
        """Delete one version whose time is over, or note what keeps it; None if none is due.

        For the retention worker, in a transaction of the whole installation. What is kept is
        looked at again a day later.
        """
        version = await store.find_due(tx, tx.now_us, tx.now_us - LOOK_AGAIN_US)
        if version is None:
            return None
        inside = replace(tx, actor=replace(tx.actor, project_id=version.project_id))
        why = list_obstacles(version, tx.now_us, await self._list_references(inside, version))
        if not why:
            await self._delete(inside, version)
            return version
        told = "; ".join(why)[:MOST_TEXT]
        if not await store.change_version(inside, version, blocked_by=told, looked_at_us=tx.now_us):
            raise _changed(version.ref)
        after = replace(version, rev=version.rev + 1, blocked_by=told, looked_at_us=tx.now_us)
        event = "registry.dataset_version.deletion_refused"
        await append_revision(inside, event, version.id, after.rev, after, version)
        return after

    # releases

    async def release_version(
        self, tx: Tx, name_or_id: str, name: str, version: str, expected_rev: int | None = None
    ) -> DatasetRelease:
        """Make a release of a dataset point to a version; the first time, create it."""
        dataset = await self.get_dataset(tx, name_or_id)
        if is_number(dataset.numbering, check_name(name, "release")):
            raise PilotageError(
                "invalid_request",
                f"release: {name} is the number of a version.",
                hint="Give it a name, for example golden or stable.",
                param="release",
            )
        target = await self.get_version(tx, f"{dataset.name}@{version}")
        before = await store.find_release(tx, dataset.id, name)
        if expected_rev is not None and (before is None or before.rev != expected_rev):
            raise _changed(f"{dataset.name}@{name}")
        if before is not None and before.version_id == target.id:
            return before
        after = DatasetRelease(
            id=before.id if before else self._clock.new_id("dsr"),
            rev=before.rev + 1 if before else 1,
            project_id=dataset.project_id,
            dataset_id=dataset.id,
            name=name,
            version_id=target.id,
            version=target.version,
            changed_at_us=tx.now_us,
            changed_by=tx.actor.principal_id,
        )
        if before is None:
            await store.insert_release(tx, after)
        elif not await store.change_release(tx, before, target.id):
            raise _changed(f"{dataset.name}@{name}")
        event = "registry.dataset_release.moved"
        await append_revision(tx, event, after.id, after.rev, after, before)
        return after

    async def get_release(self, tx: Tx, name_or_id: str, name: str) -> DatasetRelease:
        """Return a release; raise ``not_found``."""
        dataset = await self.get_dataset(tx, name_or_id)
        release = await store.find_release(tx, dataset.id, name)
        if release is None:
            raise PilotageError(
                "not_found", f"{dataset.name} has no release {name!r}.", param="release"
            )
        return release

    async def list_releases(
        self, tx: Tx, name_or_id: str, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[DatasetRelease]:
        """Return the releases of a dataset by name."""
        dataset = await self.get_dataset(tx, name_or_id)
        return await store.list_releases(tx, dataset.id, after, limit)

    async def delete_release(self, tx: Tx, name_or_id: str, name: str) -> None:
        """Remove a release; the version stays."""
        release = await self.get_release(tx, name_or_id, name)
        if not await store.delete_release(tx, release):
            raise _changed(name)
        gone = {"id": release.id, "name": name}
        event = "registry.dataset_release.removed"
        await append_revision(tx, event, release.id, release.rev + 1, gone, release)

    async def _delete(self, tx: Tx, version: DatasetVersion) -> None:
        why = list_obstacles(version, tx.now_us, await self._list_references(tx, version))
        if why:
            raise PilotageError(
                "conflict",
                f"{version.ref} is not deleted: {'; '.join(why)}.",
                hint="Look at it: pilotage datasets show " + version.ref,
            )
        if not await store.change_version(tx, version, deleted_at_us=tx.now_us):
            raise _changed(version.ref)
        await store.drop_files(tx, version)
        gone: Mapping[str, str] = {"id": version.id, "ref": version.ref}
        event = "registry.dataset_version.deleted"
        await append_revision(tx, event, version.id, version.rev + 1, gone, version)

    async def _list_references(self, tx: Tx, version: DatasetVersion) -> Sequence[str]:
        """Return what lives and came of a version, or was measured on it."""
        names = [f"release {name}" for name in await store.list_pointing(tx, version.id)]
        here = Node(NodeKind.DATASET, version.id)
        behind = await self._lineage.get_lineage(tx, here, has_ancestors=False)
        nodes = {node for node, depth in behind.depths.items() if depth}
        used_by = [node for node, depth in behind.depths.items() if depth == 1]
        for run in (node for node in used_by if node.kind == NodeKind.EVALUATION):
            measured = await self._lineage.get_lineage(tx, run, steps=1, has_descendants=False)
            nodes |= {node for node in measured.depths if node.kind == NodeKind.VERSION}
        if behind.is_cut:
            names.append("more than could be looked at")
        for node in sorted(nodes):
            if node.kind == NodeKind.VERSION:
                model = await registry_store.find_version(tx, node.id)
                names += [f"model version {model.ref}"] if model else []
            elif node.kind == NodeKind.DATASET:
                data = await store.find_version(tx, node.id)
                names += [f"dataset version {data.ref}"] if data else []
        return names


def _check_text(text: str, param: str) -> str:
    if len(text) > MOST_TEXT:
        raise PilotageError(
            "invalid_request", f"{param}: it has more than {MOST_TEXT} letters.", param=param
        )
    return text


def _changed(name: str) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"{name} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
