"""The tables of the registry, and all SQL on them."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.registry.types import Artifact, Model, ModelVersion, NamedVersion

MODEL = sa.Table(
    "model",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
ARTIFACT = sa.Table(
    "artifact",
    METADATA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("info", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
MODEL_VERSION = sa.Table(
    "model_version",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("model_id", sa.Text, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("artifact_sha256", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("license", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("context_tokens", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("model_id", "version"),
    sa.ForeignKeyConstraint(
        ["artifact_sha256", "project_id"], ["artifact.sha256", "artifact.project_id"]
    ),
)

# models


async def insert_model(tx: Tx, model: Model) -> bool:
    """Add a model; False (and a transaction that can only roll back) if its name is taken."""
    return await _insert(tx, MODEL, model)


async def find_model(tx: Tx, name_or_id: str) -> Model | None:
    """Return a living model by name or id."""
    row = await tx.find(
        tx.select(MODEL).where(
            (MODEL.c.name == name_or_id) | (MODEL.c.id == name_or_id),
            MODEL.c.deleted_at_us.is_(None),
        )
    )
    return Model(**row) if row else None


async def list_models(tx: Tx, after: str, limit: int) -> Sequence[Model]:
    """Return living models by name."""
    living = tx.select(MODEL).where(MODEL.c.deleted_at_us.is_(None), MODEL.c.name > after)
    rows = await tx.all(living.order_by(MODEL.c.name).limit(limit))
    return [Model(**row) for row in rows]


async def change_model(tx: Tx, model: Model, description: str) -> bool:
    """Replace the description; False if the model has changed meanwhile."""
    guarded = tx.update(MODEL).where(
        MODEL.c.id == model.id, MODEL.c.rev == model.rev, MODEL.c.deleted_at_us.is_(None)
    )
    return await tx.change(guarded.values(rev=model.rev + 1, description=description)) == 1


async def mark_model_deleted(tx: Tx, model: Model, name: str) -> bool:
    """Turn a model into a tombstone and free its name; False if it has changed meanwhile."""
    guarded = tx.update(MODEL).where(
        MODEL.c.id == model.id, MODEL.c.rev == model.rev, MODEL.c.deleted_at_us.is_(None)
    )
    changed = guarded.values(rev=model.rev + 1, name=name, deleted_at_us=tx.now_us)
    return await tx.change(changed) == 1


# artifacts


async def insert_artifact(tx: Tx, artifact: Artifact) -> bool:
    """Add an artifact; False (and a transaction that can only roll back) if it is there."""
    return await _insert(tx, ARTIFACT, artifact)


async def find_artifact(tx: Tx, sha256: str) -> Artifact | None:
    """Return an artifact by the hash of its bytes."""
    row = await tx.find(tx.select(ARTIFACT).where(ARTIFACT.c.sha256 == sha256))
    return Artifact(**row) if row else None


# versions


async def insert_version(tx: Tx, version: ModelVersion) -> bool:
    """Add a version; False (and a transaction that can only roll back) if its number is taken."""
    return await _insert(tx, MODEL_VERSION, version)


async def find_version(tx: Tx, version_id: str) -> NamedVersion | None:
    """Return a living version by id."""
    row = await tx.find(_named(tx).where(MODEL_VERSION.c.id == version_id))
    return NamedVersion(**row) if row else None


async def list_versions(tx: Tx, model_id: str) -> Sequence[NamedVersion]:
    """Return the living versions of a model, in no order: semantic versions are not SQL's."""
    rows = await tx.all(_named(tx).where(MODEL_VERSION.c.model_id == model_id))
    return [NamedVersion(**row) for row in rows]


async def mark_version_deleted(tx: Tx, version: ModelVersion, number: str) -> bool:
    """Turn a version into a tombstone and free its number; False if it has changed meanwhile."""
    guarded = tx.update(MODEL_VERSION).where(
        MODEL_VERSION.c.id == version.id,
        MODEL_VERSION.c.rev == version.rev,
        MODEL_VERSION.c.deleted_at_us.is_(None),
    )
    changed = guarded.values(rev=version.rev + 1, version=number, deleted_at_us=tx.now_us)
    return await tx.change(changed) == 1


def _named(tx: Tx) -> sa.Select[tuple[object, ...]]:
    return (
        tx.select(MODEL_VERSION, *MODEL_VERSION.c, MODEL.c.name.label("model_name"))
        .join(MODEL, MODEL.c.id == MODEL_VERSION.c.model_id)
        .where(MODEL_VERSION.c.deleted_at_us.is_(None))
    )


async def _insert(tx: Tx, table: sa.Table, item: Model | Artifact | ModelVersion) -> bool:
    try:
        await tx.insert(table, **{name: getattr(item, name) for name in item.__dataclass_fields__})
    except sa.exc.IntegrityError:
        return False
    return True
