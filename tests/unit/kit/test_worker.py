"""Loops that survive their failures, and tasks that have an owner."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from pilotage.kit.resources import Background
from pilotage.kit.worker import LONGEST_PAUSE_S, Wakeup, Worker

PATIENCE_S = 10.0


class Steps:
    """A step that does what a list says: True, False or an error; then it is done."""

    def __init__(self, *plan: bool | Exception) -> None:
        self.plan = list(plan)
        self.count = 0
        self.done = asyncio.Event()
        self.wakeup = Wakeup()

    async def __call__(self) -> bool:
        self.count += 1
        if not self.plan:
            self.done.set()
            return False
        now = self.plan.pop(0)
        self.wakeup.ring()  # back-offs are cut short: what comes next is asked at once
        if isinstance(now, Exception):
            raise now
        return now

    async def run(self, worker: Worker) -> None:
        """Run the worker until the plan is done."""
        async with asyncio.timeout(PATIENCE_S), Background() as background:
            background.start(worker.run(), worker.name)
            await self.done.wait()


def make_worker(step: Callable[[], Awaitable[bool]], wakeup: Wakeup) -> Worker:
    return Worker("tester", step, wakeup, interval_s=3600)


async def test_failures_are_said_once_and_so_is_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    steps = Steps(
        False, ValueError("one"), ValueError("two"), OSError("three"), True, False, KeyError("four")
    )
    worker = make_worker(steps, steps.wakeup)

    await steps.run(worker)

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("ERROR", "tester fails and will be tried again"),
        ("INFO", "tester works again after 3 failures"),
        ("ERROR", "tester fails and will be tried again"),
        ("INFO", "tester works again after 1 failures"),
    ]
    assert "ValueError: one" in caplog.text
    assert worker.failures == 0


async def test_a_step_with_more_to_do_is_run_again_at_once() -> None:
    done = asyncio.Event()
    count = 0

    async def step() -> bool:
        nonlocal count
        count += 1
        if count == 5:
            done.set()
        return count < 5

    async with asyncio.timeout(PATIENCE_S), Background() as background:
        background.start(make_worker(step, Wakeup()).run(), "tester")
        await done.wait()
    assert count == 5


async def test_the_back_off_doubles_to_half_a_minute_and_lasts_for_any_number() -> None:
    worker = make_worker(Steps(), Wakeup())
    pauses = []
    for failures in [0, *range(1, 9), 1_025, 10**6]:
        worker.failures = failures
        pauses.append(worker.pause_s)

    assert pauses[:8] == [3600, 0.5, 1, 2, 4, 8, 16, 30]
    assert pauses[-1] == pauses[-2] == LONGEST_PAUSE_S
    assert all(before <= after for before, after in pairwise(pauses[1:]))


async def test_a_worker_works_again_after_a_night_of_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = Steps(*[OSError("no disk")] * 1_100)
    await steps.run(make_worker(steps, steps.wakeup))

    assert steps.count == 1_101
    assert len(caplog.records) == 1


async def test_a_worker_ends_though_a_step_makes_another_error_of_its_end() -> None:
    is_under_way = asyncio.Event()

    async def step() -> bool:
        try:
            is_under_way.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("closed while it was being cancelled") from None
        return False

    async with asyncio.timeout(PATIENCE_S), Background() as background:
        background.start(make_worker(step, Wakeup()).run(), "tester")
        await is_under_way.wait()


async def test_a_bell_rung_twice_is_answered_once() -> None:
    bell = Wakeup()
    bell.ring()
    bell.ring()
    async with asyncio.timeout(PATIENCE_S):
        await bell.wait(3600)
        await bell.wait(0)  # not rung any more: this one ends by its time


async def test_a_bell_rung_later_ends_the_wait() -> None:
    bell = Wakeup()
    async with asyncio.timeout(PATIENCE_S), Background() as background:
        waiting = background.start(bell.wait(3600), "waiter")
        await asyncio.sleep(0)
        bell.ring()
        await waiting


# tasks


async def test_tasks_end_with_their_owner() -> None:
    ended = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # an end that takes its time is waited for
            ended.append(name)

    async with Background() as background:
        tasks = [background.start(work(name), name) for name in "ab"]
        await asyncio.sleep(0)

    assert sorted(ended) == ["a", "b"]
    assert [task.get_name() for task in tasks] == ["a", "b"]
    assert all(task.cancelled() for task in tasks)


async def test_a_task_gives_its_result() -> None:
    async def work() -> int:
        return 7

    async with Background() as background:
        assert await background.start(work(), "work") == 7


async def test_a_task_that_fails_takes_the_block_down() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async def block() -> None:
        async with asyncio.timeout(PATIENCE_S), Background() as background:
            background.start(work(), "work")
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failed:
        await block()
    assert failed.group_contains(ValueError, match="broken")


async def test_the_blocks_own_error_comes_out_as_it_is() -> None:
    async def block() -> None:
        async with Background() as background:
            background.start(asyncio.Event().wait(), "work")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await block()


async def test_cancelling_the_owner_cancels_what_it_owns() -> None:
    started, ended = asyncio.Event(), []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def own() -> None:
        async with Background() as background:
            background.start(work(), "work")
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        owner = group.create_task(own())
        await started.wait()
        owner.cancel()
    assert ended == ["work"]
