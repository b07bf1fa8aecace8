"""The verbs of notices: take what became of alerts, tell of it, deliver it. Never commits.

What is taken is written in the transaction of whoever has it; what is to be delivered is written
in the transaction that decides so. A delivery is claimed before it is tried, so that whatever ends
this process in between, the same notice is tried again under the same id.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.monitoring.alerts.types import AlertChange, AlertState, Severity
from pilotage.monitoring.notify import store
from pilotage.monitoring.notify.rules import (
    GroupStep,
    World,
    choose_due_us,
    is_newer,
    plan_notices,
)
from pilotage.monitoring.notify.settings import Channels, Inhibitions, Routes
from pilotage.monitoring.notify.silences import Silences
from pilotage.monitoring.notify.types import (
    DAY_US,
    LOG_CHANNEL,
    Channel,
    Message,
    Notice,
    NoticeState,
    RouteKind,
)

KEPT_US = 30 * DAY_US
_EVERYTHING = 1_000_000


class NotifyService:
    """Channels, routes, inhibitions and silences, and the notices that come of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.channels = Channels(clock)
        self.routes = Routes(clock)
        self.inhibitions = Inhibitions(clock)
        self.silences = Silences(clock)

    async def take(self, tx: Tx, change: AlertChange) -> None:
        """Take what became of an alert, in the transaction in which it did; twice is once."""
        known = await store.find_alert(tx, change.alert_id)
        if is_newer(known, change):
            await store.put_alert(tx, change, is_new=known is None)

    # telling

    async def find_world(self, tx: Tx) -> World:
        """Return all of the transaction's project that telling depends on."""
        return World(
            alerts=await store.list_alerts(tx),
            routes=await self.routes.list(tx),
            inhibitions=await self.inhibitions.list(tx),
            silences=await store.list_silences(tx, "", _EVERYTHING, ending_after_us=tx.now_us),
            groups=await store.list_groups(tx),
            waiting=await store.list_waiting_groups(tx),
        )

    async def list_busy_projects(self, tx: Tx) -> Sequence[str]:
        """Return the projects of which there may be something to tell."""
        return await store.list_busy_projects(tx)

    async def tell(self, tx: Tx) -> int:
        """Write the notices that are due in the transaction's project; return how many."""
        world = await self.find_world(tx)
        plan = plan_notices(world, tx.now_us)
        written = 0
        for step in plan.steps:
            written += await self._apply(tx, step)
        over = set(plan.over)
        await store.drop_alerts(tx, [item for item in world.alerts if item.alert_id in over])
        return written

    async def _apply(self, tx: Tx, step: GroupStep) -> int:
        """Write what becomes of a group, and a notice for each channel that hears of it."""
        group_id = step.before.id if step.before else self._clock.new_id("ngr")
        if not await self._write_group(tx, step, group_id):
            raise PilotageError("conflict", "A group of alerts was changed meanwhile.")
        if step.message is None or step.route is None:
            return 0
        message = replace(step.message, group_id=group_id)
        written = 0
        for channel_id, name, tells_end in await self._find_channels(tx, step.route.spec.channels):
            if message.is_firing or tells_end:
                await store.insert_notice(tx, self._make_notice(tx, channel_id, name, message))
                written += 1
        return written

    async def _write_group(self, tx: Tx, step: GroupStep, group_id: str) -> bool:
        if step.before is None:
            if step.after is not None:
                await store.insert_group(tx, replace(step.after, id=group_id, rev=1))
            return True
        if step.after is None:
            return await store.drop_group(tx, step.before)
        return await store.change_group(tx, step.before, step.after)

    async def _find_channels(self, tx: Tx, names: Sequence[str]) -> Sequence[tuple[str, str, bool]]:
        if not names:
            return [(LOG_CHANNEL, LOG_CHANNEL, True)]
        found = [await self.channels.find(tx, name) for name in names]
        return [(item.id, item.name, item.spec.tells_end) for item in found if item]

    def _make_notice(self, tx: Tx, channel_id: str, name: str, message: Message) -> Notice:
        return Notice(
            id=self._clock.new_id("ntc"),
            rev=1,
            project_id=tx.project_id,
            channel_id=channel_id,
            channel=name,
            group_id=message.group_id,
            message=message,
            state=NoticeState.WAITING,
            attempts=0,
            due_at_us=tx.now_us,
            created_at_us=tx.now_us,
        )

    # delivering

    async def list_waiting_channels(self, tx: Tx) -> Sequence[str]:
        """Return the ids of the channels that something waits for."""
        return await store.list_waiting_channels(tx)

    async def find_next(self, tx: Tx, channel_id: str) -> Notice | None:
        """Return the oldest notice that is due on a channel and not behind another of its group."""
        seen: set[str] = set()
        for notice in await store.list_waiting(tx, channel_id):
            if notice.group_id in seen:
                continue
            if notice.due_at_us <= tx.now_us:
                return notice
            seen.add(notice.group_id)
        return None

    async def claim(self, tx: Tx, notice: Notice, lease_us: int) -> Notice:
        """Count an attempt that begins; nobody tries again before the lease is over."""
        values: dict[str, Any] = {
            "attempts": notice.attempts + 1,
            "due_at_us": tx.now_us + lease_us,
        }
        if not await store.change_notice(tx, notice, **values):
            raise PilotageError("conflict", "The notice was changed meanwhile.")
        return replace(notice, rev=notice.rev + 1, **values)

    async def record_delivery(self, tx: Tx, notice: Notice) -> bool:
        """Record that a notice was delivered; False if it has changed meanwhile."""
        return await store.change_notice(
            tx,
            notice,
            state=NoticeState.DELIVERED,
            ended_at_us=tx.now_us,
            problem="",
            remaining=(),
        )

    async def record_failure(
        self,
        tx: Tx,
        notice: Notice,
        problem: str,
        *,
        asked_us: int | None = None,
        remaining: Sequence[str] = (),
    ) -> NoticeState:
        """Record a failed attempt, and when to try again; return what the notice is now.

        Where the other side asks for time (``asked_us``), nothing else goes there meanwhile.
        """
        due_us = choose_due_us(
            notice.id, notice.attempts, notice.created_at_us, tx.now_us, asked_us
        )
        state = NoticeState.FAILED if due_us is None else NoticeState.WAITING
        values: dict[str, object] = {"problem": problem, "remaining": tuple(remaining)}
        if due_us is None:
            values |= {"state": state, "ended_at_us": tx.now_us}
        else:
            values["due_at_us"] = due_us
        if await store.change_notice(tx, notice, **values) and due_us and asked_us is not None:
            await store.postpone_channel(tx, notice.channel_id, due_us)
        return state

    async def drop(self, tx: Tx, notice: Notice, problem: str) -> None:
        """Give a notice up that can never be delivered."""
        await store.change_notice(
            tx, notice, state=NoticeState.FAILED, ended_at_us=tx.now_us, problem=problem
        )

    async def forget_ended(self, tx: Tx) -> int:
        """Forget the notices that ended a month ago; return how many."""
        return await store.drop_notices(tx, tx.now_us - KEPT_US)

    # looking

    async def get_notice(self, tx: Tx, notice_id: str) -> Notice:
        """Return a notice; raise ``not_found``."""
        notice = await store.find_notice(tx, notice_id)
        if notice is None:
            raise PilotageError(
                "not_found",
                f"There is no notice {notice_id!r}.",
                hint="List them: pilotage notices list",
                param="notice",
            )
        return notice

    async def list_notices(
        self,
        tx: Tx,
        after: str,
        limit: int,
        *,
        state: NoticeState | None = None,
        channel: str = "",
    ) -> Sequence[Notice]:
        """Return notices in the order in which they were made."""
        return await store.list_notices(tx, after, limit, state=state, channel=channel)

    async def count_notices(self, tx: Tx) -> dict[tuple[str, str, str], int]:
        """Return how many notices there are, by project, the channel's name and their state."""
        return await store.count_notices(tx)

    async def send_again(self, tx: Tx, notice_id: str) -> Notice:
        """Let a notice that was given up be tried anew, for another day; raise ``conflict``."""
        notice = await self.get_notice(tx, notice_id)
        if notice.state != NoticeState.FAILED:
            raise PilotageError(
                "conflict",
                f"The notice is {notice.state}: only one that was given up is sent again.",
            )
        values: dict[str, Any] = {
            "state": NoticeState.WAITING,
            "attempts": 0,
            "due_at_us": tx.now_us,
            "created_at_us": tx.now_us,
            "ended_at_us": None,
        }
        if not await store.change_notice(tx, notice, **values):
            raise PilotageError("precondition_failed", "The notice has changed meanwhile.")
        again = replace(notice, rev=notice.rev + 1, **values)
        said = {"channel": notice.channel, "state": again.state}
        await append_revision(tx, "monitoring.notice.sent_again", notice.id, again.rev, said)
        return again

    def make_test(self, tx: Tx, channel: Channel) -> Notice:
        """Return a notice that says what it is: nobody needs to do anything. It is not written."""
        alert = AlertChange(
            alert_id=self._clock.new_id("alt"),
            project_id=tx.project_id,
            rule="test",
            condition="",
            severity=Severity.INFO,
            state=AlertState.FIRING,
            labels={"channel": channel.name},
            value=None,
            summary=f"A test of the channel {channel.name}: nothing is wrong.",
            team="",
            runbook="",
            starts_at_us=tx.now_us,
            at_us=tx.now_us,
        )
        message = Message(
            group_id=self._clock.new_id("ngr"),
            route="",
            kind=RouteKind.TICKET,
            key={"rule": alert.rule},
            alerts=(alert,),
            is_test=True,
        )
        return self._make_notice(tx, channel.id, channel.name, message)
