"""The tables of the registry, and all SQL on them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.kit.outbox import REVISION
from pilotage.registry.types import Model, ModelVersion, NamedVersion

NOTHING = sa.text("''")
BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def living_index(name: str, *columns: str, unique: bool = False) -> sa.Index:
    """Return an index of the rows that are not deleted."""
    living = sa.text("deleted_at_us IS NULL")
    return sa.Index(name, *columns, unique=unique, sqlite_where=living, postgresql_where=living)


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
    living_index("ix_model_newest", "project_id", "id"),
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
    sa.Column("rev", sa.Integer, nullable=False, server_default="1"),
    sa.Column("file_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deleted_at_us", sa.BigInteger),
)
MODEL_VERSION = sa.Table(
    "model_version",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("model_id", sa.Text, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("artifact_sha256", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("license", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("context_tokens", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.Column("stage", sa.Text, nullable=False, server_default="development"),
    sa.Column("semver_key", BYTEWISE, nullable=False),
    sa.Column("is_release", sa.Boolean, nullable=False),
    sa.Column("display_name", sa.Text, nullable=False, server_default=NOTHING),
    sa.Column("base_model", sa.Text, nullable=False, server_default=NOTHING),
    sa.Column("parent_version_id", sa.Text),
    sa.Column("artifact_uri", sa.Text, nullable=False, server_default=NOTHING),
    sa.Column("serving_container_uri", sa.Text, nullable=False, server_default=NOTHING),
    sa.Column("custom_metadata", sa.Text, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("tags", sa.Text, nullable=False, server_default=sa.text("'[]'")),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("deprecated_at_us", sa.BigInteger),
    sa.Column("deprecation_reason", sa.Text, nullable=False, server_default=NOTHING),
    sa.Column("replaced_by_id", sa.Text),
    sa.ForeignKeyConstraint(
        ["artifact_sha256", "project_id"], ["artifact.sha256", "artifact.project_id"]
    ),
    living_index("ix_version_number", "model_id", "semver_key", unique=True),
    living_index("ix_version_release", "model_id", "is_release", "semver_key"),
    living_index("ix_version_newest", "project_id", "id"),
    living_index("ix_version_stage", "project_id", "stage", "id"),
    living_index("ix_version_source", "project_id", "source", "id"),
    sa.Index("ix_version_parent", "parent_version_id"),
    sa.Index("ix_version_artifact", "project_id", "artifact_sha256"),
)
VERSION_TAG = sa.Table(  # the tags of living versions, to find these by
    "version_tag",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Index("ix_version_tag_version", "version_id"),
)
VERSION_WORD = sa.Table(  # the words of their names, tags and descriptions, for the same
    "version_word",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("word", BYTEWISE, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Index("ix_version_word_version", "version_id", "word"),
)
_IN_JSON = ("custom_metadata", "tags")

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


async def list_models(
    tx: Tx, after: str, limit: int, *, is_newest_first: bool = False
) -> Sequence[Model]:
    """Return living models behind a name by name, or behind an id from the newest to the oldest."""
    living = tx.select(MODEL).where(MODEL.c.deleted_at_us.is_(None))
    if not is_newest_first:
        living = living.where(MODEL.c.name > after).order_by(MODEL.c.name)
    else:
        living = living.where(MODEL.c.id < after) if after else living
        living = living.order_by(MODEL.c.id.desc())
    return [Model(**row) for row in await tx.all(living.limit(limit))]


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


# versions


async def insert_version(tx: Tx, version: ModelVersion, words: Iterable[str]) -> bool:
    """Add a version; False (and a transaction that can only roll back) if its number is taken."""
    values = {name: getattr(version, name) for name in ModelVersion.__dataclass_fields__}
    try:
        await tx.insert(MODEL_VERSION, **_in_json(values))
    except sa.exc.IntegrityError:
        return False
    await _index_version(tx, version, version.tags, words)
    return True


async def find_version(tx: Tx, version_id: str) -> NamedVersion | None:
    """Return a living version by id."""
    return await _find_version(tx, _named(tx).where(MODEL_VERSION.c.id == version_id))


async def find_numbered(tx: Tx, model_id: str, semver_key: str) -> NamedVersion | None:
    """Return the living version of a model that has a number."""
    numbered = _named(tx).where(
        MODEL_VERSION.c.model_id == model_id, MODEL_VERSION.c.semver_key == semver_key
    )
    return await _find_version(tx, numbered)


async def find_highest(tx: Tx, model_id: str) -> NamedVersion | None:
    """Return a model's highest release; its highest pre-release where there is no release."""
    highest = (
        _named(tx)
        .where(MODEL_VERSION.c.model_id == model_id)
        .order_by(MODEL_VERSION.c.is_release.desc(), MODEL_VERSION.c.semver_key.desc())
    )
    return await _find_version(tx, highest.limit(1))


async def list_by_ids(tx: Tx, ids: Sequence[str]) -> Sequence[NamedVersion]:
    """Return the living versions among some ids, oldest first."""
    if not ids:
        return []
    rows = await tx.all(_named(tx).where(MODEL_VERSION.c.id.in_(ids)).order_by(MODEL_VERSION.c.id))
    return [named_version(row) for row in rows]


async def hold_versions(tx: Tx, ids: Sequence[str], *, to_change: bool) -> None:
    """Let nobody else change some versions before this transaction ends, wait for who does.

    SQLite has one writer at a time anyhow.
    """
    rows = tx.select(MODEL_VERSION, MODEL_VERSION.c.id).where(MODEL_VERSION.c.id.in_(ids))
    await tx.all(rows.order_by(MODEL_VERSION.c.id).with_for_update(read=not to_change))


async def list_versions(
    tx: Tx, model_id: str, after_key: str, limit: int
) -> Sequence[NamedVersion]:
    """Return the living versions of a model above a number, from lowest to highest."""
    above = _named(tx).where(
        MODEL_VERSION.c.model_id == model_id, MODEL_VERSION.c.semver_key > after_key
    )
    rows = await tx.all(above.order_by(MODEL_VERSION.c.semver_key).limit(limit))
    return [named_version(row) for row in rows]


async def find_last_in_stage(tx: Tx, version: NamedVersion, stage: str) -> NamedVersion | None:
    """Return the other version of a model that came to a stage last, of those that are in it.

    Where none is there now, of those that ever were, deleted ones among them.
    """
    is_there = sa.and_(MODEL_VERSION.c.stage == stage, MODEL_VERSION.c.deleted_at_us.is_(None))
    came = (
        _ever_named(tx)
        .join(REVISION, REVISION.c.object_id == MODEL_VERSION.c.id)
        .where(
            MODEL_VERSION.c.model_id == version.model_id,
            MODEL_VERSION.c.id != version.id,
            REVISION.c.project_id == version.project_id,
            REVISION.c.event == "registry.version.promoted",
            REVISION.c.after.contains(f'"stage":"{stage}"'),
        )
    )
    return await _find_version(tx, came.order_by(is_there.desc(), REVISION.c.seq.desc()).limit(1))


async def change_version(tx: Tx, version: ModelVersion, **values: object) -> bool:
    """Change columns of a living version and count its revision up.

    False if it has changed meanwhile. Tags and words are another matter: :func:`reindex_version`.
    """
    guarded = tx.update(MODEL_VERSION).where(
        MODEL_VERSION.c.id == version.id,
        MODEL_VERSION.c.rev == version.rev,
        MODEL_VERSION.c.deleted_at_us.is_(None),
    )
    changed = {"rev": version.rev + 1, "updated_at_us": tx.now_us} | _in_json(values)
    return await tx.change(guarded.values(**changed)) == 1


async def mark_version_deleted(tx: Tx, version: ModelVersion) -> bool:
    """Turn a version into a tombstone, which frees its number.

    False if it has changed meanwhile.
    """
    if not await change_version(tx, version, deleted_at_us=tx.now_us):
        return False
    await reindex_version(tx, version, (), ())
    return True


async def reindex_version(
    tx: Tx, version: ModelVersion, tags: Iterable[str], words: Iterable[str]
) -> None:
    """Replace the tags and words by which a version is found."""
    for table in (VERSION_TAG, VERSION_WORD):
        await tx.change(tx.delete(table).where(table.c.version_id == version.id))
    await _index_version(tx, version, tags, words)


def named_version(row: Row | Mapping[str, Any]) -> NamedVersion:
    """Return the version that a row of a query on versions and their models' names holds."""
    return NamedVersion(
        **dict(row)
        | {
            "custom_metadata": msgspec.json.decode(row["custom_metadata"]),
            "tags": msgspec.json.decode(row["tags"], type=tuple[str, ...]),
        }
    )


async def _find_version(tx: Tx, statement: sa.Select[Any]) -> NamedVersion | None:
    row = await tx.find(statement)
    return named_version(row) if row else None


async def _index_version(
    tx: Tx, version: ModelVersion, tags: Iterable[str], words: Iterable[str]
) -> None:
    same = {"project_id": version.project_id, "version_id": version.id}
    await tx.insert_many(VERSION_TAG, [{**same, "tag": tag} for tag in tags])
    await tx.insert_many(VERSION_WORD, [{**same, "word": word} for word in words])


def _named(tx: Tx) -> sa.Select[Any]:
    return _ever_named(tx).where(MODEL_VERSION.c.deleted_at_us.is_(None))


def _ever_named(tx: Tx) -> sa.Select[Any]:
    """Select versions, deleted ones too."""
    return tx.select(MODEL_VERSION, *MODEL_VERSION.c, MODEL.c.name.label("model_name")).join(
        MODEL, MODEL.c.id == MODEL_VERSION.c.model_id
    )


def _in_json(values: dict[str, object]) -> dict[str, object]:
    return values | {name: to_json(values[name]) for name in _IN_JSON if name in values}


def to_json(value: object) -> str:
    """Write a value as the text that a column keeps."""
    return msgspec.json.encode(value, order="sorted").decode()


async def _insert(tx: Tx, table: sa.Table, item: Model) -> bool:
    try:
        await tx.insert(table, **{name: getattr(item, name) for name in item.__dataclass_fields__})
    except sa.exc.IntegrityError:
        return False
    return True
