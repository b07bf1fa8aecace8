"""Whatever kills the process that delivers notices, each arrives at least once, under one id."""

import asyncio
import os
import random
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import notice_process
import stores
from channel_files import put_file
from gateway_harness import BYTECODE, until
from hook_server import HookServer
from notified import make_alert, resolve
from pilotage.kit.clock import SystemClock
from pilotage.kit.db import SYSTEM, Database, open_sqlite
from pilotage.migrations.tables import get_metadata
from pilotage.monitoring.alerts.types import AlertChange
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    Notice,
    NoticeState,
    RouteSpec,
)
from system import poll

LIMIT_S = 1.0


class World:
    """A project whose alerts are told one by one at a webhook, by a process of its own."""

    def __init__(self, db: Database, path: Path, hooks: HookServer) -> None:
        self.db = db
        self.path = path
        self.hooks = hooks
        self.clock = SystemClock()
        self.service = NotifyService(self.clock)
        self.project_id = ""

    async def furnish(self) -> None:
        async with self.db.engine.begin() as conn:
            await conn.run_sync(get_metadata().create_all)
        mine = (await stores.make_projects(self.db, self.clock)).mine
        self.project_id = mine.project_id or ""
        secret = put_file(self.path.parent, "signed with this", project_id=self.project_id)
        channel = ChannelSpec(kind=ChannelKind.WEBHOOK, url=self.hooks.url, secret=f"file:{secret}")
        route = RouteSpec(channels=("hook",), group_by=("*",), settle_us=0, interval_us=1_000_000)
        async with self.db.write(mine) as tx:
            await self.service.channels.create(tx, "hook", channel)
            await self.service.routes.create(tx, "all", route)

    async def take(self, *changes: AlertChange) -> None:
        async with self.db.write(SYSTEM) as tx:
            for change in changes:
                await self.service.take(tx, replace(change, project_id=self.project_id))

    async def list_notices(self) -> list[Notice]:
        async with self.db.read(SYSTEM) as tx:
            return list(await self.service.list_notices(tx, "", 1000))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Process]:
        """Run the process that delivers; it is killed at the end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            notice_process.__file__,
            str(self.path),
            f"127.0.0.1:{self.hooks.port}",
            str(LIMIT_S),
            stdin=DEVNULL,
            env={**os.environ, **BYTECODE},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "notices.db"
    db = open_sqlite(path, SystemClock())
    async with HookServer() as hooks:
        made = World(db, path, hooks)
        await made.furnish()
        yield made
    await db.close()


async def test_what_was_delivered_and_not_recorded_comes_again_under_its_id(world: World) -> None:
    world.hooks.hangs = "body"  # it has the notice and has not said so
    await world.take(make_alert())
    async with world.working() as process:
        await until(lambda: len(world.hooks.hooks) == 1, "the notice", 20.0)
        process.kill()
        await process.wait()
    (left,) = await world.list_notices()
    assert (left.state, left.attempts) == (NoticeState.WAITING, 1)

    world.hooks.hangs = ""
    async with world.working():
        await until(lambda: len(world.hooks.hooks) == 2, "the notice again", 20.0)
        (after,) = await poll(
            world.list_notices, lambda seen: seen[0].state == NoticeState.DELIVERED
        )

    assert [hook.headers["webhook-id"] for hook in world.hooks.hooks] == [left.id] * 2
    assert world.hooks.hooks[0].body == world.hooks.hooks[1].body
    assert (after.id, after.attempts) == (left.id, 2)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_killed_at_random_it_loses_nothing_and_turns_nothing_around(world: World) -> None:
    dice, count = random.Random(5), 40
    alerts = [make_alert(f"alt_{number}", at_us=world.clock.now_us()) for number in range(count)]
    await world.take(*alerts)
    for _ in range(8):
        seen = len(world.hooks.hooks) + dice.randint(1, 6)
        async with world.working() as process:
            await until(lambda n=seen: len(world.hooks.hooks) >= n, "some notices", 30.0)  # type: ignore[misc]
            process.kill()
    await world.take(*(resolve(alert, world.clock.now_us()) for alert in alerts))
    async with world.working():
        notices = await poll(
            world.list_notices,
            lambda seen: len(seen) == 2 * count and {n.state for n in seen} == {"delivered"},
            90.0,
        )

    heard: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, set[str]] = defaultdict(set)
    for hook in world.hooks.hooks:
        (alert,) = hook.json["alerts"]
        heard[alert["id"]].append(alert["status"])
        ids[alert["id"]].add(hook.headers["webhook-id"])
    assert set(heard) == {alert.alert_id for alert in alerts}
    assert all(states == sorted(states) for states in heard.values())  # firing, then resolved
    assert all(len(found) == 2 for found in ids.values())
    assert set().union(*ids.values()) == {notice.id for notice in notices}
    assert len(world.hooks.hooks) >= 2 * count
