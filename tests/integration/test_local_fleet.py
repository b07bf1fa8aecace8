"""What only the replicas of this machine have: cores of their own, GPUs, silent gateways."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from backend_arena import Arena, list_ready, open_local_arena, until
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.types import ReplicaState, Scaling
from pilotage.gateway.demand import DemandFolder
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.clock import SystemClock
from pilotage.kit.machine import Gpu
from pilotage.kit.spool import open_spool
from pilotage.runtime import fleet as room
from pilotage.runtime import replica as replicas
from pilotage.runtime.asking import Asking
from pilotage.runtime.cores import Cores


@pytest.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    async with open_local_arena(tmp_path) as opened:
        yield opened


async def test_a_replica_with_few_cores_stays_on_them(arena: Arena) -> None:
    await arena.fleet.set_desired(
        [arena.make_group("dep_a", Scaling(cpu_cores=1)), arena.make_group("dep_b", Scaling())]
    )
    await until(lambda: bool(list_ready(arena, "dep_a") and list_ready(arena, "dep_b")), "both")
    bound, free = (
        psutil.Process(list_ready(arena, name)[0].pid).cpu_affinity() for name in ("dep_a", "dep_b")
    )
    assert len(bound or []) == 1
    assert free == psutil.Process().cpu_affinity()


def test_cores_go_to_those_who_share_them_least() -> None:
    cores = Cores([3, 5, 7])
    with cores.take(2) as first, cores.take(1) as second:
        assert (list(first), list(second)) == ([3, 5], [7])
        with cores.take(9) as third, cores.take(0) as any_core:
            assert sorted(third) == [3, 5, 7]
            assert not any_core
    with cores.take(1) as again:
        assert list(again) == [3]


async def test_busy_gpus_bring_replicas_where_they_work_for_these_and_somebody_calls(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BusyGpus:
        """The GPUs of a machine: every replica of one deployment keeps one busy, idlers do not."""

        def read(self) -> tuple[Gpu, ...]:
            """Return one GPU for each replica, and another for somebody else."""
            theirs = [item.pid for item in list_ready(arena, "dep_a")]
            pids = [*(frozenset({pid}) for pid in theirs), frozenset({1})]
            return tuple(
                Gpu(busy=0.9, used_bytes=0, total_bytes=1, pids=pids_of_one) for pids_of_one in pids
            )

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(room, "Gpus", BusyGpus)
    by_duty = Scaling(
        max_replicas=3, target_in_flight=100, target_duty_percent=60, scale_down_delay_s=0
    )
    await arena.fleet.set_desired(
        [arena.make_group("dep_a", by_duty), arena.make_group("dep_b", by_duty)]
    )
    await until(lambda: bool(list_ready(arena, "dep_a") and list_ready(arena, "dep_b")), "one each")
    busy, quiet = await arena.begin_call("dep_a"), await arena.begin_call("dep_b")
    await until(lambda: len(list_ready(arena, "dep_a")) == 3, "three where the GPUs work")
    assert len(list_ready(arena, "dep_b")) == 1
    assert await busy.finish()
    assert await quiet.finish()
    await until(lambda: len(list_ready(arena, "dep_a")) == 1, "one when nobody calls")


async def test_a_gateway_that_says_nothing_is_waited_for_as_long_as_it_lives(
    arena: Arena, tmp_path: Path
) -> None:
    silent = open_spool(
        tmp_path / "spool" / "gateway-1", segment_bytes=1 << 20, reserve_bytes=16 << 10, sync="none"
    )
    await arena.fleet.set_desired([arena.make_group("dep_a", Scaling())])
    await until(lambda: bool(list_ready(arena, "dep_a")), "the replica")
    await arena.fleet.set_desired([])
    await until(lambda: not list_ready(arena, "dep_a"), "the drain")
    asking = Asking(tmp_path / "run", tmp_path / "spool", SystemClock())

    def has_other_spoken() -> bool:
        said = DemandFolder(tmp_path / "run").read(SystemClock().now_us())
        return said["gateway-0"].targets_n >= TargetsFile(tmp_path / "run/targets.json").read().n

    await until(has_other_spoken, "what the other gateway says")
    asking.look()
    assert not asking.has_left(["dep_a.0"], 0)
    assert {item.state for item in arena.fleet.list_statuses()} == {ReplicaState.STOPPING}
    silent.close()
    await until(lambda: not arena.fleet.list_statuses(), "the end")


async def test_calls_may_wait_for_what_is_ordered_and_does_not_crash_in_a_loop(
    arena: Arena, tmp_path: Path
) -> None:
    targets = TargetsFile(tmp_path / "run" / "targets.json")
    assert targets.read().can_wake is None  # nobody has said what there is
    asleep = arena.make_group("dep_a", Scaling(min_replicas=0))
    await arena.fleet.set_desired([asleep, arena.make_group("dep_b", Scaling(), does="crash")])
    assert targets.read().can_wake == ["dep_a", "dep_b"]
    await until(lambda: targets.read().can_wake == ["dep_a"], "the crash loop")
    await arena.fleet.set_desired([])
    assert targets.read().can_wake == []


def share(group: ReplicaGroup, *names: str) -> ReplicaGroup:
    """Return a group that answers for several deployments."""
    return replace(group, shared_by=names)


def list_serving(arena: Arena, *names: str) -> list[ReplicaState]:
    return [item.state for item in arena.fleet.list_statuses() if item.serves == names]


async def test_what_never_ran_ends_when_something_else_is_ordered_and_what_runs_goes_on(
    arena: Arena,
) -> None:
    alone = arena.make_group("dep_a", Scaling())
    await arena.fleet.set_desired([alone])
    await until(lambda: bool(list_ready(arena, "dep_a")), "the replica")
    (before,) = list_ready(arena, "dep_a")
    spoilt = arena.make_group("dep_b", Scaling(), does="crash")
    both = share(replace(alone, replica=spoilt.replica), "dep_a", "dep_b")
    await arena.fleet.set_desired([both])
    await until(lambda: ReplicaState.LOOPING in list_serving(arena, "dep_a", "dep_b"), "the loop")

    await arena.fleet.set_desired([alone, spoilt])
    await until(lambda: not list_serving(arena, "dep_a", "dep_b"), "the end of what never ran")
    assert [item.pid for item in list_ready(arena, "dep_a")] == [before.pid]
    await until(lambda: ReplicaState.LOOPING in list_serving(arena, "dep_b"), "it loops by itself")
    call = await arena.begin_call("dep_a")
    assert await call.finish()


async def test_a_group_under_another_name_goes_on_with_as_many_replicas(arena: Arena) -> None:
    scaling = Scaling(min_replicas=0, max_replicas=2, target_in_flight=1, scale_down_delay_s=60)
    group = share(arena.make_group("dep_a", scaling), "dep_a", "dep_b")
    await arena.fleet.set_desired([group])
    calls = await asyncio.gather(arena.begin_call("dep_b"), arena.begin_call("dep_b"))
    await until(lambda: len(list_ready(arena, "dep_b")) == 2, "both")
    assert all([await call.finish() for call in calls])

    await arena.fleet.set_desired([arena.make_group("dep_b", scaling)])
    await until(lambda: not list_serving(arena, "dep_a", "dep_b"), "the end of the former ones")
    assert list_serving(arena, "dep_b") == [ReplicaState.READY] * 2


async def test_slow_starts_that_fail_are_a_crash_loop_too(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "STEADY_S", 0.0)  # every start takes longer
    await arena.fleet.set_desired([arena.make_group("dep_a", Scaling(), does="crash")])
    await until(lambda: list_serving(arena, "dep_a") == [ReplicaState.LOOPING], "the crash loop")
    arena.mend("dep_a")
    await until(lambda: bool(list_ready(arena, "dep_a")), "a replica at last")
    for _ in range(2):
        (ready,) = list_ready(arena, "dep_a")
        await arena.crash(ready)
        await until(lambda: list_serving(arena, "dep_a") == [ReplicaState.FAILED], "the failure")
        (failed,) = arena.fleet.list_statuses()
        assert failed.restarts == 1, "it had worked for long"
        await until(lambda: bool(list_ready(arena, "dep_a")), "another start")


async def test_one_that_only_crashes_falls_asleep_when_nobody_calls(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "next_pause_s", lambda _: 0.1)  # it is always about to start
    sleeper = Scaling(min_replicas=0, idle_after_s=1)
    awake_until_us = SystemClock().now_us() + 500_000
    group = arena.make_group("dep_a", sleeper, does="crash")
    await arena.fleet.set_desired([replace(group, awake_until_us=awake_until_us)])
    await until(lambda: ReplicaState.LOOPING in list_serving(arena, "dep_a"), "the crash loop")
    await until(lambda: not arena.fleet.list_statuses(), "sleep")


def test_an_engine_loads_little_of_the_product_before_its_model() -> None:
    program = (
        "import sys, pilotage.endpoints.engines.llamacpp.child\n"
        "print(*sorted(name for name in sys.modules if name.startswith('pilotage.')))"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    slices = {name.split(".")[1] for name in shown}
    assert slices == {"endpoints", "kit"}
    assert "pilotage.endpoints.types" not in shown
