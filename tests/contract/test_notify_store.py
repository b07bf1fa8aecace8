"""What is told of alerts, from the change of an alert to its delivery, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

import stores
from channel_files import make_sender, put_file
from gateway_harness import until
from hook_server import HookServer
from notified import make_alert, resolve
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import read_revisions
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup
from pilotage.monitoring.alerts.types import AlertChange, AlertState
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.store import NOTICE, NOTICE_ALERT
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    Encryption,
    InhibitionSpec,
    Notice,
    NoticeState,
    RouteKind,
    RouteSpec,
)
from pilotage.monitoring.notify.worker import NoticeDelivery, NoticeTeller
from smtp_server import SmtpServer
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
        sender = make_sender(self.folder, self.clock, limit_s=limit_s)
        return NoticeDelivery(self.db, self.service, sender, self.background)

    async def make_channel(self, name: str = "hook", url: str = "") -> None:
        secret = put_file(self.folder, "signed with this", project_id=self.mine.project_id or "")
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
        assert notice.problem == "127.0.0.1 answered 500"
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


async def test_what_waits_is_not_repeated_behind_it(world: World) -> None:
    await world.make_channel("away", "http://127.0.0.1:9/x")
    await world.make_channel()
    await world.make_route("all", "away", "hook")
    await world.fire()
    await world.deliver()
    world.clock.advance(4 * 86_400)
    await world.tell()

    repeated = [(notice.channel, notice.message.is_repeat) for notice in await world.list_notices()]
    assert sorted(repeated) == [("away", False), ("hook", False), ("hook", True)]


async def test_what_happens_while_a_channel_is_away_is_told_in_one_notice(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 500
    steady = await world.fire("alt_0", alias="steady")
    await world.deliver()
    for number in range(1, 12):
        alert = await world.fire(f"alt_{number}", alias="flapping")
        world.clock.advance(31)
        await world.take(resolve(alert, world.clock.now_us()))
        await world.tell()
        await world.deliver()
    await world.take(resolve(steady, world.clock.now_us()))
    world.clock.advance(31)
    await world.tell()
    assert len(await world.list_notices(NoticeState.WAITING)) == 2

    world.hooks.status = 200
    world.hooks.hooks.clear()
    world.clock.advance(301)
    await world.deliver()

    first, second = (hook.json for hook in world.hooks.hooks)
    assert [alert["id"] for alert in first["alerts"]] == ["alt_0"]
    ended = {alert["id"] for alert in second["alerts"]}
    assert (second["status"], "alt_0" in ended, len(ended) > 4) == ("resolved", True, True)


async def test_what_is_urgent_does_not_wait_for_what_is_not(world: World) -> None:
    await world.make_channel()
    await world.make_route("each", "hook", rule="slow")
    async with world.db.write(world.mine) as tx:
        page = RouteSpec(
            kind=RouteKind.PAGE, channels=("hook",), match={"rule": "down"}, settle_us=0
        )
        await world.service.routes.create(tx, "page", page)
    await world.fire()
    world.clock.advance(1)
    await world.fire("alt_2", rule="down")
    await world.deliver()

    assert [hook.json["kind"] for hook in world.hooks.hooks] == ["page", "ticket"]


async def test_what_is_refused_for_what_it_says_holds_up_nothing_for_long(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 413
    alert = await world.fire()
    for _ in range(3):
        await world.deliver()
        world.clock.advance(300)
    await world.take(resolve(alert, world.clock.now_us()))
    await world.tell()
    world.hooks.status = 200
    world.hooks.hooks.clear()
    await world.deliver()

    assert [hook.json["status"] for hook in world.hooks.hooks] == ["firing", "resolved"]
    states = {notice.state for notice in await world.list_notices()}
    assert states == {NoticeState.DELIVERED}


async def test_always_refused_a_group_has_few_notices(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.status = 400
    most = 0
    await world.fire("alt_0", alias="steady")
    for number in range(1, 15):
        alert = await world.fire(f"alt_{number}", alias="flapping")
        world.clock.advance(31)
        await world.take(resolve(alert, world.clock.now_us()))
        await world.tell()
        await world.deliver()
        most = max(most, len(await world.list_notices(NoticeState.WAITING)))
    assert most <= 3


async def test_one_recipient_who_is_refused_keeps_nothing_from_the_others(world: World) -> None:
    refusing = {"typo@": "550 no such", "later@": "450 later"}

    def refuse(line: str) -> str:
        return next((text for name, text in refusing.items() if f"TO:<{name}" in line), "")

    async with SmtpServer(refuse=refuse) as server:
        to = tuple(f"{name}@bank.example" for name in ("good", "typo", "later"))
        spec = ChannelSpec(
            kind=ChannelKind.EMAIL,
            url=server.url,
            encryption=Encryption.NONE,
            sender="pilotage@bank.example",
            to=to,
        )
        async with world.db.write(world.mine) as tx:
            await world.service.channels.create(tx, "mail", spec)
        await world.make_route("all", "mail")
        alert = await world.fire()
        await world.deliver()
        (partly,) = await world.list_notices()
        world.clock.advance(31)
        await world.take(resolve(alert, world.clock.now_us()))
        del refusing["later@"]
        await world.tell()
        await world.deliver()

    assert partly.problem == f"put off: {to[2]}; refused: {to[1]}"
    assert partly.remaining == to[2:]
    heard = [(mail.content["subject"].split(":")[0], mail.to) for mail in server.mails]
    # whoever was put off gets what is newer, and nothing older after it
    assert heard in (
        [("[FIRING", to[:1]), ("[FIRING", to[2:]), ("[RESOLVED", (to[0], to[2]))],
        [("[FIRING", to[:1]), ("[RESOLVED", (to[0], to[2]))],
    )
    (over,) = [one for one in await world.list_notices() if not one.message.is_firing]
    assert (over.state, over.problem) == (NoticeState.DELIVERED, f"refused: {to[1]}")
    assert NoticeState.WAITING not in await world.list_states()


async def test_a_clock_that_was_ahead_holds_no_notice_up(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.clock.advance(86_400)
    alert = await world.fire()
    world.clock.advance(-86_400)
    await world.take(resolve(alert, world.clock.now_us()))
    await world.tell()

    assert await world.deliver() == 2
    assert [hook.json["status"] for hook in world.hooks.hooks] == ["firing", "resolved"]


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
    world.clock.advance(10 * 86_400)  # a leap of the clock is no time in which it was tried
    await world.deliver()
    assert await world.list_states() == [NoticeState.WAITING]
    async with world.db.write(SYSTEM) as tx:
        await tx.change(tx.update(NOTICE).values(tried_us=NOTICE.c.tried_us + 86_400 * S))
    world.clock.advance(300)
    await world.deliver()
    (given_up,) = await world.list_notices(NoticeState.FAILED)
    assert given_up.problem == "127.0.0.1 answered 404"
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


async def test_a_channel_of_another_project_gets_nothing_by_its_name(world: World) -> None:
    secret = put_file(world.folder, "theirs", project_id=world.projects.other.project_id or "")
    evil = ChannelSpec(kind=ChannelKind.WEBHOOK, url=world.hooks.url, secret=f"file:{secret}")
    async with world.db.write(world.projects.other) as tx:
        await world.service.channels.create(tx, "log", evil)
        with pytest.raises(PilotageError, match="looks like an id"):
            await world.service.channels.create(tx, "chn_1", evil)
    await world.fire()
    await world.deliver()

    (notice,) = await world.list_notices()
    assert (notice.channel_id, notice.state) == ("log", NoticeState.DELIVERED)
    assert world.hooks.hooks == []


async def test_of_very_many_notices_the_oldest_are_given_up_and_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.monitoring.notify.service.MOST_KEPT", 3)
    monkeypatch.setattr("pilotage.monitoring.notify.service.MOST_WAITING", 2)
    for number in range(8):
        await world.fire(f"alt_{number}", alias=f"alias-{number}")
        if number < 5:
            await world.deliver()
        world.clock.advance(1)
    await world.tell()

    told = [
        (notice.message.alerts[0].alert_id, notice.state, notice.problem)
        for notice in await world.list_notices()
    ]
    assert told == [
        ("alt_3", "delivered", ""),
        ("alt_4", "delivered", ""),
        ("alt_5", "failed", "More than 2 others wait for the channel."),
        ("alt_6", "waiting", ""),
        ("alt_7", "waiting", ""),
    ]


async def test_notices_are_found_by_indexes(world: World) -> None:
    if world.db.dialect != "sqlite":
        pytest.skip("how SQLite looks is easily read")
    plans = {
        "SELECT project_id, channel, state, count(*) FROM notice"
        " GROUP BY project_id, channel, state": "COVERING INDEX",
        "DELETE FROM notice WHERE ended_at_us < 1": "ix_notice_ended_at_us",
        "SELECT id FROM notice WHERE project_id = 'p' AND ended_at_us IS NOT NULL"
        " ORDER BY id DESC LIMIT 1 OFFSET 9": "ix_notice_project_id_id",
        "SELECT DISTINCT channel_id FROM notice WHERE state = 'waiting'": "COVERING INDEX",
        "SELECT * FROM notice WHERE channel_id = 'c' AND group_id = 'g'"
        " ORDER BY place DESC LIMIT 2": "ix_notice_channel_id_group_id_place",
    }
    async with world.db.engine.connect() as conn:
        for query, index in plans.items():
            rows = (await conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")).all()
            said = " ".join(map(str, rows))
            assert (index in said, "TEMP B-TREE" in said) == (True, False), said


async def test_a_project_that_cannot_be_read_holds_up_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.make_channel()
    await world.make_route()
    for project in (world.projects.other, world.mine):
        project_id = project.project_id or ""
        await world.take(make_alert(f"alt_{project_id}", project_id=project_id))
    async with world.db.write(world.projects.other) as tx:
        await tx.change(tx.update(NOTICE_ALERT).values(change="no JSON"))
    teller = NoticeTeller(world.db, world.service, world.clock)
    for _ in range(9):
        await teller.step()
        world.clock.advance(1)

    assert len(await world.list_notices()) == 1
    failures = sorted(worker.failures for worker in teller.list_workers())
    assert (failures[0], 1 < failures[1] < 9) == (0, True)  # and is tried less and less often
    assert caplog.text.count("fails and will be tried again") == 1


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


async def test_an_attempt_is_not_cut_short_by_what_was_read_before_it(world: World) -> None:
    await world.make_channel()
    await world.make_route()
    world.hooks.hangs = "body"
    await world.fire()
    delivery = world.make_delivery(limit_s=20.0)
    await delivery.step()
    await until(lambda: len(world.hooks.hooks) == 1, "the attempt")
    async with world.db.write(SYSTEM) as tx:  # as a list that is older than the notice has it
        waiting = tx.update(NOTICE).where(NOTICE.c.state == NoticeState.WAITING)
        await tx.change(waiting.values(state=NoticeState.DELIVERED))
    await delivery.step()
    (lane,) = delivery.list_workers()
    assert (lane.failures, world.hooks.open_connections) == (0, 1)


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
    await until(lambda: not delivery.list_workers(), "the end of the lane")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_on_a_full_disk_an_alert_and_its_notice_are_both_there_or_neither(
    world: World, caplog: pytest.LogCaptureFixture
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
    await world.tell()
    assert "database or disk is full" in caplog.text
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
