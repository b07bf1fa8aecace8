"""The table of model cards, and all SQL on it."""

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.registry.store import to_json
from pilotage.registry.types import ModelCard

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


async def insert_card(tx: Tx, card: ModelCard) -> bool:
    """Add a revision; False (and a transaction that can only roll back) if there is one already."""
    values = {name: getattr(card, name) for name in ModelCard.__dataclass_fields__}
    try:
        await tx.insert(MODEL_CARD, **values | {"fields": to_json(card.fields)})
    except sa.exc.IntegrityError:
        return False
    return True


async def find_card(tx: Tx, version_id: str, rev: int | None) -> ModelCard | None:
    """Return a revision of a version's card, or its newest."""
    statement = tx.select(MODEL_CARD).where(MODEL_CARD.c.version_id == version_id)
    if rev is not None:
        statement = statement.where(MODEL_CARD.c.rev == rev)
    row = await tx.find(statement.order_by(MODEL_CARD.c.rev.desc()).limit(1))
    if row is None:
        return None
    return ModelCard(**dict(row) | {"fields": msgspec.json.decode(row["fields"])})
