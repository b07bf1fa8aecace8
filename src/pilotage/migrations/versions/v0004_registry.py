"""The registry's record: what a version is, its evidence, its lineage, its card, and its words."""

import json
import re
from typing import Any

import sqlalchemy as sa
from alembic import op

from pilotage.core.semver import parse_semver

revision = "0004"
down_revision = "0003"

NOTHING = sa.text("''")
NO_LIST = sa.text("'[]'")
NO_FIELDS = sa.text("'{}'")
LIVING = sa.text("deleted_at_us IS NULL")
CURRENT = sa.text("superseded_by IS NULL")
BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
MEASURED = ("project_id", "subject", "value_real", "version_id")
EDGE = ("project_id", "from_kind", "from_id", "to_kind", "to_id", "relation")
KNOWN_SOURCES = ("manual", "package")  # what versions were made of until now


def upgrade() -> None:
    """Widen versions, order them by a key of text, and add the tables beside them."""
    _add_columns()
    _make_tables()
    with op.batch_alter_table("model_version") as table:  # a number is free again once deleted
        table.drop_constraint(op.f("uq_model_version_model_id_version"), type_="unique")
    _fill()
    with op.batch_alter_table("model_version") as table:
        table.alter_column("artifact_sha256", existing_type=sa.Text(), nullable=True)
        table.alter_column("semver_key", existing_type=BYTEWISE, server_default=None)
        table.alter_column("is_release", existing_type=sa.Boolean(), server_default=None)
        table.alter_column("updated_at_us", existing_type=sa.BigInteger(), server_default=None)
    _make_indexes()


def _add_columns() -> None:
    for column in (
        sa.Column("stage", sa.Text(), nullable=False, server_default="development"),
        sa.Column("semver_key", BYTEWISE, nullable=False, server_default=NOTHING),
        sa.Column("is_release", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("display_name", sa.Text(), nullable=False, server_default=NOTHING),
        sa.Column("base_model", sa.Text(), nullable=False, server_default=NOTHING),
        sa.Column("parent_version_id", sa.Text(), nullable=True),
        sa.Column("artifact_uri", sa.Text(), nullable=False, server_default=NOTHING),
        sa.Column("serving_container_uri", sa.Text(), nullable=False, server_default=NOTHING),
        sa.Column("custom_metadata", sa.Text(), nullable=False, server_default=NO_FIELDS),
        sa.Column("tags", sa.Text(), nullable=False, server_default=NO_LIST),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("deprecated_at_us", sa.BigInteger(), nullable=True),
        sa.Column("deprecation_reason", sa.Text(), nullable=False, server_default=NOTHING),
        sa.Column("replaced_by_id", sa.Text(), nullable=True),
    ):
        op.add_column("model_version", column)


def _make_tables() -> None:
    op.create_table(
        "version_tag",
        _text("project_id"),
        _text("tag"),
        _text("version_id"),
        sa.PrimaryKeyConstraint("project_id", "tag", "version_id", name=op.f("pk_version_tag")),
    )
    op.create_table(
        "version_word",
        _text("project_id"),
        sa.Column("word", BYTEWISE, nullable=False),
        _text("version_id"),
        sa.PrimaryKeyConstraint("project_id", "word", "version_id", name=op.f("pk_version_word")),
    )
    op.create_table(
        "evidence",
        *map(_text, ("id", "project_id", "version_id", "kind", "subject")),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("value_real", sa.Double(), nullable=True),
        _text("unit"),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("low", sa.Text(), nullable=True),
        sa.Column("high", sa.Text(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=True),
        *map(_text, ("hash", "run_id", "dataset_version_id", "tool", "note")),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        _text("created_by"),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("superseded_by", sa.Text(), nullable=True),
        _project("evidence"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
    )
    op.create_table(
        "lineage_edge",
        *map(_text, ("id", "project_id", "from_kind", "from_id", "to_kind", "to_id", "relation")),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        _text("by"),
        _project("lineage_edge"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lineage_edge")),
    )
    op.create_table(
        "model_card",
        _text("version_id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _text("project_id"),
        _text("fields"),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        _text("created_by"),
        _project("model_card"),
        sa.PrimaryKeyConstraint("version_id", "rev", name=op.f("pk_model_card")),
    )


def _make_indexes() -> None:
    versions = "model_version"
    _index("ix_version_number", versions, "model_id", "semver_key", unique=True, where=LIVING)
    _index("ix_version_release", versions, "model_id", "is_release", "semver_key", where=LIVING)
    _index("ix_version_newest", versions, "project_id", "id", where=LIVING)
    _index("ix_version_stage", versions, "project_id", "stage", "id", where=LIVING)
    _index("ix_version_source", versions, "project_id", "source", "id", where=LIVING)
    _index("ix_version_parent", versions, "parent_version_id")
    _index("ix_version_artifact", versions, "project_id", "artifact_sha256")
    _index("ix_model_newest", "model", "project_id", "id", where=LIVING)
    _index("ix_version_tag_version", "version_tag", "version_id")
    _index("ix_version_word_version", "version_word", "version_id", "word")
    _index("ix_evidence_version", "evidence", "version_id", "kind", "subject")
    _index("ix_evidence_measured", "evidence", *MEASURED, where=CURRENT)
    _index("ix_lineage_edge_from", "lineage_edge", *EDGE, unique=True)
    _index("ix_lineage_edge_to", "lineage_edge", "project_id", "to_kind", "to_id")


def _fill() -> None:
    """Give the versions that are there their keys, their words and their sources."""
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT v.id, v.project_id, v.version, v.source, v.description, v.created_at_us,"
            " v.deleted_at_us, m.name FROM model_version v JOIN model m ON m.id = v.model_id"
        )
    )
    rows = found.mappings().all()
    versions = [_version(row) for row in rows]
    words = [word for row in rows if row["deleted_at_us"] is None for word in _words(row)]
    if versions:
        connection.execute(
            sa.text(
                "UPDATE model_version SET version = :version, semver_key = :key,"
                " is_release = :is_release, source = :source, custom_metadata = :more,"
                " updated_at_us = :at WHERE id = :id"
            ),
            versions,
        )
        connection.execute(
            sa.text("INSERT INTO version_word VALUES (:project_id, :word, :version_id)"), words
        )


def _version(row: sa.RowMapping) -> dict[str, Any]:
    number = parse_semver(row["version"].partition("~")[0])  # a deleted one had its id behind it
    is_known = row["source"] in KNOWN_SOURCES
    return {
        "id": row["id"],
        "version": str(number),
        "key": number.text_key(),
        "is_release": not number.prerelease,
        "source": row["source"] if is_known else "custom",
        "more": "{}" if is_known else json.dumps({"source": row["source"]}),
        "at": row["created_at_us"],
    }


def _words(row: sa.RowMapping) -> list[dict[str, str]]:
    text = f"{row['name']} {row['description']}".casefold()
    words = sorted({word[:40] for word in re.findall(r"[^\W_]+", text)})[:100]
    same = {"project_id": row["project_id"], "version_id": row["id"]}
    return [same | {"word": word} for word in words]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _project(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_project_id")
    return sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=name)


def _index(
    name: str, table: str, *columns: str, unique: bool = False, where: sa.TextClause | None = None
) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
