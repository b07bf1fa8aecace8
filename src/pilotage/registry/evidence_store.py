"""The table of evidence, and all SQL on it."""

from collections.abc import Sequence
from decimal import Decimal

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.registry.types import Evidence

_CURRENT = sa.text("superseded_by IS NULL")
EVIDENCE = sa.Table(
    "evidence",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("value_real", sa.Double),  # the same, for the order of SQL
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("n", sa.BigInteger),
    sa.Column("low", sa.Text),
    sa.Column("high", sa.Text),
    sa.Column("passed", sa.Boolean),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("dataset_version_id", sa.Text, nullable=False),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger),
    sa.Column("superseded_by", sa.Text),
    sa.Index("ix_evidence_version", "version_id", "kind", "subject"),
    sa.Index(
        "ix_evidence_measured",
        *("project_id", "subject", "value_real", "version_id"),
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    ),
)
_NUMBERS = ("value", "low", "high")


async def insert_evidence(tx: Tx, evidence: Evidence) -> None:
    """Add a row; those of its version, kind and subject that were current are superseded by it."""
    older = tx.update(EVIDENCE).where(
        EVIDENCE.c.version_id == evidence.version_id,
        EVIDENCE.c.kind == evidence.kind,
        EVIDENCE.c.subject == evidence.subject,
        EVIDENCE.c.superseded_by.is_(None),
    )
    await tx.change(older.values(superseded_by=evidence.id))
    values = {name: getattr(evidence, name) for name in Evidence.__dataclass_fields__}
    texts = {name: _text(values[name]) for name in _NUMBERS}
    real = None if evidence.value is None else float(evidence.value)
    await tx.insert(EVIDENCE, **values | texts, value_real=real)


async def list_evidence(
    tx: Tx, version_id: str, kind: str | None, *, has_history: bool, after: str, limit: int
) -> Sequence[Evidence]:
    """Return the evidence of a version, newest first; without what was superseded unless asked."""
    statement = tx.select(EVIDENCE).where(EVIDENCE.c.version_id == version_id)
    if kind is not None:
        statement = statement.where(EVIDENCE.c.kind == kind)
    if not has_history:
        statement = statement.where(EVIDENCE.c.superseded_by.is_(None))
    if after:
        statement = statement.where(EVIDENCE.c.id < after)
    rows = await tx.all(statement.order_by(EVIDENCE.c.id.desc()).limit(limit))
    return [_evidence(row) for row in rows]


async def find_current(tx: Tx, version_id: str, kind: str, subject: str) -> Evidence | None:
    """Return what is current of a kind and subject."""
    row = await tx.find(
        tx.select(EVIDENCE).where(
            EVIDENCE.c.version_id == version_id,
            EVIDENCE.c.kind == kind,
            EVIDENCE.c.subject == subject,
            EVIDENCE.c.superseded_by.is_(None),
        )
    )
    return _evidence(row) if row else None


def _evidence(row: Row) -> Evidence:
    values = {name: row[name] for name in Evidence.__dataclass_fields__}
    for name in _NUMBERS:
        values[name] = None if row[name] is None else Decimal(row[name])
    return Evidence(**values)


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)
