"""Scheduled releases on both databases: made once, at their time, with every check of then."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from governed import DAY_US, HOUR_US, PROMOTE, World, make_world
from pilotage.core.errors import PilotageError
from pilotage.governance.types import ReleaseState, ScheduledRelease, Subject
from pilotage.governance.worker import ReleaseMaker
from pilotage.identity.types import Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx

ACTION = "endpoints.traffic.split"


class Moving:
    """Moves traffic as endpoints do: calendar, approval, record; counts what came of it."""

    permission = ACTION

    def __init__(self, world: World) -> None:
        self.world = world
        self.tried = 0
        self.trouble: Exception | None = None
        self.needs_approval = False

    async def check(self, tx: Tx, subject: str, arguments: Mapping[str, Any]) -> Subject:
        if subject != "chat":
            raise PilotageError("not_found", f"There is no endpoint {subject!r}.")
        return Subject(id="end_1", name="chat", state={})

    async def run(self, tx: Tx, release: ScheduledRelease) -> None:
        self.tried += 1
        await self.world.service.check_calendar(tx, ACTION, release.subject)
        if self.needs_approval:
            await self.world.require(tx)
        await self.world.record(tx, after=release.arguments)
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    return await make_world(database, clock)


@pytest.fixture
def moving(world: World) -> Moving:
    moving = Moving(world)
    world.service.calendar.register(ACTION, moving)
    return moving


@pytest.fixture
def maker(world: World, moving: Moving) -> ReleaseMaker:
    return ReleaseMaker(world.db, world.service, world.identity)


async def plan(world: World, **more: Any) -> ScheduledRelease:  # noqa: ANN401
    asked: dict[str, Any] = {
        "subject": "chat",
        "at_us": world.clock.now_us() + HOUR_US,
        "arguments": {"split": {"dep_2": 100}},
        "reason": "the June release",
    }
    async with world.db.write(world.act("ops")) as tx:
        return await world.service.calendar.schedule(tx, ACTION, **asked | more)


async def look(world: World, release: ScheduledRelease) -> ScheduledRelease:
    async with world.db.read(world.act("asks")) as tx:
        return await world.service.calendar.get_release(tx, release.id)


async def test_a_release_is_made_once_at_its_time_in_the_name_of_who_asked(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    release = await plan(world)

    await maker.step()
    assert moving.tried == 0
    world.clock.advance(3_600)
    for _ in range(3):
        await maker.step()

    ended = await look(world, release)
    async with world.db.read(world.act("asks")) as tx:
        (decision,) = await world.service.list_decisions(tx)
        (fact,) = await world.service.decisions.list_facts(tx, decision.id)
    assert (moving.tried, ended.state, ended.decision_id) == (1, ReleaseState.DONE, decision.id)
    assert (decision.by, decision.reason) == (world.people["ops"], "the June release")
    assert decision.after == {"split": {"dep_2": 100}}
    assert fact.content == {
        "release_id": release.id,
        "requested_by": world.people["ops"],
        "requested_at_us": release.requested_at_us,
        "planned_for_us": release.at_us,
    }


async def test_two_workers_make_it_once(world: World, maker: ReleaseMaker) -> None:
    release = await plan(world)
    other = ReleaseMaker(world.db, world.service, world.identity)
    world.clock.advance(3_600)

    await asyncio.gather(maker.step(), other.step())

    assert (await look(world, release)).state is ReleaseState.DONE
    async with world.db.read(world.act("asks")) as tx:
        assert len(await world.service.list_decisions(tx)) == 1


async def test_a_freeze_of_then_refuses_it(world: World, maker: ReleaseMaker) -> None:
    release = await plan(world)
    await world.freeze()
    world.clock.advance(3_600)

    await maker.step()

    ended = await look(world, release)
    assert ended.state is ReleaseState.REFUSED
    assert ended.outcome.startswith("frozen: chat may not change now: the freeze 'year-end'")


async def test_an_approval_is_looked_for_when_it_is_made(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    moving.needs_approval = True
    refused, made = await plan(world), await plan(world, at_us=world.clock.now_us() + 2 * HOUR_US)
    world.clock.advance(3_600)
    await maker.step()
    await world.approved()
    world.clock.advance(3_600)
    await maker.step()

    ended = await look(world, refused)
    assert ended.outcome == (
        f"approval_required: tiny@1.0.0 needs an approval: nobody has asked for {PROMOTE} "
        "of tiny@1.0.0."
    )
    assert (await look(world, made)).state is ReleaseState.DONE


async def test_who_lost_the_right_meanwhile_releases_nothing(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    release = await plan(world)
    async with world.db.write(SYSTEM) as tx:
        await world.identity.principals.disable(tx, world.people["ops"])
    world.clock.advance(3_600)

    await maker.step()

    ended = await look(world, release)
    assert (moving.tried, ended.state) == (0, ReleaseState.REFUSED)
    assert ended.outcome.startswith("permission_denied: ")
    assert Role.ML_OPS not in ended.outcome


async def test_what_is_refused_leaves_nothing_behind(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    moving.trouble = PilotageError("conflict", "A gate failed.")
    release = await plan(world)
    world.clock.advance(3_600)

    await maker.step()

    assert (await look(world, release)).outcome == "conflict: A gate failed."
    async with world.db.read(world.act("asks")) as tx:
        assert list(await world.service.list_decisions(tx)) == []


async def test_a_release_that_breaks_holds_up_no_other(
    world: World, maker: ReleaseMaker, moving: Moving, caplog: pytest.LogCaptureFixture
) -> None:
    moving.trouble = ArithmeticError("no number")
    broken = await plan(world)
    other = await plan(world, at_us=world.clock.now_us() + 2 * HOUR_US)
    world.clock.advance(3_600)

    assert await maker.step() is False

    ended = await look(world, broken)
    said = "internal_error: ArithmeticError; the control plane's log says more."
    assert (ended.state, ended.outcome) == (ReleaseState.REFUSED, said)
    assert f"Scheduled release {broken.id} cannot be made" in caplog.text
    async with world.db.read(world.act("asks")) as tx:
        assert list(await world.service.list_decisions(tx)) == []
    moving.trouble = None
    world.clock.advance(3_600)
    await maker.step()
    assert (await look(world, other)).state is ReleaseState.DONE


async def test_what_is_away_is_tried_again_until_it_is_missed(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    moving.trouble = PilotageError("unavailable", "The engine is away.")
    made, missed = await plan(world), await plan(world)
    world.clock.advance(3_600)
    await maker.step()
    assert moving.tried == 2
    assert (await look(world, made)).state is ReleaseState.PLANNED
    async with world.db.write(world.act("ops")) as tx:
        await world.service.calendar.cancel(tx, made.id)
    world.clock.advance(3_601)

    await maker.step()

    assert (await look(world, made)).state is ReleaseState.CANCELLED
    ended = await look(world, missed)
    assert (ended.state, ended.outcome) == (
        ReleaseState.MISSED,
        "Nothing ran at its time to make it.",
    )


async def test_a_cancelled_release_is_not_made(
    world: World, maker: ReleaseMaker, moving: Moving
) -> None:
    release = await plan(world)
    async with world.db.write(world.act("asks")) as tx:
        await world.service.calendar.cancel(tx, release.id)
    world.clock.advance(3_600)

    await maker.step()

    assert moving.tried == 0
    with pytest.raises(PilotageError) as refused:
        async with world.db.write(world.act("asks")) as tx:
            await world.service.calendar.cancel(tx, release.id)
    assert refused.value.code == "conflict"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"at_us": 0}, "invalid_request"),
        ({"at_us": 2**60}, "invalid_request"),
        ({"subject": "nothing"}, "not_found"),
        ({"reason": " "}, "invalid_request"),
    ],
)
@pytest.mark.usefixtures("moving")
async def test_what_cannot_be_planned(world: World, more: dict[str, Any], code: str) -> None:
    with pytest.raises(PilotageError) as refused:
        await plan(world, **more)

    assert refused.value.code == code


async def test_what_cannot_be_scheduled_is_told_with_what_can(world: World, moving: Moving) -> None:
    async with world.db.write(world.act("ops")) as tx:
        with pytest.raises(PilotageError) as refused:
            await world.service.calendar.schedule(tx, "finops.price.set", "a", DAY_US, {}, "b")

    assert refused.value.hint == f"Actions that can: {ACTION}."
    assert moving.tried == 0


async def test_the_planned_are_listed_apart(world: World, moving: Moving) -> None:
    made, other = await plan(world), await plan(world)
    async with world.db.write(world.act("asks")) as tx:
        await world.service.calendar.cancel(tx, made.id)

    async with world.db.read(world.act("asks")) as tx:
        every = await world.service.calendar.list_releases(tx)
        planned = await world.service.calendar.list_releases(tx, state=ReleaseState.PLANNED)
    assert [item.id for item in every] == [made.id, other.id]
    assert [item.id for item in planned] == [other.id]
    assert moving.tried == 0
