"""Datasets, their versions with files, and the releases that point to them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

LIVING = sa.text("deleted_at_us IS NULL")
BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the tables of datasets."""
    op.create_table(
        "dataset",
        _text("id"),
        _number("rev"),
        *map(_text, ("project_id", "name", "description", "owner", "tags", "numbering")),
        _big("created_at_us"),
        _text("created_by"),
        _big("deleted_at_us", nullable=True),
        _foreign("dataset", "project_id", "project"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
    )
    op.create_table(
        "dataset_version",
        _text("id"),
        _number("rev"),
        *map(_text, ("project_id", "dataset_id", "version")),
        sa.Column("version_key", BYTEWISE, nullable=False),
        *map(_text, ("manifest_sha256", "format", "license", "source", "description")),
        *map(_text, ("splits", "schema")),
        *map(_big, ("records", "size_bytes")),
        _big("duplicates", nullable=True),
        *map(_text, ("leaks", "leak_reason", "pii", "pii_scanned_by", "pii_findings")),
        _big("keep_until_us", nullable=True),
        *map(_text, ("hold_reason", "blocked_by")),
        _big("looked_at_us"),
        _text("derived_from_id"),
        _big("created_at_us"),
        _text("created_by"),
        _big("deleted_at_us", nullable=True),
        _foreign("dataset_version", "project_id", "project"),
        _foreign("dataset_version", "dataset_id", "dataset"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_version")),
    )
    op.create_table(
        "dataset_file",
        *map(_text, ("version_id", "split", "path", "project_id", "sha256")),
        *map(_big, ("size", "records")),
        _foreign("dataset_file", "version_id", "dataset_version"),
        sa.PrimaryKeyConstraint("version_id", "split", "path", name=op.f("pk_dataset_file")),
    )
    op.create_table(
        "dataset_release",
        _text("id"),
        _number("rev"),
        *map(_text, ("project_id", "dataset_id", "name", "version_id")),
        _big("changed_at_us"),
        _text("changed_by"),
        _foreign("dataset_release", "project_id", "project"),
        _foreign("dataset_release", "dataset_id", "dataset"),
        _foreign("dataset_release", "version_id", "dataset_version"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_release")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_dataset_release_dataset_id_name")),
    )
    _make_indexes()


def _make_indexes() -> None:
    versions = "dataset_version"
    _living("ix_dataset_name", "dataset", "project_id", "name", unique=True)
    _living("ix_dataset_version_number", versions, "dataset_id", "version_key", unique=True)
    _living("ix_dataset_version_manifest", versions, "manifest_sha256")
    _living("ix_dataset_version_due", versions, "looked_at_us", "keep_until_us")
    op.create_index(op.f("ix_dataset_file_sha256"), "dataset_file", ["sha256"])
    op.create_index("ix_dataset_release_version", "dataset_release", ["version_id"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _foreign(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}")
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name)


def _living(name: str, table: str, *columns: str, unique: bool = False) -> None:
    op.create_index(
        name, table, columns, unique=unique, sqlite_where=LIVING, postgresql_where=LIVING
    )
