"""The loop that looks at every running rollout, makes its next move, and settles ended ones.

Each look goes: lease, load, judge, ``next_move``, one transaction. Whatever is decided is written
with the revision it was decided on as its guard, so a crash anywhere leaves what the row says, and
the next look goes on from there. What takes long is done after the move that ends a rollout: units
and calls are forgotten a portion at a time, between looks at the others, and its cost is added up.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, ReplicaState
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.worker import Wakeup, Worker, find_pause_s
from pilotage.rollouts import store
from pilotage.rollouts.look_rules import is_worth_keeping, is_worth_recording, widens
from pilotage.rollouts.service import RolloutService
from pilotage.rollouts.step_rules import explain, next_move
from pilotage.rollouts.types import Judgement, Look, Move, Readiness, Rollout, State

LEASE_US = 10_000_000
WAITS = "waits: "
LAST_LOOKS = 20  # whatever can be said of a rollout within a minute is among them
_LOG = logging.getLogger("pilotage.rollouts")


class RolloutRunner:
    """Looks at rollouts; ``holder`` names whoever shares this database and does so, too."""

    def __init__(
        self, db: Database, service: RolloutService, endpoints: EndpointService, holder: str
    ) -> None:
        self._db = db
        self._service = service
        self._endpoints = endpoints
        self._holder = holder
        self._failing: dict[str, _Failing] = {}

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker; it looks every second, and when rung."""
        return Worker("rollouts", self.step, wakeup)

    async def step(self) -> bool:
        """Look at every rollout once; say if there is more to do at once.

        What goes wrong with one keeps nobody from looking at the others, or at it again.
        """
        async with self._db.read(SYSTEM) as tx:
            running = await self._service.list_running(tx)
            ended = await self._service.list_unsettled(tx)
            now_us = tx.now_us
        there = {item.id for item in (*running, *ended)}
        self._failing = {key: item for key, item in self._failing.items() if key in there}
        rested = [item for item in ended if self._find_failing(item).rests_until_us <= now_us]
        has_more = False
        for rollout in (*running, *rested):
            try:
                has_more |= await self._work_on(rollout)
                self._failing.pop(rollout.id, None)
            except Exception as failed:
                self._note(rollout, failed, now_us)
        return has_more

    async def _work_on(self, rollout: Rollout) -> bool:
        if rollout.progress.has_ended:
            return await self._settle(rollout)
        if await self._lease(rollout):
            await self._look_at(rollout.id, _act(rollout))
        return False

    async def _settle(self, rollout: Rollout) -> bool:
        """Forget a portion of what an ended rollout has left, at last record its cost."""
        async with self._db.write(_act(rollout)) as tx:
            if await self._service.forget(tx, rollout):
                return True
        async with self._db.read(_act(rollout)) as tx:
            cost_nano = await self._service.find_cost(tx, rollout)
        async with self._db.write(_act(rollout)) as tx:
            await self._service.settle(tx, rollout, cost_nano)
        return False

    def _find_failing(self, rollout: Rollout) -> "_Failing":
        return self._failing.get(rollout.id, _Failing(0, 0))

    def _note(self, rollout: Rollout, failed: Exception, now_us: int) -> None:
        """Log what keeps a rollout from being looked at, once until it is over."""
        failures = self._find_failing(rollout).failures + 1
        rests_us = round(find_pause_s(failures) * 1e6)
        self._failing[rollout.id] = _Failing(failures, now_us + rests_us)
        if failures == 1:
            _LOG.error("%s cannot be looked at: %s", rollout.id, failed, exc_info=failed)

    async def _lease(self, rollout: Rollout) -> bool:
        """Say whether this process is the one that looks after a rollout."""
        async with self._db.read(_act(rollout)) as tx:
            lease, now_us = await store.find_lease(tx, rollout.id), tx.now_us
        is_mine = lease.holder == self._holder
        if is_mine and lease.until_us > now_us + LEASE_US // 2:
            return True
        if not is_mine and lease.until_us >= now_us:
            return False
        async with self._db.write(_act(rollout)) as tx:
            return await store.take_lease(tx, rollout, self._holder, tx.now_us + LEASE_US)

    async def _look_at(self, rollout_id: str, actor: Actor) -> None:
        async with self._db.read(actor) as tx:
            rollout = await self._service.get(tx, rollout_id)
            seen = await self._see(tx, rollout)
            judged = await self._service.judge(tx, rollout)
            looks = await self._service.list_looks(tx, rollout, "", LAST_LOOKS)
            now_us = tx.now_us
            move = next_move(rollout.plan, rollout.progress, seen, judged, now_us)
            waits = await self._find_wait(tx, rollout, move) if move else ""
        if waits:
            await self._wait(rollout, waits)
        elif move is not None:
            await self._move(rollout, move, judged)
            return
        if judged is not None:
            if move is None:
                await self._wait_no_longer(rollout, judged)
            await self._keep(rollout, judged, looks, now_us)

    async def _find_wait(self, tx: Tx, rollout: Rollout, move: Move) -> str:
        """Return why a move that is due may not be made yet, "" if it may be."""
        try:
            if widens(rollout, move):
                await self._service.check_may_widen(tx, rollout)
        except PilotageError as refused:
            return refused.detail
        return ""

    async def _move(self, rollout: Rollout, move: Move, judged: Judgement | None) -> None:
        try:
            async with self._db.write(_act(rollout, move.reason)) as tx:
                if widens(rollout, move):
                    await self._service.check_may_widen(tx, rollout)
                moved = await self._service.move(tx, rollout, move, judged)
        except PilotageError as refused:  # if it has moved meanwhile, nothing waits
            await self._wait(rollout, refused.detail)
            return
        _LOG.info(
            "%s is %s at step %d: %s",
            moved.id,
            moved.progress.state,
            moved.progress.step,
            moved.said,
        )

    async def _wait(self, rollout: Rollout, detail: str) -> None:
        """Say why a move that is due is not made yet, once."""
        reason = WAITS + detail
        if rollout.said == reason:
            return
        async with self._db.write(_act(rollout)) as tx:
            if await self._service.wait(tx, rollout, reason):
                _LOG.warning("%s %s", rollout.id, reason)

    async def _wait_no_longer(self, rollout: Rollout, judged: Judgement) -> None:
        """Say how a step stands that is no longer due."""
        if rollout.progress.state is State.RUNNING and rollout.said.startswith(WAITS):
            async with self._db.write(_act(rollout)) as tx:
                await store.say(tx, rollout, explain(judged))

    async def _keep(
        self, rollout: Rollout, judged: Judgement, looks: Sequence[Look], now_us: int
    ) -> None:
        if not is_worth_keeping(rollout, judged, looks, now_us):
            return
        async with self._db.write(_act(rollout)) as tx:
            if not await store.take_lease(tx, rollout, self._holder, tx.now_us + LEASE_US):
                return  # it has moved, or it took so long that somebody else looks at it
            await self._service.keep_look(tx, rollout, judged)
            if is_worth_recording(judged, looks):
                await self._service.records.add_look(tx, rollout, judged)

    async def _see(self, tx: Tx, rollout: Rollout) -> Readiness:
        """Return what is seen of the candidate; where neither arm runs it is not its fault."""
        endpoint = await self._endpoints.get_endpoint(tx, rollout.endpoint_id)
        there = {item.id: item for item in await self._endpoints.list_deployments(tx, endpoint)}
        seen = self._see_arm(there.get(rollout.candidate_id))
        if seen is Readiness.FAILED:
            baseline = self._see_arm(there.get(rollout.baseline_id))
            return seen if baseline is Readiness.READY else Readiness.STARTING
        return seen

    def _see_arm(self, arm: Deployment | None) -> Readiness:
        if arm is None:
            return Readiness.FAILED
        if arm.upstream_id:
            return Readiness.READY
        status = self._endpoints.list_statuses().get(arm.id)
        if status is None:  # one that sleeps wakes with its first call
            is_asleep = self._endpoints.scaling.is_asleep(arm)
            return Readiness.READY if is_asleep else Readiness.STARTING
        if status.state is ReplicaState.READY:
            return Readiness.READY
        is_looping = status.state is ReplicaState.LOOPING
        return Readiness.FAILED if is_looping else Readiness.STARTING


class _Failing(NamedTuple):
    """How often in a row work on a rollout has failed; what is left of an ended one rests then."""

    failures: int
    rests_until_us: int


def _act(rollout: Rollout, reason: str = "looks at its rollouts") -> Actor:
    return Actor(principal_id=SYSTEM.principal_id, project_id=rollout.project_id, reason=reason)
