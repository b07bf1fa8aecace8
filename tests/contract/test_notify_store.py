"""What is told of alerts, from the change of an alert to a notice of it, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

import stores
from notice_world import World, open_world
from notified import make_alert, resolve
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import read_revisions
from pilotage.monitoring.alerts.types import AlertState
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    InhibitionSpec,
    NoticeState,
    RouteSpec,
)

S = 1_000_000


@pytest.fixture
async def world(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(database, clock, tmp_path) as opened:
        yield opened


# what is configured


async def test_a_channel_is_made_changed_and_deleted_by_revisions(world: World) -> None:
    service = world.service
    await world.make_channel()
    async with world.db.write(world.mine) as tx:
        same = await service.channels.change(
            tx, "hook", (await service.channels.get(tx, "hook")).spec, 1
        )
        changed = await service.channels.change(tx, "hook", ChannelSpec(kind=ChannelKind.LOG), 1)
        await service.channels.delete(tx, changed.id)
        again = await service.channels.create(tx, "hook", ChannelSpec(kind=ChannelKind.LOG))

    assert (same.rev, changed.rev, again.rev) == (1, 2, 1)
    async with world.db.read(world.mine) as tx:
        assert [item.id for item in await service.channels.list(tx)] == [again.id]
        events = [item.event for item in await read_revisions(tx, 0, 100)]
    assert events == [
        f"monitoring.channel.{verb}" for verb in ("created", "changed", "deleted", "created")
    ]


async def test_what_cannot_be_done_to_a_setting_is_told(world: World) -> None:
    service, log = world.service, ChannelSpec(kind=ChannelKind.LOG)
    await world.make_channel()
    await world.make_route()

    async def refuse(work: str, *args: object) -> str:
        part, _, verb = work.partition(".")
        with pytest.raises(PilotageError) as caught:
            async with world.db.write(world.mine) as tx:
                await getattr(getattr(service, part), verb)(tx, *args)
        return caught.value.code

    assert await refuse("channels.create", "hook", log) == "already_exists"
    assert await refuse("channels.create", "No Name", log) == "invalid_request"
    assert await refuse("channels.get", "none") == "not_found"
    assert await refuse("channels.change", "hook", log, 7) == "precondition_failed"
    assert await refuse("channels.delete", "hook") == "conflict"
    nowhere = RouteSpec(channels=("none",))
    assert await refuse("routes.create", "lost", nowhere) == "not_found"
    nothing = InhibitionSpec(source={}, target={"rule": "slow"})
    assert await refuse("inhibitions.create", "all", nothing) == "invalid_request"


async def test_of_two_who_change_a_setting_at_once_one_is_told(world: World) -> None:
    await world.make_channel()
    specs = iter(ChannelSpec(kind=ChannelKind.LOG, tells_end=is_on) for is_on in [True, False] * 2)

    won, lost = await stores.race(
        world.db,
        world.mine,
        lambda tx: world.service.channels.change(tx, "hook", next(specs), 1),
    )

    assert (len(won), len(lost)) == (1, 3)


async def test_a_silence_ends_by_itself_or_at_once(world: World) -> None:
    silences, ends_us = world.service.silences, world.clock.now_us() + 60 * S
    async with world.db.write(world.mine) as tx:
        made = await silences.create(
            tx, {"rule": "slow"}, starts_at_us=None, ends_at_us=ends_us, reason="known"
        )
        other = await silences.create(
            tx, {"rule": "*"}, starts_at_us=None, ends_at_us=ends_us + 60 * S, reason="known"
        )
        ended = await silences.end(tx, other.id)
        assert await silences.end(tx, other.id) == ended
        assert [item.id for item in await silences.list(tx, "", 9)] == [made.id]
    world.clock.advance(61)
    async with world.db.read(world.mine) as tx:
        assert list(await silences.list(tx, "", 9)) == []
        assert len(await silences.list(tx, "", 9, with_ended=True)) == 2
    async with world.db.read(world.projects.other) as tx:
        with pytest.raises(PilotageError, match="There is no silence"):
            await silences.get(tx, made.id)


# from an alert to a delivery


async def test_what_an_alert_became_is_told_once_in_each_state(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    alert = await world.fire()
    assert await world.deliver() == 1
    await world.take(alert)  # again: nothing new
    await world.tell()
    assert await world.deliver() == 0
    world.clock.advance(40)
    await world.take(resolve(alert, world.clock.now_us()))
    await world.tell()
    assert await world.deliver() == 1

    first, second = (hook.json for hook in world.hooks.hooks)
    assert (first["status"], second["status"]) == ("firing", "resolved")
    assert first["id"] != second["id"]
    assert first["groupId"] == second["groupId"]
    assert {notice.state for notice in await world.list_notices()} == {NoticeState.DELIVERED}
    async with world.db.read(SYSTEM) as tx:
        assert list(await world.service.list_busy_projects(tx)) == []


async def test_a_change_that_was_rolled_back_is_not_told(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    alert = make_alert(project_id=world.mine.project_id or "")

    with pytest.raises(PilotageError):
        async with world.db.write(SYSTEM) as tx:
            await world.service.take(tx, alert)
            raise PilotageError("conflict")

    await world.tell()
    assert await world.list_notices() == []


async def test_projects_are_told_apart(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    other = make_alert("alt_9", project_id=world.projects.other.project_id or "")
    await world.take(other)
    await world.fire()
    await world.deliver()

    assert [hook.json["alerts"][0]["id"] for hook in world.hooks.hooks] == ["alt_1"]
    async with world.db.read(world.projects.other) as tx:
        (notice,) = await world.service.list_notices(tx, "", 9)
    assert (notice.channel, notice.state) == ("log", NoticeState.DELIVERED)


async def test_a_channel_that_wants_no_ends_gets_none(world: World) -> None:
    async with world.db.write(world.mine) as tx:
        quiet = ChannelSpec(kind=ChannelKind.LOG, tells_end=False)
        await world.service.channels.create(tx, "quiet", quiet)
    await world.make_route("all", "quiet")
    alert = await world.fire()
    world.clock.advance(40)
    await world.take(resolve(alert, world.clock.now_us()))
    await world.tell()
    assert len(await world.list_notices()) == 1


async def test_on_a_full_disk_an_alert_and_its_notice_are_both_there_or_neither(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    if world.db.dialect != "sqlite":
        pytest.skip("a file's size can be limited, a server's disk is everybody's")
    await world.make_channel()
    await world.make_route()
    large = replace(make_alert(project_id=world.mine.project_id or ""), summary="x" * 100_000)
    await limit_pages(world.db, 1)
    with pytest.raises(PilotageError, match="disk of the database is full") as refused:
        await world.take(large)
    assert refused.value.code == "unavailable"
    await world.tell()
    assert await world.list_notices() == []

    await limit_pages(world.db, 2**30)
    await world.take(large)
    await limit_pages(world.db, 1)
    await world.tell()
    assert "disk of the database is full" in caplog.text
    assert await world.deliver() == 0
    await limit_pages(world.db, 2**30)
    await world.tell()
    assert await world.deliver() == 1


async def limit_pages(db: Database, count: int) -> None:
    """Let the file of the database grow no further; it never has fewer pages than it has."""
    async with db.engine.connect() as conn:  # the one writing connection
        await conn.exec_driver_sql(f"PRAGMA max_page_count = {count}")


async def test_an_unknown_state_is_not_taken(world: World) -> None:
    pending = replace(make_alert(project_id=world.mine.project_id or ""), state=AlertState.PENDING)
    await world.take(pending)
    async with world.db.read(SYSTEM) as tx:
        assert list(await world.service.list_busy_projects(tx)) == []
