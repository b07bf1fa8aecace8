"""The tables of artifacts' files and uploaded blobs, and all SQL on them and on artifacts."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.registry.artifacts.types import TreeEntry
from pilotage.registry.store import ARTIFACT, MODEL_VERSION
from pilotage.registry.types import Artifact

ARTIFACT_FILE = sa.Table(  # of the trees that are registered now
    "artifact_file",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("artifact_sha256", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(
        ["artifact_sha256", "project_id"], ["artifact.sha256", "artifact.project_id"]
    ),
)
BLOB = sa.Table(  # what a project has uploaded: only that may it refer to
    "blob",
    METADATA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("uploaded_at_us", sa.BigInteger, nullable=False),
)
_BATCH = 500

# artifacts


async def insert_artifact(tx: Tx, artifact: Artifact, files: Sequence[TreeEntry]) -> bool:
    """Add an artifact; False (and a transaction that can only roll back) if it is there."""
    values = {name: getattr(artifact, name) for name in Artifact.__dataclass_fields__}
    try:
        await tx.insert(ARTIFACT, **values)
    except sa.exc.IntegrityError:
        return False
    await _insert_files(tx, artifact, files)
    return True


async def revive_artifact(tx: Tx, artifact: Artifact, files: Sequence[TreeEntry]) -> bool:
    """Bring a deleted artifact back with what is said of it now; False if somebody else did."""
    dead = tx.update(ARTIFACT).where(
        ARTIFACT.c.sha256 == artifact.sha256,
        ARTIFACT.c.rev == artifact.rev - 1,
        ARTIFACT.c.deleted_at_us.is_not(None),
    )
    values = {name: getattr(artifact, name) for name in Artifact.__dataclass_fields__}
    if await tx.change(dead.values(**values)) != 1:
        return False
    await _insert_files(tx, artifact, files)
    return True


async def mark_artifact_deleted(tx: Tx, artifact: Artifact) -> bool:
    """Turn an artifact into a tombstone without files; False if it has changed meanwhile."""
    guarded = tx.update(ARTIFACT).where(
        ARTIFACT.c.sha256 == artifact.sha256,
        ARTIFACT.c.rev == artifact.rev,
        ARTIFACT.c.deleted_at_us.is_(None),
    )
    if await tx.change(guarded.values(rev=artifact.rev + 1, deleted_at_us=tx.now_us)) != 1:
        return False
    files = tx.delete(ARTIFACT_FILE).where(ARTIFACT_FILE.c.artifact_sha256 == artifact.sha256)
    await tx.change(files)
    return True


async def find_artifact(tx: Tx, sha256: str) -> Artifact | None:
    """Return an artifact by its hash, deleted ones too."""
    row = await tx.find(tx.select(ARTIFACT).where(ARTIFACT.c.sha256 == sha256))
    return Artifact(**row) if row else None


async def find_user(tx: Tx, sha256: str) -> str | None:
    """Return the id of a living version that is made of an artifact."""
    users = tx.select(MODEL_VERSION, MODEL_VERSION.c.id).where(
        MODEL_VERSION.c.artifact_sha256 == sha256, MODEL_VERSION.c.deleted_at_us.is_(None)
    )
    row = await tx.find(users.limit(1))
    return row["id"] if row else None


async def list_files(tx: Tx, sha256: str, after: str, limit: int) -> Sequence[TreeEntry]:
    """Return the files of a tree by path."""
    files = tx.select(ARTIFACT_FILE).where(
        ARTIFACT_FILE.c.artifact_sha256 == sha256, ARTIFACT_FILE.c.path > after
    )
    rows = await tx.all(files.order_by(ARTIFACT_FILE.c.path).limit(limit))
    return [TreeEntry(row["path"], row["sha256"], row["size_bytes"]) for row in rows]


async def find_file(tx: Tx, sha256: str, path: str) -> TreeEntry | None:
    """Return a file of a tree."""
    row = await tx.find(
        tx.select(ARTIFACT_FILE).where(
            ARTIFACT_FILE.c.artifact_sha256 == sha256, ARTIFACT_FILE.c.path == path
        )
    )
    return TreeEntry(row["path"], row["sha256"], row["size_bytes"]) if row else None


# blobs


async def sum_sizes(tx: Tx) -> dict[str, tuple[int, int]]:
    """Return how many bytes the living artifacts of each project have, and since when it has any.

    Projects without one are not in it; the time is in microseconds.
    """
    columns = ARTIFACT.c
    sums = (
        sa.func.sum(columns.size_bytes).label("total"),
        sa.func.min(columns.created_at_us).label("since_us"),
    )
    living = tx.select(ARTIFACT, columns.project_id, *sums).where(columns.deleted_at_us.is_(None))
    rows = await tx.all(living.group_by(columns.project_id))
    return {row["project_id"]: (int(row["total"]), int(row["since_us"])) for row in rows}


async def put_blob(tx: Tx, sha256: str, size: int) -> None:
    """Note that the project has uploaded a blob, now."""
    mine = tx.update(BLOB).where(BLOB.c.sha256 == sha256, BLOB.c.project_id == tx.project_id)
    if await tx.change(mine.values(uploaded_at_us=tx.now_us)) == 0:
        await tx.insert(BLOB, sha256=sha256, size_bytes=size, uploaded_at_us=tx.now_us)


async def drop_blobs(tx: Tx, sha256: str) -> None:
    """Forget who uploaded a blob."""
    await tx.change(tx.delete(BLOB).where(BLOB.c.sha256 == sha256))


async def find_owned(tx: Tx, hashes: Collection[str]) -> set[str]:
    """Return which blobs the project has uploaded, or has in its artifacts."""
    return await find_used(tx, hashes) | await find_uploaded(tx, hashes, 0)


async def find_used(tx: Tx, hashes: Collection[str]) -> set[str]:
    """Return which blobs are artifacts that are not deleted, or files of such."""
    used: set[str] = set()
    for batch in _batches(hashes):
        living = tx.select(ARTIFACT, ARTIFACT.c.sha256).where(
            ARTIFACT.c.sha256.in_(batch), ARTIFACT.c.deleted_at_us.is_(None)
        )
        files = tx.select(ARTIFACT_FILE, ARTIFACT_FILE.c.sha256).where(
            ARTIFACT_FILE.c.sha256.in_(batch)
        )
        for statement in (living, files):
            used |= {row["sha256"] for row in await tx.all(statement)}
    return used


async def find_uploaded(tx: Tx, hashes: Collection[str], since_us: int) -> set[str]:
    """Return which blobs somebody has uploaded since then."""
    fresh: set[str] = set()
    for batch in _batches(hashes):
        statement = tx.select(BLOB, BLOB.c.sha256).where(
            BLOB.c.sha256.in_(batch), BLOB.c.uploaded_at_us >= since_us
        )
        fresh |= {row["sha256"] for row in await tx.all(statement)}
    return fresh


async def _insert_files(tx: Tx, artifact: Artifact, files: Sequence[TreeEntry]) -> None:
    same = {"project_id": artifact.project_id, "artifact_sha256": artifact.sha256}
    rows = [
        {**same, "path": entry.path, "sha256": entry.sha256, "size_bytes": entry.size}
        for entry in files
    ]
    for start in range(0, len(rows), _BATCH):
        await tx.insert_many(ARTIFACT_FILE, rows[start : start + _BATCH])


def _batches(items: Collection[str]) -> list[list[str]]:
    ordered = sorted(items)
    return [ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH)]
