"""What is told of alerts, from the change of an alert to its delivery, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

import stores
from gateway_harness import until
from hook_server import HookServer
from notified import make_alert, resolve
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.outbox import read_revisions
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup
from pilotage.monitoring.alerts.types import AlertChange, AlertState
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    InhibitionSpec,
    Notice,
    NoticeState,
    RouteSpec,
)
from pilotage.monitoring.notify.worker import (
    NoticeDelivery,
    NoticeTeller,
    Sender,
    make_notifiers,
)
from system import poll

S = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A project whose alerts are told at a webhook."""

    db: Database
    clock: ManualClock
    service: NotifyService
    projects: stores.Projects
    hooks: HookServer
    background: Background
    folder: Path

    @property
    def mine(self) -> Actor:
        return self.projects.mine

    def make_delivery(self, limit_s: float = 5.0) -> NoticeDelivery:
        egress = EgressPolicy("127.0.0.0/8", self.clock)
        sender = Sender(make_notifiers(egress, self.clock, self.folder / "data"), limit_s)
        return NoticeDelivery(self.db, self.service, sender, self.background)

    async def make_channel(self, name: str = "hook", url: str = "") -> None:
        secret = self.folder / "secret"
        secret.write_text("signed with this")
        spec = ChannelSpec(
            kind=ChannelKind.WEBHOOK, url=url or self.hooks.url, secret=f"file:{secret}"
        )
        async with self.db.write(self.mine) as tx:
            await self.service.channels.create(tx, name, spec)

    async def make_route(self, name: str = "all", *channels: str, **match: str) -> None:
        spec = RouteSpec(
            channels=channels or ("hook",), match=match, settle_us=0, interval_us=30 * S
        )
        async with self.db.write(self.mine) as tx:
            await self.service.routes.create(tx, name, spec)

    async def take(self, *changes: AlertChange) -> None:
        async with self.db.write(SYSTEM) as tx:
            for change in changes:
                await self.service.take(tx, change)

    async def fire(
        self, alert_id: str = "alt_1", rule: str = "slow", alias: str = "chat"
    ) -> AlertChange:
        """Let an alert fire, and tell of it; return it."""
        project_id = self.mine.project_id or ""
        now_us = self.clock.now_us()
        alert = make_alert(alert_id, rule, at_us=now_us, project_id=project_id, alias=alias)
        await self.take(alert)
        await self.tell()
        return alert

    async def tell(self) -> None:
        await NoticeTeller(self.db, self.service, self.clock).step()

    async def deliver(self, delivery: NoticeDelivery | None = None) -> int:
        """Deliver what is due, channel by channel; return how many attempts that took."""
        delivery = delivery or self.make_delivery()
        async with self.db.read(SYSTEM) as tx:
            channels = await self.service.list_waiting_channels(tx)
        attempts = 0
        for channel_id in channels:
            while await delivery.deliver_next(channel_id):
                attempts += 1
        return attempts

    async def list_notices(self, state: NoticeState | None = None) -> list[Notice]:
        async with self.db.read(self.mine) as tx:
            return list(await self.service.list_notices(tx, "", 100, state=state))

    async def list_states(self) -> list[NoticeState]:
        return [notice.state for notice in await self.list_notices()]


@pytest.fixture
async def world(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[World]:
    async with HookServer() as hooks, Background() as background:
        yield World(
            db=database,
            clock=clock,
            service=NotifyService(clock),
            projects=await stores.make_projects(database, clock),
            hooks=hooks,
            background=background,
            folder=tmp_path,
        )


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


# at least once


async def test_a_notice_is_tried_again_under_the_same_id_until_it_arrives(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 500
    await world.fire()
    seconds = []
    for _ in range(8):
        assert await world.deliver() == 1
        assert await world.deliver() == 0
        (notice,) = await world.list_notices(NoticeState.WAITING)
        seconds.append((notice.due_at_us - world.clock.now_us()) / 1e6)
        assert notice.problem == "127.0.0.1 answered 500: {}"
        world.clock.advance(seconds[-1])
    world.hooks.status = 200
    assert await world.deliver() == 1

    assert {hook.headers["webhook-id"] for hook in world.hooks.hooks} == {notice.id}
    assert len(world.hooks.hooks) == 9
    for number, pause in enumerate(seconds):
        assert 2.0**number <= pause <= 2.0 ** (number + 1)
    (notice,) = await world.list_notices(NoticeState.DELIVERED)
    assert (notice.attempts, notice.problem) == (9, "")


async def test_a_process_that_ends_between_delivery_and_record_delivers_again(
    world: World,
) -> None:
    await world.make_channel()
    await world.make_route()
    await world.fire()
    (notice,) = await world.list_notices()
    async with world.db.write(SYSTEM) as tx:
        await world.service.claim(tx, notice, 10 * S)  # and then it was delivered, and killed

    assert await world.deliver() == 0
    world.clock.advance(10)
    assert await world.deliver() == 1
    assert [hook.headers["webhook-id"] for hook in world.hooks.hooks] == [notice.id]


async def test_of_two_who_deliver_the_same_one_does(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    await world.fire()
    (notice,) = await world.list_notices()

    won, lost = await stores.race(
        world.db, SYSTEM, lambda tx: world.service.claim(tx, notice, 10 * S)
    )

    assert (len(won), len(lost)) == (1, 3)


async def test_who_asks_for_time_gets_nothing_meanwhile(world: World) -> None:
    await world.make_channel()
    await world.make_route("each", "hook")
    world.hooks.status, world.hooks.more = 429, {"retry-after": "50"}
    async with world.db.write(world.mine) as tx:
        each = RouteSpec(channels=("hook",), group_by=("*",), settle_us=0, interval_us=S)
        await world.service.routes.change(tx, "each", each)
    await world.fire("alt_1")
    await world.fire("alt_2", alias="small")

    assert await world.deliver() == 1
    world.clock.advance(49)
    assert await world.deliver() == 0
    world.hooks.status = 200
    world.clock.advance(1)
    assert await world.deliver() == 2
    assert len(world.hooks.hooks) == 3


async def test_nobody_hears_the_end_before_the_beginning(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 503
    alert = await world.fire()
    await world.deliver()
    for _ in range(6):
        world.clock.advance(30)
        await world.deliver()
    await world.take(resolve(alert, world.clock.now_us()))
    await world.tell()
    assert len(await world.list_notices(NoticeState.WAITING)) == 2
    assert await world.deliver() == 0  # the end waits behind the beginning
    world.hooks.status = 200
    seen = len(world.hooks.hooks)
    world.clock.advance(300)
    await world.deliver()

    assert [hook.json["status"] for hook in world.hooks.hooks[seen:]] == ["firing", "resolved"]


async def test_after_a_day_a_notice_is_given_up_kept_and_can_be_sent_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 404
    await world.fire()
    await world.deliver()
    world.clock.advance(86_400)
    await world.deliver()
    (given_up,) = await world.list_notices(NoticeState.FAILED)
    assert given_up.problem == "127.0.0.1 answered 404: {}"
    assert f"{given_up.id} is given up for hook" in caplog.text

    world.hooks.status = 200
    async with world.db.write(world.mine) as tx:
        await world.service.send_again(tx, given_up.id)
    await world.deliver()

    (delivered,) = await world.list_notices(NoticeState.DELIVERED)
    assert delivered.id == given_up.id
    async with world.db.write(world.mine) as tx:
        with pytest.raises(PilotageError, match="is delivered"):
            await world.service.send_again(tx, given_up.id)
        counts = await world.service.count_notices(tx)
    assert counts == {(world.mine.project_id, "hook", "delivered"): 1}
    world.clock.advance(31 * 86_400)
    await world.tell()
    (repeated,) = await world.list_notices()
    assert (repeated.id != given_up.id, repeated.message.is_repeat) == (True, True)


async def test_what_waits_for_a_deleted_channel_is_given_up(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    await world.fire()
    async with world.db.write(world.mine) as tx:
        await world.service.routes.delete(tx, "all")
        await world.service.channels.delete(tx, "hook")
    await world.deliver()

    (notice,) = await world.list_notices()
    assert (notice.state, notice.problem) == (NoticeState.FAILED, "The channel was deleted.")


async def test_a_channel_that_hangs_holds_up_nobody_else(world: World) -> None:
    async with HookServer() as hanging:
        hanging.hangs = "body"
        await world.make_channel("hanging", hanging.url)
        await world.make_channel()
        await world.make_route("all", "hanging", "hook")
        delivery = world.make_delivery(limit_s=20.0)
        worker = delivery.make_worker(Wakeup())
        task = world.background.start(worker.run(), "lanes")
        await world.fire()
        await until(lambda: len(hanging.hooks) == 1 and len(world.hooks.hooks) == 1, "both")
        await world.fire("alt_2", rule="else", alias="small")
        world.clock.advance(31)
        await world.tell()
        await until(lambda: len(world.hooks.hooks) == 2, "the next notice")
        assert len(hanging.hooks) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_lanes_close_when_nothing_waits(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    delivery = world.make_delivery()
    worker = delivery.make_worker(Wakeup())
    task = world.background.start(worker.run(), "lanes")
    for number in range(3):
        await world.fire(f"alt_{number}", alias=f"alias-{number}")
        world.clock.advance(31)
        await world.tell()
        states = await poll(world.list_states, lambda seen: set(seen) == {NoticeState.DELIVERED})
        assert len(states) == number + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_on_a_full_disk_an_alert_and_its_notice_are_both_there_or_neither(
    world: World,
) -> None:
    if world.db.dialect != "sqlite":
        pytest.skip("a file's size can be limited, a server's disk is everybody's")
    await world.make_channel()
    await world.make_route()
    large = replace(make_alert(project_id=world.mine.project_id or ""), summary="x" * 100_000)
    await limit_pages(world.db, 1)
    with pytest.raises(sa.exc.OperationalError, match="database or disk is full"):
        await world.take(large)
    await world.tell()
    assert await world.list_notices() == []

    await limit_pages(world.db, 2**30)
    await world.take(large)
    await limit_pages(world.db, 1)
    with pytest.raises(sa.exc.OperationalError, match="database or disk is full"):
        await world.tell()
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
