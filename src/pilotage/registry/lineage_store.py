"""The table of lineage, and all SQL on it."""

import sqlalchemy as sa

from pilotage.kit.db import METADATA

LINEAGE_EDGE = sa.Table(
    "lineage_edge",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("from_kind", sa.Text, nullable=False),
    sa.Column("from_id", sa.Text, nullable=False),
    sa.Column("to_kind", sa.Text, nullable=False),
    sa.Column("to_id", sa.Text, nullable=False),
    sa.Column("relation", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Index(
        "ix_lineage_edge_from",
        *("project_id", "from_kind", "from_id", "to_kind", "to_id", "relation"),
        unique=True,
    ),
    sa.Index("ix_lineage_edge_to", "project_id", "to_kind", "to_id"),
)
