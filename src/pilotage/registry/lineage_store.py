"""The table of lineage, and all SQL on it."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pilotage.kit.db import METADATA, Tx
from pilotage.registry.types import Edge, Node

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


async def insert_edge(tx: Tx, edge: Edge) -> None:
    """Add an edge."""
    values = {name: getattr(edge, name) for name in Edge.__dataclass_fields__}
    await tx.insert(LINEAGE_EDGE, **values)


async def find_edge(
    tx: Tx, project_id: str, source: Node, target: Node, relation: str
) -> Edge | None:
    """Return an edge if it is there."""
    row = await tx.find(
        tx.select(LINEAGE_EDGE).where(
            LINEAGE_EDGE.c.project_id == project_id,
            LINEAGE_EDGE.c.from_kind == source.kind,
            LINEAGE_EDGE.c.from_id == source.id,
            LINEAGE_EDGE.c.to_kind == target.kind,
            LINEAGE_EDGE.c.to_id == target.id,
            LINEAGE_EDGE.c.relation == relation,
        )
    )
    return Edge(**row) if row else None


async def list_edges(
    tx: Tx, project_id: str, nodes: Collection[Node], *, is_upwards: bool, limit: int
) -> Sequence[Edge]:
    """Return edges that end (upwards) or begin (downwards) at any of some nodes, oldest first."""
    c = LINEAGE_EDGE.c
    kind, id_ = (c.to_kind, c.to_id) if is_upwards else (c.from_kind, c.from_id)
    found: list[Edge] = []
    for wanted in sorted({node.kind for node in nodes}):
        ids = sorted(node.id for node in nodes if node.kind == wanted)
        touching = tx.select(LINEAGE_EDGE).where(
            c.project_id == project_id, kind == wanted, id_.in_(ids)
        )
        rows = await tx.all(touching.order_by(c.at_us, c.id).limit(limit))
        found += [Edge(**row) for row in rows]
    return found[:limit]
