"""The table of replays, and all SQL on it."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.rollouts.replay.types import Replay

REPLAY = sa.Table(
    "replay",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("baseline_id", sa.Text, nullable=False),
    sa.Column("candidate_id", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
    sa.Column("evidence_id", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Index(None, "project_id", "alias", "id"),
)
_R = REPLAY.c


async def insert_replay(tx: Tx, replay: Replay) -> None:
    """Write a replay."""
    values = {name: getattr(replay, name) for name in Replay.__dataclass_fields__}
    await tx.insert(REPLAY, **values)


async def find_replay(tx: Tx, replay_id: str) -> Replay | None:
    """Return a replay, or None."""
    row = await tx.find(tx.select(REPLAY).where(_R.id == replay_id))
    return None if row is None else _replay(row)


async def list_replays(tx: Tx, alias: str | None, after: str, limit: int) -> Sequence[Replay]:
    """Return replays behind an id, oldest first, of an endpoint or of all."""
    statement = tx.select(REPLAY).where(_R.id > after).order_by(_R.id).limit(limit)
    if alias is not None:
        statement = statement.where(_R.alias == alias)
    return [_replay(row) for row in await tx.all(statement)]


async def count_other_reports(tx: Tx, version_id: str, report_hash: str) -> int:
    """Return how many reports of a version say something else than one of this hash."""
    reports = sa.func.count(_R.hash.distinct()).label("reports")
    there = tx.select(REPLAY, reports).where(_R.version_id == version_id, _R.hash != report_hash)
    row = await tx.find(there)
    return int(row["reports"]) if row else 0


def _replay(row: Row) -> Replay:
    return Replay(**{name: row[name] for name in Replay.__dataclass_fields__})
