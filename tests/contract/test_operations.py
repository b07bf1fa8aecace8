"""Operations on both databases: progress, ends of every kind, restarts."""

import asyncio

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.operations import (
    OPERATION,
    OperationKind,
    Operations,
    OperationState,
    Progress,
)
from pilotage.kit.operations_http import OperationView
from pilotage.kit.resources import Background

PULL = OperationKind("pull", "registry.models.pull")


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


class Gate:
    """Work that reports progress and then waits to be let through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, progress: Progress) -> object:
        progress("download", 3, 10)
        self.reached.set()
        await self.opened.wait()
        progress("done", 10, 10)
        return {"model": "tiny@1.0.0"}


async def test_progress_shows_at_once_and_the_result_at_the_end(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", gate)
        await gate.reached.wait()
        running = await operations.get(projects.mine, started.id)
        listed = await operations.list(projects.mine)
        kinds = [operations.find_kind(started.id)]
        clock.advance(5)
        gate.opened.set()
        ended = await operations.wait(projects.mine, started.id)
        kinds.append(operations.find_kind(started.id))

    assert (started.state, started.rev, started.total) == (OperationState.RUNNING, 1, -1)
    assert (started.kind, kinds) == ("pull", [PULL, None])
    assert (running.phase, running.done, running.total) == ("download", 3, 10)
    assert list(listed) == [running]
    assert (ended.state, ended.rev, ended.done) == (OperationState.SUCCEEDED, 2, 10)
    assert ended.updated_at_us - ended.created_at_us == 5_000_000
    view = OperationView.of(ended)
    assert (view.result, view.error) == ({"model": "tiny@1.0.0"}, None)


async def test_an_expected_failure_is_told(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    async def work(progress: Progress) -> object:
        progress("unpack", 1, 2)
        raise PilotageError("invalid_artifact", "It is torn.", hint="Get another.")

    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", work)
        ended = await operations.wait(projects.mine, started.id)

    assert (ended.state, ended.phase, ended.result) == (OperationState.FAILED, "unpack", None)
    error = OperationView.of(ended).error
    assert error is not None
    assert error.model_dump() == {
        "code": "invalid_artifact",
        "detail": "It is torn.",
        "hint": "Get another.",
    }


@pytest.mark.parametrize("result", ["raised", object()])
async def test_a_broken_work_ends_as_failed_and_takes_nothing_down(
    database: Database, clock: ManualClock, projects: stores.Projects, result: object
) -> None:
    async def work(progress: Progress) -> object:
        if result == "raised":
            raise KeyError("secret of the work")
        return result  # nothing that can be written as JSON

    async with Background() as background:
        operations = Operations(database, clock, background)
        broken = await operations.start(projects.mine, PULL, "tiny", work)
        await operations.wait(projects.mine, broken.id)
        gate = Gate()
        gate.opened.set()
        whole = await operations.start(projects.mine, PULL, "tiny", gate)
        assert (await operations.wait(projects.mine, whole.id)).state == OperationState.SUCCEEDED
        ended = await operations.get(projects.mine, broken.id)

    assert (ended.state, ended.error_code) == (OperationState.FAILED, "internal_error")
    assert "secret" not in (ended.error_detail or "")


async def test_cancelling_waits_for_the_end(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", gate)
        await gate.reached.wait()
        cancelled = await operations.cancel(projects.mine, started.id)
        again = await operations.cancel(projects.mine, started.id)

    assert cancelled.state == OperationState.CANCELLED
    assert again == cancelled


async def test_what_has_ended_cannot_be_cancelled(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    gate.opened.set()
    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", gate)
        await operations.wait(projects.mine, started.id)
        with pytest.raises(PilotageError) as refused:
            await operations.cancel(projects.mine, started.id)

    assert refused.value.code == "conflict"


async def test_a_shutdown_records_the_cancellation(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", gate)
        await gate.reached.wait()

    ended = await operations.get(projects.mine, started.id)
    assert (ended.state, ended.phase) == (OperationState.CANCELLED, "download")


async def test_a_shutdown_while_the_end_is_written_keeps_the_end(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate, held, released = Gate(), asyncio.Event(), asyncio.Event()

    async def hold(operation_id: str) -> None:
        """Keep everybody else from writing the operation."""
        async with database.write(SYSTEM) as tx:
            row = tx.update(OPERATION).where(OPERATION.c.id == operation_id)
            await tx.change(row.values(kind="pull"))
            held.set()
            await released.wait()

    background = await Background().__aenter__()
    operations = Operations(database, clock, background)
    started = await operations.start(projects.mine, PULL, "tiny", gate)
    async with asyncio.TaskGroup() as others:
        others.create_task(hold(started.id))
        await held.wait()
        gate.opened.set()
        while not operations._live[started.id].is_ending:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        closing = others.create_task(background.__aexit__(None, None, None))
        await asyncio.sleep(0)
        released.set()
        await closing

    ended = await operations.get(projects.mine, started.id)
    assert (ended.state, ended.done) == (OperationState.SUCCEEDED, 10)


async def test_a_restart_fails_what_was_running(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    async with Background() as first, Background() as second:
        died = Operations(database, clock, first)
        started = await died.start(projects.mine, PULL, "tiny", gate)
        await gate.reached.wait()

        restarted = Operations(database, clock, second)
        assert await restarted.recover() == 1
        assert await restarted.recover() == 0
        interrupted = await restarted.get(projects.mine, started.id)
        gate.opened.set()
        late = await died.wait(projects.mine, started.id)

    assert (interrupted.state, interrupted.error_code) == (OperationState.FAILED, "unavailable")
    assert "interrupted by a restart" in (interrupted.error_detail or "")
    assert late == interrupted  # the guarded update found it ended


async def test_recovering_spares_what_this_process_runs(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    async with Background() as background:
        operations = Operations(database, clock, background)
        started = await operations.start(projects.mine, PULL, "tiny", gate)
        assert await operations.recover() == 0
        gate.opened.set()
        assert (await operations.wait(projects.mine, started.id)).error_code is None


async def test_another_project_sees_nothing_and_pages_continue(
    database: Database, clock: ManualClock, projects: stores.Projects
) -> None:
    gate = Gate()
    gate.opened.set()
    async with Background() as background:
        operations = Operations(database, clock, background)
        made = [await operations.start(projects.mine, PULL, f"m{n}", gate) for n in range(3)]
        for operation in made:
            await operations.wait(projects.mine, operation.id)
        first = await operations.list(projects.mine, "", 2)
        rest = await operations.list(projects.mine, first[-1].id, 2)
        running = await operations.list(projects.mine, state=OperationState.RUNNING)
        everywhere = await operations.list(SYSTEM)
        others = await operations.list(projects.other)
        with pytest.raises(PilotageError) as missing:
            await operations.cancel(projects.other, made[0].id)

    assert [item.subject for item in (*first, *rest)] == ["m0", "m1", "m2"]
    assert len(everywhere) == 3
    assert list(running) == list(others) == []
    assert missing.value.code == "not_found"
