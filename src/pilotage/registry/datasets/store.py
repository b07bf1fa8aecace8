"""The tables of datasets, and all SQL on them."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.registry.datasets.types import (
    DataFile,
    Dataset,
    DatasetRelease,
    DatasetVersion,
    SplitCount,
)
from pilotage.registry.store import BYTEWISE, living_index, to_json

DATASET = sa.Table(
    "dataset",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("numbering", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    living_index("ix_dataset_name", "project_id", "name", unique=True),
)
DATASET_VERSION = sa.Table(
    "dataset_version",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("dataset_id", sa.Text, sa.ForeignKey("dataset.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("version_key", BYTEWISE, nullable=False),
    sa.Column("manifest_sha256", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("license", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("splits", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("duplicates", sa.BigInteger),
    sa.Column("leaks", sa.Text, nullable=False),
    sa.Column("leak_reason", sa.Text, nullable=False),
    sa.Column("pii", sa.Text, nullable=False),
    sa.Column("pii_scanned_by", sa.Text, nullable=False),
    sa.Column("pii_findings", sa.Text, nullable=False),
    sa.Column("keep_until_us", sa.BigInteger),
    sa.Column("hold_reason", sa.Text, nullable=False),
    sa.Column("blocked_by", sa.Text, nullable=False),
    sa.Column("looked_at_us", sa.BigInteger, nullable=False),
    sa.Column("derived_from_id", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    living_index("ix_dataset_version_number", "dataset_id", "version_key", unique=True),
    living_index("ix_dataset_version_manifest", "manifest_sha256"),
    living_index("ix_dataset_version_due", "looked_at_us", "keep_until_us"),
)
DATASET_FILE = sa.Table(  # of living versions
    "dataset_file",
    METADATA,
    sa.Column("version_id", sa.Text, sa.ForeignKey("dataset_version.id"), primary_key=True),
    sa.Column("split", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
)
DATASET_RELEASE = sa.Table(
    "dataset_release",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("dataset_id", sa.Text, sa.ForeignKey("dataset.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("dataset_version.id"), nullable=False),
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.UniqueConstraint("dataset_id", "name"),
    sa.Index("ix_dataset_release_version", "version_id"),
)
_BATCH = 500

# datasets


async def insert_dataset(tx: Tx, dataset: Dataset) -> bool:
    """Add a dataset; False (and a transaction that can only roll back) if its name is taken."""
    values = {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}
    try:
        await tx.insert(DATASET, **values | {"tags": to_json(dataset.tags)})
    except sa.exc.IntegrityError:
        return False
    return True


async def find_dataset(tx: Tx, name_or_id: str) -> Dataset | None:
    """Return a living dataset by name or id."""
    named = (DATASET.c.name == name_or_id) | (DATASET.c.id == name_or_id)
    row = await tx.find(tx.select(DATASET).where(named, DATASET.c.deleted_at_us.is_(None)))
    return _dataset(row) if row else None


async def list_datasets(tx: Tx, after: str, limit: int) -> Sequence[Dataset]:
    """Return living datasets by name."""
    living = tx.select(DATASET).where(DATASET.c.deleted_at_us.is_(None), DATASET.c.name > after)
    return [_dataset(row) for row in await tx.all(living.order_by(DATASET.c.name).limit(limit))]


async def change_dataset(tx: Tx, dataset: Dataset, **values: object) -> bool:
    """Change columns of a living dataset; False if it has changed meanwhile."""
    guarded = tx.update(DATASET).where(
        DATASET.c.id == dataset.id,
        DATASET.c.rev == dataset.rev,
        DATASET.c.deleted_at_us.is_(None),
    )
    return await tx.change(guarded.values(rev=dataset.rev + 1, **values)) == 1


# versions


async def insert_version(tx: Tx, version: DatasetVersion, files: Sequence[DataFile]) -> bool:
    """Add a version; False (and a transaction that can only roll back) if its number is taken."""
    values = {name: getattr(version, name) for name in _COLUMNS}
    try:
        await tx.insert(DATASET_VERSION, **values | {name: to_json(values[name]) for name in _JSON})
    except sa.exc.IntegrityError:
        return False
    same = {"version_id": version.id, "project_id": version.project_id}
    rows = [{**same, **file._asdict()} for file in files]
    for start in range(0, len(rows), _BATCH):
        await tx.insert_many(DATASET_FILE, rows[start : start + _BATCH])
    return True


async def find_version(tx: Tx, version_id: str) -> DatasetVersion | None:
    """Return a living version by id."""
    row = await tx.find(_named(tx).where(DATASET_VERSION.c.id == version_id))
    return _version(row) if row else None


async def find_numbered(tx: Tx, dataset_id: str, key: str) -> DatasetVersion | None:
    """Return the living version of a dataset that has a number."""
    numbered = DATASET_VERSION.c.dataset_id == dataset_id, DATASET_VERSION.c.version_key == key
    row = await tx.find(_named(tx).where(*numbered))
    return _version(row) if row else None


async def find_highest(tx: Tx, dataset_id: str) -> DatasetVersion | None:
    """Return a dataset's highest version."""
    of_dataset = _named(tx).where(DATASET_VERSION.c.dataset_id == dataset_id)
    row = await tx.find(of_dataset.order_by(DATASET_VERSION.c.version_key.desc()).limit(1))
    return _version(row) if row else None


async def list_versions(
    tx: Tx, dataset_id: str, after_key: str, limit: int
) -> Sequence[DatasetVersion]:
    """Return the living versions of a dataset above a number, from lowest to highest."""
    above = _named(tx).where(
        DATASET_VERSION.c.dataset_id == dataset_id, DATASET_VERSION.c.version_key > after_key
    )
    rows = await tx.all(above.order_by(DATASET_VERSION.c.version_key).limit(limit))
    return [_version(row) for row in rows]


async def find_due(tx: Tx, now_us: int, looked_before_us: int) -> DatasetVersion | None:
    """Return a living version whose time is over, and that was not looked at since then."""
    due = _named(tx).where(
        DATASET_VERSION.c.keep_until_us <= now_us,
        DATASET_VERSION.c.looked_at_us < looked_before_us,
    )
    row = await tx.find(due.order_by(DATASET_VERSION.c.looked_at_us).limit(1))
    return _version(row) if row else None


async def change_version(tx: Tx, version: DatasetVersion, **values: object) -> bool:
    """Change columns of a living version; False if it has changed meanwhile."""
    guarded = tx.update(DATASET_VERSION).where(
        DATASET_VERSION.c.id == version.id,
        DATASET_VERSION.c.rev == version.rev,
        DATASET_VERSION.c.deleted_at_us.is_(None),
    )
    return await tx.change(guarded.values(rev=version.rev + 1, **values)) == 1


async def drop_files(tx: Tx, version: DatasetVersion) -> None:
    """Forget the files of a version that is deleted."""
    await tx.change(tx.delete(DATASET_FILE).where(DATASET_FILE.c.version_id == version.id))


async def list_files(
    tx: Tx, version_id: str, after: tuple[str, str] = ("", ""), limit: int = 1_000_000
) -> Sequence[DataFile]:
    """Return the files of a version by split and path."""
    c = DATASET_FILE.c
    behind = (c.split > after[0]) | ((c.split == after[0]) & (c.path > after[1]))
    statement = tx.select(DATASET_FILE).where(c.version_id == version_id, behind)
    rows = await tx.all(statement.order_by(c.split, c.path).limit(limit))
    return [DataFile(*(row[name] for name in DataFile._fields)) for row in rows]


async def find_file(tx: Tx, version_id: str, split: str, path: str) -> DataFile | None:
    """Return a file of a version."""
    c = DATASET_FILE.c
    same = c.version_id == version_id, c.split == split, c.path == path
    row = await tx.find(tx.select(DATASET_FILE).where(*same))
    return DataFile(*(row[name] for name in DataFile._fields)) if row else None


async def find_used(tx: Tx, hashes: Collection[str]) -> set[str]:
    """Return which blobs living versions are made of."""
    used: set[str] = set()
    ordered = sorted(hashes)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        files = tx.select(DATASET_FILE, DATASET_FILE.c.sha256.label("used")).where(
            DATASET_FILE.c.sha256.in_(batch)
        )
        manifests = tx.select(
            DATASET_VERSION, DATASET_VERSION.c.manifest_sha256.label("used")
        ).where(
            DATASET_VERSION.c.manifest_sha256.in_(batch),
            DATASET_VERSION.c.deleted_at_us.is_(None),
        )
        for statement in (files, manifests):
            used |= {row["used"] for row in await tx.all(statement)}
    return used


# releases


async def insert_release(tx: Tx, release: DatasetRelease) -> None:
    """Add a release."""
    values = {name: getattr(release, name) for name in DatasetRelease.__dataclass_fields__}
    del values["version"]
    await tx.insert(DATASET_RELEASE, **values)


async def find_release(tx: Tx, dataset_id: str, name: str) -> DatasetRelease | None:
    """Return a release of a dataset by name."""
    named = DATASET_RELEASE.c.dataset_id == dataset_id, DATASET_RELEASE.c.name == name
    row = await tx.find(_pointing(tx).where(*named))
    return DatasetRelease(**row) if row else None


async def list_releases(
    tx: Tx, dataset_id: str, after: str = "", limit: int = 1_000_000
) -> Sequence[DatasetRelease]:
    """Return the releases of a dataset by name."""
    c = DATASET_RELEASE.c
    behind = _pointing(tx).where(c.dataset_id == dataset_id, c.name > after)
    return [DatasetRelease(**row) for row in await tx.all(behind.order_by(c.name).limit(limit))]


async def list_pointing(tx: Tx, version_id: str) -> Sequence[str]:
    """Return the names of the releases that point to a version."""
    pointing = tx.select(DATASET_RELEASE).where(DATASET_RELEASE.c.version_id == version_id)
    return [row["name"] for row in await tx.all(pointing.order_by(DATASET_RELEASE.c.name))]


async def change_release(tx: Tx, release: DatasetRelease, version_id: str) -> bool:
    """Make a release point to another version; False if it has changed meanwhile."""
    guarded = tx.update(DATASET_RELEASE).where(
        DATASET_RELEASE.c.id == release.id, DATASET_RELEASE.c.rev == release.rev
    )
    values = {
        "rev": release.rev + 1,
        "version_id": version_id,
        "changed_at_us": tx.now_us,
        "changed_by": tx.actor.principal_id,
    }
    return await tx.change(guarded.values(**values)) == 1


async def delete_release(tx: Tx, release: DatasetRelease) -> bool:
    """Remove a release; False if it has changed meanwhile."""
    guarded = tx.delete(DATASET_RELEASE).where(
        DATASET_RELEASE.c.id == release.id, DATASET_RELEASE.c.rev == release.rev
    )
    return await tx.change(guarded) == 1


_JSON = ("splits", "schema", "leaks", "pii_findings")
_COLUMNS = [column.name for column in DATASET_VERSION.c]


def _named(tx: Tx) -> sa.Select[Any]:
    return (
        tx.select(DATASET_VERSION, *DATASET_VERSION.c, DATASET.c.name.label("dataset"))
        .join(DATASET, DATASET.c.id == DATASET_VERSION.c.dataset_id)
        .where(DATASET_VERSION.c.deleted_at_us.is_(None))
    )


def _pointing(tx: Tx) -> sa.Select[Any]:
    return tx.select(
        DATASET_RELEASE, *DATASET_RELEASE.c, DATASET_VERSION.c.version.label("version")
    ).join(DATASET_VERSION, DATASET_VERSION.c.id == DATASET_RELEASE.c.version_id)


def _dataset(row: Row) -> Dataset:
    return Dataset(**dict(row) | {"tags": msgspec.json.decode(row["tags"], type=tuple[str, ...])})


def _version(row: Row) -> DatasetVersion:
    decoded = {name: msgspec.json.decode(row[name]) for name in _JSON}
    decoded["splits"] = tuple(SplitCount(*split) for split in decoded["splits"])
    return DatasetVersion(**dict(row) | decoded)
