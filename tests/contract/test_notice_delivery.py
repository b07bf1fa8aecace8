"""Notices are delivered at least once, in order, whatever is away or refuses, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import stores
from channel_files import put_file
from gateway_harness import until
from hook_server import HookServer
from notice_world import World, open_world
from notified import make_alert, resolve
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.worker import Wakeup
from pilotage.monitoring.notify.store import NOTICE, NOTICE_ALERT
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    Encryption,
    NoticeState,
    RouteKind,
    RouteSpec,
)
from pilotage.monitoring.notify.worker import NoticeTeller
from smtp_server import SmtpServer
from system import poll

S = 1_000_000


@pytest.fixture
async def world(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(database, clock, tmp_path) as opened:
        yield opened


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
