"""The table of gate policies, and all SQL on it."""

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.registry.gates import Check, GatePolicy
from pilotage.registry.types import Stage

GATE_POLICY = sa.Table(
    "gate_policy",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("checks", sa.Text, nullable=False),
    sa.Column("approvals", sa.Integer, nullable=False),
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.UniqueConstraint("project_id", "stage"),
)


async def find_policy(tx: Tx, stage: Stage) -> GatePolicy | None:
    """Return what the project has said of a stage."""
    row = await tx.find(tx.select(GATE_POLICY).where(GATE_POLICY.c.stage == stage))
    return _policy(row) if row else None


async def put_policy(tx: Tx, before: GatePolicy, after: GatePolicy) -> bool:
    """Write a policy; False if it has changed meanwhile."""
    values = {name: getattr(after, name) for name in GatePolicy.__dataclass_fields__}
    values["checks"] = msgspec.json.encode(after.checks).decode()
    if before.rev == 0:
        await tx.insert(GATE_POLICY, **values)
        return True
    guarded = tx.update(GATE_POLICY).where(
        GATE_POLICY.c.id == before.id, GATE_POLICY.c.rev == before.rev
    )
    return await tx.change(guarded.values(**values)) == 1


def _policy(row: Row) -> GatePolicy:
    return GatePolicy(
        **dict(row)
        | {
            "stage": Stage(row["stage"]),
            "checks": msgspec.json.decode(row["checks"], type=tuple[Check, ...]),
        }
    )
