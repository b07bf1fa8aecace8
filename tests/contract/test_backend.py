"""What every backend does that runs replicas: the contract of the port ``Fleet``."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend_arena import Arena, list_ready, open_local_arena, until
from pilotage.endpoints.types import ReplicaState, Scaling

BACKENDS = {"local": open_local_arena}
ONE = Scaling()
SLEEPER = Scaling(min_replicas=0, max_replicas=2, idle_after_s=1, scale_down_delay_s=0)


@pytest.fixture(params=sorted(BACKENDS))
async def arena(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Arena]:
    """Open each backend in turn."""
    async with BACKENDS[request.param](tmp_path_factory.mktemp("backend")) as opened:
        yield opened


def state_of(arena: Arena, deployment_id: str) -> set[ReplicaState]:
    return {item.state for item in arena.fleet.list_statuses() if deployment_id in item.serves}


def pids_of(arena: Arena) -> set[int]:
    return {item.pid for item in arena.fleet.list_statuses()}


def wanted_of(arena: Arena, deployment_id: str) -> int:
    (load,) = [item for item in arena.fleet.list_loads() if item.deployment_id == deployment_id]
    return load.wanted


async def test_what_is_desired_runs_and_asking_twice_changes_nothing(arena: Arena) -> None:
    groups = [
        arena.make_group("dep_a", Scaling(min_replicas=2, max_replicas=2)),
        arena.make_group("dep_b", ONE),
    ]
    await arena.fleet.set_desired(groups)
    await until(lambda: len(list_ready(arena, "dep_a")) == 2, "two replicas of a")
    await until(lambda: len(list_ready(arena, "dep_b")) == 1, "one replica of b")
    assert all(status.ready_at_us > 0 for status in arena.fleet.list_statuses())
    pids = pids_of(arena)
    await arena.fleet.set_desired(groups)
    call = await arena.begin_call("dep_b")
    assert call.replica_id == "dep_b.0"
    assert await call.finish()
    assert pids_of(arena) == pids

    await arena.fleet.set_desired(groups[1:])
    await until(lambda: not state_of(arena, "dep_a"), "the end of a")
    assert pids_of(arena) < pids


async def test_a_replica_that_is_removed_lets_its_call_finish_and_takes_no_other(
    arena: Arena,
) -> None:
    group = arena.make_group("dep_a", Scaling(min_replicas=2, max_replicas=2))
    await arena.fleet.set_desired([group])
    await until(lambda: len(list_ready(arena, "dep_a")) == 2, "two replicas")
    first, second = await arena.begin_call("dep_a"), await arena.begin_call("dep_a")
    assert {first.replica_id, second.replica_id} == {"dep_a.0", "dep_a.1"}

    await arena.fleet.set_desired([])
    await until(lambda: state_of(arena, "dep_a") == {ReplicaState.STOPPING}, "the drain")
    assert await first.finish()
    await until(lambda: len(arena.fleet.list_statuses()) == 1, "the end of the idle one")
    assert await second.finish()
    await until(lambda: not arena.fleet.list_statuses(), "the end of both")


async def test_calls_bring_replicas_and_their_absence_takes_them_away(arena: Arena) -> None:
    scaling = Scaling(max_replicas=3, target_in_flight=1, scale_down_delay_s=1)
    await arena.fleet.set_desired([arena.make_group("dep_a", scaling)])
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "the first replica")
    calls = [await arena.begin_call("dep_a") for _ in range(5)]
    await until(lambda: len(list_ready(arena, "dep_a")) == 3, "as many as may be")
    (load,) = arena.fleet.list_loads()
    assert (load.wanted, load.in_flight) == (3, 5)
    another = await arena.begin_call("dep_a")
    assert another.replica_id != calls[0].replica_id  # the new ones take calls
    assert all([await call.finish() for call in (*calls, another)])
    await until(lambda: len(arena.fleet.list_statuses()) == 1, "the one that stays")


async def test_a_sleeper_wakes_for_a_call_and_sleeps_again_without_losing_any(
    arena: Arena,
) -> None:
    await arena.fleet.set_desired([arena.make_group("dep_a", SLEEPER)])
    await until(lambda: bool(arena.fleet.list_loads()), "what is asked")
    assert not arena.fleet.list_statuses()
    for _ in range(2):
        burst = await asyncio.gather(*(arena.begin_call("dep_a") for _ in range(6)))
        assert all(await asyncio.gather(*(call.finish() for call in burst)))
        await until(lambda: not arena.fleet.list_statuses(), "sleep")
        assert wanted_of(arena, "dep_a") == 0


async def test_what_is_to_be_different_is_replaced_when_the_new_one_is_ready(
    arena: Arena,
) -> None:
    await arena.fleet.set_desired([arena.make_group("dep_a", ONE)])
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "the former replica")
    former = await arena.begin_call("dep_a")
    await arena.fleet.set_desired([arena.make_group("dep_a", Scaling(slots=2))])
    seen: list[set[str]] = []

    def is_replaced() -> bool:
        seen.append({status.replica_id for status in list_ready(arena, "dep_a")})
        return former.replica_id not in seen[-1]

    await until(is_replaced, "another replica")
    assert all(seen), "at no time is there none"
    later = await arena.begin_call("dep_a")
    assert later.replica_id != former.replica_id
    assert await former.finish()
    assert await later.finish()
    await until(lambda: len(arena.fleet.list_statuses()) == 1, "the end of the former one")


async def test_one_that_cannot_be_replaced_goes_on_as_it_was(arena: Arena) -> None:
    await arena.fleet.set_desired([arena.make_group("dep_a", ONE)])
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "the former replica")
    await arena.fleet.set_desired([arena.make_group("dep_a", Scaling(slots=2), does="crash")])
    await until(lambda: ReplicaState.FAILED in state_of(arena, "dep_a"), "the failure")
    call = await arena.begin_call("dep_a")
    assert call.replica_id == "dep_a.0"
    assert await call.finish()


async def test_a_replica_that_is_killed_comes_back_and_says_how_often(arena: Arena) -> None:
    await arena.fleet.set_desired([arena.make_group("dep_a", ONE)])
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "the replica")
    (before,) = list_ready(arena, "dep_a")
    await arena.crash(before)
    await until(lambda: state_of(arena, "dep_a") == {ReplicaState.FAILED}, "the failure")
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "another start")
    (after,) = list_ready(arena, "dep_a")
    assert (after.replica_id, after.restarts) == (before.replica_id, 1)
    assert after.pid != before.pid
    call = await arena.begin_call("dep_a")
    assert await call.finish()


async def test_a_crash_loop_is_told_of_hurts_nobody_else_and_ends_when_it_is_mended(
    arena: Arena,
) -> None:
    groups = [arena.make_group("dep_a", ONE, does="crash"), arena.make_group("dep_b", ONE)]
    await arena.fleet.set_desired(groups)
    await until(lambda: state_of(arena, "dep_a") == {ReplicaState.LOOPING}, "the crash loop")
    (status,) = [item for item in arena.fleet.list_statuses() if item.deployment_id == "dep_a"]
    assert status.restarts >= 3
    assert status.detail
    call = await arena.begin_call("dep_b")
    assert await call.finish()
    arena.mend("dep_a")
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "a replica at last")


async def test_one_that_holds_too_much_memory_is_stopped_and_says_so(arena: Arena) -> None:
    small = Scaling(memory_bytes=128 << 20)
    await arena.fleet.set_desired(
        [
            arena.make_group("dep_a", small, does="eat 200"),
            arena.make_group("dep_b", small, does="eat 20"),
        ]
    )
    await until(lambda: ReplicaState.FAILED in state_of(arena, "dep_a"), "the end of the large one")
    (status,) = [item for item in arena.fleet.list_statuses() if item.deployment_id == "dep_a"]
    assert "MiB of memory and may hold 128" in status.detail
    await until(lambda: len(list_ready(arena, "dep_b")) == 1, "the small one")
    (small_one,) = list_ready(arena, "dep_b")
    await until(lambda: list_ready(arena, "dep_b")[0].memory_bytes > 20 << 20, "what it holds")
    assert small_one.restarts == 0
