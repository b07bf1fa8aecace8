"""Artifacts may be trees of files, and be deleted; who has uploaded which blob."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Widen artifacts; add the tables of their files and of uploaded blobs."""
    for column in (
        sa.Column("rev", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("file_count", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("deleted_at_us", sa.BigInteger(), nullable=True),
    ):
        op.add_column("artifact", column)
    op.create_table(
        "artifact_file",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("artifact_sha256", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_sha256", "project_id"],
            ["artifact.sha256", "artifact.project_id"],
            name=op.f("fk_artifact_file_artifact_sha256_project_id"),
        ),
        sa.PrimaryKeyConstraint(
            "project_id", "artifact_sha256", "path", name=op.f("pk_artifact_file")
        ),
    )
    op.create_index(op.f("ix_artifact_file_sha256"), "artifact_file", ["sha256"])
    op.create_table(
        "blob",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("uploaded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_blob_project_id")),
        sa.PrimaryKeyConstraint("sha256", "project_id", name=op.f("pk_blob")),
    )
