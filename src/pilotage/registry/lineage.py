"""What came of what: edges between data, runs, versions and deployments, and walks along them.

The graph has no circles: an edge that would close one is refused. A walk goes a bounded number of
steps and meets a bounded number of things, and says when it left something out.
"""

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import lineage_store as store
from pilotage.registry.types import Edge, Lineage, Node, NodeKind

MOST_STEPS = 32
MOST_NODES = 1_000
_LONGEST_ID = 255


class LineageGraph:
    """Adds edges and walks along them; never commits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def add_edge(
        self, tx: Tx, source: Node, target: Node, relation: str, project_id: str | None = None
    ) -> Edge:
        """Record that one thing came of another; recording it again changes nothing.

        ``relation`` is the verb between them: a run ``produced`` a version. ``project_id``
        defaults to the transaction's. Raises ``conflict`` if the source came of the target itself,
        or if so much lies around both that nobody can tell.
        """
        project_id = project_id or tx.project_id
        for node in (source, target):
            check_node(node)
        found = await store.find_edge(tx, project_id, source, target, relation)
        if found is not None:
            return found
        await self._check_no_circle(tx, project_id, source, target)
        edge = Edge(
            id=self._clock.new_id("edg"),
            project_id=project_id,
            from_kind=source.kind,
            from_id=source.id,
            to_kind=target.kind,
            to_id=target.id,
            relation=relation,
            at_us=tx.now_us,
            by=tx.actor.principal_id,
        )
        await store.insert_edge(tx, edge)
        await append_revision(tx, "registry.edge.added", edge.id, 1, edge)
        return edge

    async def get_lineage(
        self,
        tx: Tx,
        middle: Node,
        *,
        steps: int = MOST_STEPS,
        has_ancestors: bool = True,
        has_descendants: bool = True,
    ) -> Lineage:
        """Return what a thing came of, and what came of it."""
        check_node(middle)
        before = behind = Lineage(middle=middle, depths={middle: 0}, edges=(), is_cut=False)
        steps = min(steps, MOST_STEPS)
        if has_ancestors:
            before = await self._walk(tx, tx.project_id, middle, steps, is_upwards=True)
        if has_descendants:
            behind = await self._walk(tx, tx.project_id, middle, steps, is_upwards=False)
        return Lineage(
            middle=middle,
            depths={**before.depths, **behind.depths},
            edges=(*before.edges, *behind.edges),
            is_cut=before.is_cut or behind.is_cut,
        )

    async def _check_no_circle(self, tx: Tx, project_id: str, source: Node, target: Node) -> None:
        """Go all the way, however long, from the end where less than the bound of things lies."""
        found = await self._walk(tx, project_id, target, MOST_NODES, is_upwards=False)
        is_closed = source in found.depths
        if found.is_cut and not is_closed:
            found = await self._walk(tx, project_id, source, MOST_NODES, is_upwards=True)
            is_closed = target in found.depths
        if is_closed or found.is_cut:
            why = (
                f"{source} came of {target}: it cannot be what {target} came of"
                if is_closed
                else f"too much came of {target}, and {source} of too much, to rule out a circle"
            )
            raise PilotageError(
                "conflict", f"{why}.", hint=f"Look at it: pilotage models lineage {target}"
            )

    async def _walk(
        self, tx: Tx, project_id: str, middle: Node, steps: int, *, is_upwards: bool
    ) -> Lineage:
        """Go breadth first, a query for each kind of a level."""
        depths, edges = {middle: 0}, {}
        level, is_cut = [middle], False
        for step in range(1, steps + 2):
            found = await store.list_edges(
                tx, project_id, level, is_upwards=is_upwards, limit=MOST_NODES + 1
            )
            if step > steps:
                is_cut |= bool(found)
                break
            is_cut |= len(found) > MOST_NODES
            level = []
            for edge in found:
                node = edge.source if is_upwards else edge.target
                if node not in depths:
                    if len(depths) == MOST_NODES:
                        is_cut = True
                        continue
                    depths[node] = -step if is_upwards else step
                    level.append(node)
                edges[edge.id] = edge
            if not level:
                break
        return Lineage(middle=middle, depths=depths, edges=tuple(edges.values()), is_cut=is_cut)


def parse_node(text: str) -> Node:
    """Read ``KIND:ID``; raise ``invalid_request`` that lists the kinds."""
    kind, _, node_id = text.partition(":")
    return check_node(Node(kind, node_id))


def check_node(node: Node) -> Node:
    """Return a node of a known kind with an id; raise ``invalid_request``."""
    if node.kind not in set(NodeKind) or not 0 < len(node.id) <= _LONGEST_ID:
        raise PilotageError(
            "invalid_request",
            f"{str(node)[:80]!r} is nothing that has a lineage.",
            hint=f"Write NAME@VERSION, or KIND:ID with one of: {', '.join(NodeKind)}.",
            param="of",
        )
    return node
