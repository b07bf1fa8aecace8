"""Replicas that several deployments share: they move without a moment in which one has none."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from backend_arena import Arena, list_ready, open_local_arena, until
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.launch import AdapterFile
from pilotage.endpoints.types import Scaling

ONE = Scaling()


@pytest.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    async with open_local_arena(tmp_path) as opened:
        yield opened


def make_group(arena: Arena, *served: str, adapters: tuple[str, ...] = ()) -> ReplicaGroup:
    """Return a group that is named for the first of those that it serves."""
    group = arena.make_group(served[0], ONE)
    files = tuple(AdapterFile(name=name, path=name) for name in adapters)
    shared_by = served if len(served) > 1 else ()
    return replace(group, replica=replace(group.replica, adapters=files), shared_by=shared_by)


def note_gaps(
    arena: Arena, served: tuple[str, ...], is_done: Callable[[], bool]
) -> Callable[[], bool]:
    """Return a condition that fails as soon as a deployment has no ready replica."""

    def look() -> bool:
        for deployment_id in served:
            assert list_ready(arena, deployment_id), f"{deployment_id} has none"
        return is_done()

    return look


async def test_one_process_answers_for_all_and_counts_their_calls_together(arena: Arena) -> None:
    await arena.fleet.set_desired([make_group(arena, "dep_a", "dep_b", adapters=("x",))])
    await until(lambda: bool(list_ready(arena, "dep_b")), "the replica")
    calls = [await arena.begin_call(name) for name in ("dep_a", "dep_b", "dep_b")]
    assert {call.replica_id for call in calls} == {"dep_a.0"}
    assert len(arena.fleet.list_statuses()) == 1
    counted = {"dep_a": 1, "dep_b": 2}
    await until(
        lambda: (
            counted == {item.deployment_id: item.in_flight for item in arena.fleet.list_loads()}
        ),
        "a count of each one's calls",
    )
    assert all([await call.finish() for call in calls])


async def test_an_adapter_is_added_while_the_base_goes_on(arena: Arena) -> None:
    await arena.fleet.set_desired([make_group(arena, "dep_a")])
    await until(lambda: bool(list_ready(arena, "dep_a")), "the base")
    former = await arena.begin_call("dep_a")
    await arena.fleet.set_desired([make_group(arena, "dep_a", "dep_b", adapters=("x",))])
    has_both = note_gaps(arena, ("dep_a",), lambda: bool(list_ready(arena, "dep_b")))
    await until(has_both, "the adapter")
    later = await arena.begin_call("dep_b")
    assert later.replica_id != former.replica_id
    assert await former.finish()
    assert await later.finish()
    await until(lambda: len(arena.fleet.list_statuses()) == 1, "the end of the former one")


async def test_the_others_go_on_when_the_one_they_are_named_for_is_removed(arena: Arena) -> None:
    await arena.fleet.set_desired([make_group(arena, "dep_a", "dep_b", adapters=("x",))])
    await until(lambda: bool(list_ready(arena, "dep_b")), "the replica")
    former = await arena.begin_call("dep_b")
    await arena.fleet.set_desired([make_group(arena, "dep_b", adapters=("x",))])
    is_moved = lambda: not list_ready(arena, "dep_a")  # noqa: E731
    await until(note_gaps(arena, ("dep_b",), is_moved), "the move")
    later = await arena.begin_call("dep_b")
    assert later.replica_id.startswith("dep_b.")
    assert await former.finish()
    assert await later.finish()
    await until(lambda: len(arena.fleet.list_statuses()) == 1, "the end of the former one")
    again = await arena.begin_call("dep_b")
    assert await again.finish()


async def test_those_that_part_have_each_their_own_before_what_they_shared_ends(
    arena: Arena,
) -> None:
    both = ("dep_a", "dep_b")
    await arena.fleet.set_desired([make_group(arena, *both, adapters=("x",))])
    await until(lambda: bool(list_ready(arena, "dep_b")), "the replica")
    await arena.fleet.set_desired([make_group(arena, "dep_a"), make_group(arena, "dep_b")])
    is_parted = lambda: all(  # noqa: E731
        len(item.serves) == 1 for item in arena.fleet.list_statuses()
    )
    await until(note_gaps(arena, both, is_parted), "the parting")
    calls = [await arena.begin_call(name) for name in both]
    assert len({call.replica_id for call in calls}) == 2
    assert all([await call.finish() for call in calls])
