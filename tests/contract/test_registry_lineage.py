"""What came of what, on both databases: against a graph in memory, bounded, without circles."""

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stores
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.registry import lineage
from pilotage.registry import lineage_store as store
from pilotage.registry.lineage import MOST_STEPS, LineageGraph, parse_node
from pilotage.registry.types import Edge, Node, NodeKind

Pairs = Iterable[tuple[int, int]]


def node(number: int) -> Node:
    kinds = (NodeKind.VERSION, NodeKind.DATASET, NodeKind.TUNING_RUN)
    return Node(kinds[number % 3], f"n{number}")


def reach(pairs: Pairs, start: int) -> dict[int, int]:
    """Return how many steps every number is behind one."""
    depths, level = {start: 0}, [start]
    while level:
        behind = [b for a, b in pairs if a in level and b not in depths]
        depths |= dict.fromkeys(behind, depths[level[0]] + 1)
        level = behind
    return depths


@pytest.fixture
def graph(clock: ManualClock) -> LineageGraph:
    return LineageGraph(clock)


@pytest.fixture
async def mine(database: Database, clock: ManualClock) -> Actor:
    return (await stores.make_projects(database, clock)).mine


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=14))
async def test_a_walk_finds_what_a_graph_in_memory_does_and_no_circle_is_made(
    database: Database, clock: ManualClock, wanted: list[tuple[int, int]]
) -> None:
    graph = LineageGraph(clock)
    async with database.write(SYSTEM) as tx:
        project = await IdentityService(clock).create_project(
            tx, clock.new_id("p").replace("_", "-")
        )
        added: list[tuple[int, int]] = []
        for a, b in wanted:
            if a in reach(added, b):
                with pytest.raises(PilotageError, match="came of"):
                    await graph.add_edge(tx, node(a), node(b), "made", project.id)
            else:
                await graph.add_edge(tx, node(a), node(b), "made", project.id)
                added.append((a, b))
    async with database.read(Actor(principal_id="u", project_id=project.id)) as tx:
        for number in range(9):
            found = await graph.get_lineage(tx, node(number))
            backwards = [(b, a) for a, b in added]
            expected = {node(n): depth for n, depth in reach(added, number).items()}
            expected |= {node(n): -depth for n, depth in reach(backwards, number).items()}
            assert found.depths == expected
            assert not found.is_cut
            touched = {(edge.source, edge.target) for edge in found.edges}
            assert touched == {
                (node(a), node(b))
                for a, b in added
                if a in reach(added, number) or b in reach(backwards, number)
            }


async def test_an_edge_is_kept_once(database: Database, graph: LineageGraph, mine: Actor) -> None:
    async with database.write(mine) as tx:
        first = await graph.add_edge(tx, node(1), node(2), "made")
        assert await graph.add_edge(tx, node(1), node(2), "made") == first
        other = await graph.add_edge(tx, node(1), node(2), "tested")

    assert len(tx.written) == 2
    assert (first.source, first.target, first.by) == (node(1), node(2), "usr_1")
    assert other.id != first.id


async def test_a_walk_says_where_it_stopped(
    database: Database, graph: LineageGraph, mine: Actor
) -> None:
    async with database.write(mine) as tx:
        for number in range(5):
            await graph.add_edge(tx, node(number), node(number + 1), "made")

    async with database.read(mine) as tx:
        short = await graph.get_lineage(tx, node(0), steps=3)
        whole = await graph.get_lineage(tx, node(0), steps=5)
        alone = await graph.get_lineage(tx, node(2), has_ancestors=False, has_descendants=False)
        before = await graph.get_lineage(tx, node(5), steps=MOST_STEPS, has_descendants=False)

    assert (max(short.depths.values()), short.is_cut) == (3, True)
    assert (max(whole.depths.values()), whole.is_cut) == (5, False)
    assert alone.depths == {node(2): 0}
    assert min(before.depths.values()) == -5


async def test_no_circle_is_too_long_to_be_seen(
    database: Database, graph: LineageGraph, mine: Actor
) -> None:
    long = MOST_STEPS + 3
    async with database.write(mine) as tx:
        for number in range(long):
            await graph.add_edge(tx, node(number), node(number + 1), "made")
        with pytest.raises(PilotageError, match="came of"):
            await graph.add_edge(tx, node(long), node(0), "made")


async def test_a_circle_is_looked_for_where_less_is(
    database: Database, graph: LineageGraph, mine: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "MOST_NODES", 20)
    base, below = node(0), [Node("version", f"v{number}") for number in range(21)]
    async with database.write(mine) as tx:
        for number, version in enumerate(below):
            await store.insert_edge(tx, edge(tx, f"edg_b{number:04}", base, version))
        late = Node("version", "v9999")
        await graph.add_edge(tx, base, late, "made")
        with pytest.raises(PilotageError, match="came of"):
            await graph.add_edge(tx, late, base, "made")

        await graph.add_edge(tx, node(1), base, "made")  # nothing came before it

        wide = Node("dataset", "wide")
        for number in range(21):
            before = Node("dataset", f"d{number}")
            await store.insert_edge(tx, edge(tx, f"edg_w{number:04}", before, wide))
        with pytest.raises(PilotageError, match="to rule out a circle"):
            await graph.add_edge(tx, wide, base, "made")


def edge(tx: Tx, name: str, source: Node, target: Node) -> Edge:
    return Edge(
        id=name,
        project_id=tx.project_id,
        from_kind=source.kind,
        from_id=source.id,
        to_kind=target.kind,
        to_id=target.id,
        relation="made",
        at_us=tx.now_us,
        by="usr_1",
    )


async def test_another_project_has_another_lineage(
    database: Database, graph: LineageGraph, clock: ManualClock
) -> None:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await graph.add_edge(tx, node(1), node(2), "made")

    async with database.write(made.other) as tx:
        assert (await graph.get_lineage(tx, node(1))).edges == ()
        await graph.add_edge(tx, node(2), node(1), "made")  # no circle: it is another graph


@pytest.mark.parametrize("text", ["", "version", "version:", "thing:1", "version:" + "x" * 256])
def test_what_has_no_lineage_is_refused(text: str) -> None:
    with pytest.raises(PilotageError, match="nothing that has a lineage") as refused:
        parse_node(text)
    assert "dataset, tuning_run" in refused.value.hint


def test_a_node_is_read_as_it_is_written() -> None:
    assert parse_node("version:ver_1") == Node("version", "ver_1")
    assert str(parse_node("package:tiny@1.0.0")) == "package:tiny@1.0.0"
