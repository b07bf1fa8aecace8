"""The table of model cards, and all SQL on it."""

import sqlalchemy as sa

from pilotage.kit.db import METADATA

MODEL_CARD = sa.Table(
    "model_card",
    METADATA,
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
