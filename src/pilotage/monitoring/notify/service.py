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
from pilotage.monitoring.notify.ports import RefusedError
from pilotage.monitoring.notify.rules import (
    LONGEST_WAIT_US,
    MOST_REFUSALS,
    GroupStep,
    World,
    choose_rank,
    choose_wait_us,
    is_newer,
    merge_messages,
    plan_notices,
    say_absent,
)
from pilotage.monitoring.notify.settings import Channels, Inhibitions, Routes
from pilotage.monitoring.notify.silences import Silences
from pilotage.monitoring.notify.types import (
    DAY_US,
    LOG_CHANNEL,
    Arrival,
    Channel,
    ChannelKind,
    ChannelSpec,
    Message,
    Notice,
    NoticeState,
    RouteKind,
)

KEPT_US = 30 * DAY_US
MOST_KEPT = 10_000  # of those that ended, in a project
MOST_WAITING = 1_000  # for a channel
_BUILT_IN_LOG = ChannelSpec(kind=ChannelKind.LOG)
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
                written += await self._put(tx, channel_id, name, message)
        return written

    async def _put(self, tx: Tx, channel_id: str, name: str, message: Message) -> int:
        """Write a notice, or what it says into one that waits untried behind another of its group.

        So of what becomes of a group while its channel is away, two notices are left: the first as
        it was, and one of all since. What waits needs no repeating. Return how many were written.
        """
        latest = await store.list_last(tx, channel_id, message.group_id)
        waiting = [item for item in latest if item.state == NoticeState.WAITING]
        last = latest[0] if latest else None
        if last is not None and last in waiting:
            if message.is_repeat and not last.may_pass:
                return 0
            if len(waiting) > 1 and last.attempts == 0:
                both = merge_messages(last.message, message)
                if await store.change_notice(tx, last, message=both, rank=choose_rank(both)):
                    return 0
        notice = self._make_notice(tx, channel_id, name, message)
        place = last.place + 1 if last else 0
        await store.insert_notice(tx, replace(notice, place=place))
        return 1

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
            rank=choose_rank(message),
        )

    # delivering

    async def list_waiting_channels(self, tx: Tx) -> Sequence[str]:
        """Return the ids of the channels that something waits for."""
        return await store.list_waiting_channels(tx)

    async def find_next(self, tx: Tx, channel_id: str) -> Notice | None:
        """Return the most urgent notice due on a channel that is not behind one of its group."""
        return await store.find_next(tx, channel_id, tx.now_us + LONGEST_WAIT_US)

    async def find_channel(self, tx: Tx, notice: Notice) -> ChannelSpec | None:
        """Return where a notice goes, None if its channel was deleted."""
        if notice.channel_id == LOG_CHANNEL:
            return _BUILT_IN_LOG
        found = await self.channels.find_by_id(tx, notice.channel_id, notice.project_id)
        return found.spec if found else None

    async def claim(self, tx: Tx, notice: Notice, lease_us: int) -> Notice:
        """Count an attempt that begins; nobody tries again before the lease is over."""
        values: dict[str, Any] = {
            "attempts": notice.attempts + 1,
            "due_at_us": tx.now_us + lease_us,
        }
        if not await store.change_notice(tx, notice, **values):
            raise PilotageError("conflict", "The notice was changed meanwhile.")
        return replace(notice, rev=notice.rev + 1, **values)

    async def record_arrival(self, tx: Tx, notice: Notice, arrival: Arrival) -> NoticeState:
        """Record who has a notice; whoever was put off is tried again. Return what it is now."""
        await store.end_passed(tx, notice)
        problem = say_absent(arrival)
        if arrival.later:
            failed = PilotageError("unavailable", problem)
            return await self._try_later(tx, notice, failed, remaining=arrival.later, may_pass=True)
        values = {"state": NoticeState.DELIVERED, "ended_at_us": tx.now_us}
        await store.change_notice(tx, notice, problem=problem, remaining=(), **values)
        return NoticeState.DELIVERED

    async def record_failure(self, tx: Tx, notice: Notice, failed: PilotageError) -> NoticeState:
        """Record a failed attempt, and when to try again; return what the notice is now.

        Where the other side asks for time, nothing else goes there meanwhile. What it refused for
        what it says, some times, is passed by what comes after it.
        """
        may_pass = notice.may_pass or (
            isinstance(failed, RefusedError) and notice.attempts >= MOST_REFUSALS
        )
        if may_pass:
            await store.end_passed(tx, notice)
        return await self._try_later(tx, notice, failed, may_pass=may_pass)

    async def _try_later(
        self, tx: Tx, notice: Notice, failed: PilotageError, **values: object
    ) -> NoticeState:
        asked_us = None if failed.retry_after_s is None else round(failed.retry_after_s * 1e6)
        wait_us = choose_wait_us(notice.id, notice.attempts, notice.tried_us, asked_us)
        values["problem"] = failed.detail
        if wait_us is None:
            values |= {"state": NoticeState.FAILED, "ended_at_us": tx.now_us}
            await store.change_notice(tx, notice, **values)
            return NoticeState.FAILED
        due_us = tx.now_us + wait_us
        values |= {"due_at_us": due_us, "tried_us": notice.tried_us + wait_us}
        if await store.change_notice(tx, notice, **values) and asked_us is not None:
            await store.postpone_channel(tx, notice.channel_id, due_us)
        return NoticeState.WAITING

    async def drop(self, tx: Tx, notice: Notice, problem: str) -> None:
        """Give a notice up that can never be delivered."""
        await store.change_notice(
            tx, notice, state=NoticeState.FAILED, ended_at_us=tx.now_us, problem=problem
        )

    async def limit_waiting(self, tx: Tx) -> int:
        """Give the oldest notices up of channels that very many wait for; return how many."""
        problem = f"More than {MOST_WAITING} others wait for the channel."
        channels = await store.list_waiting_channels(tx)
        return sum([await store.give_up_beyond(tx, one, MOST_WAITING, problem) for one in channels])

    async def forget_ended(self, tx: Tx) -> int:
        """Forget the notices that ended a month ago, and those of very many; return how many."""
        dropped = await store.drop_notices(tx, tx.now_us - KEPT_US)
        projects = {project_id for project_id, _, _ in await store.count_notices(tx)}
        for project_id in sorted(projects):
            dropped += await store.drop_beyond(tx, project_id, MOST_KEPT)
        return dropped

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
            "tried_us": 0,
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
