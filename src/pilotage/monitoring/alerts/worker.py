"""The look at all rules, once a second: whose condition holds, what is news, who is to be told.

What is news is written together with the notices of it. How far an alert has come in between is
kept here and written every ten seconds, so that a restart forgets no more than that. Alerts are no
revisions: they have to be found, and people told of them, also while changes are refused because
the audit log or the clock is broken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pilotage.core.condition.evaluator import evaluate
from pilotage.core.condition.types import Condition, Labels
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import get_last_seq
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.alerts.rules import (
    Ends,
    Move,
    count_left_out,
    end_alert,
    look_at_rule,
    refill_ends,
    spend_ends,
    tell,
)
from pilotage.monitoring.alerts.service import AlertService, read_condition
from pilotage.monitoring.alerts.types import Alert, AlertChange, AlertRule
from pilotage.monitoring.alerts.values import Picture, ValueSource, Wanted

LOOK_EVERY_S = 1.0
WRITE_EVERY_S = 10.0
DROP_EVERY_S = 600.0
LARGEST_SHARE = 0.25  # of the time that looks may take: thousands of rules may be there
SLICE = 20  # rules, after which whatever else waits has its turn
_LOG = logging.getLogger("pilotage.alerts")


class Notices(Protocol):
    """Whoever tells people."""

    async def take(self, tx: Tx, change: AlertChange) -> None:
        """Take note of a change, in the transaction that writes it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLook:
    """What the last look at a rule came to: the series it holds for, or why nobody can say.

    ``left_out`` is for how many series it holds that have no alert, because there are too many.
    """

    at_us: int
    found: Mapping[Labels, float] = field(default_factory=dict)
    left_out: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """What is looked at since revision ``seq``: rules, what they mean, and what they ask for."""

    seq: int
    rules: Sequence[AlertRule] = ()
    conditions: Sequence[Condition | PilotageError] = ()
    wanted: Sequence[Wanted] = ()


class AlertKeeper:
    """Looks at the rules of all projects; ``looked_at_us`` is when it last did.

    ``is_current`` says whether calls are counted up to now: while they are not, as after a start
    with much to catch up on, nothing that windows of calls tell begins or is over.
    """

    def __init__(
        self,
        db: Database,
        service: AlertService,
        values: ValueSource,
        notices: Notices,
        clock: Clock,
        *,
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self.looks: dict[str, RuleLook] = {}
        self.looked_at_us: int | None = None
        self._db = db
        self._service = service
        self._values = values
        self._notices = notices
        self._clock = clock
        self._is_current = is_current
        self._living: list[Alert] | None = None
        self._watched = _Watched(seq=-1)
        self._ends: dict[str, Ends] = {}
        self._began_s = self._rest_s = 0.0
        self._written_s = self._dropped_s = clock.monotonic_s()

    async def step(self) -> bool:
        """Look once, unless the look before took so long that it is too early."""
        began_s = self._clock.monotonic_s()
        if 0 <= began_s - self._began_s < self._rest_s:
            return False
        await self._look_at_all()
        self._began_s = began_s
        self._rest_s = (self._clock.monotonic_s() - began_s) / LARGEST_SHARE
        if began_s - self._dropped_s >= DROP_EVERY_S:
            self._dropped_s = began_s
            async with self._db.write(SYSTEM) as tx:
                await self._service.drop_past(tx)
        return False

    def make_worker(self) -> Worker:
        """Make the worker."""
        return Worker("alerts", self.step, Wakeup(), LOOK_EVERY_S)

    async def try_condition(self, tx: Tx, condition: Condition) -> RuleLook:
        """Look at a condition in the transaction's project: nothing begins and nobody is told."""
        picture = await self._values.read(tx, _list_wanted([condition]), tx.now_us)
        problem = self._find_problem(condition, picture)
        found = {} if problem else evaluate(condition, picture.of(tx.project_id))
        return RuleLook(at_us=tx.now_us, found=found, problem=problem)

    async def list_wanted(self, tx: Tx) -> Sequence[Wanted]:
        """Return what rules ask for; those whose condition cannot be read ask for nothing."""
        return (await self._watch(tx)).wanted

    async def _look_at_all(self) -> None:
        now_us = self._clock.now_us()
        async with self._db.read(SYSTEM) as tx:
            living = self._living
            if living is None:
                living = list(await self._service.list_living(tx))
            watched = await self._watch(tx)
            picture = await self._values.read(tx, watched.wanted, now_us)
        moves = await self._decide(watched, picture, living)
        self._living = None  # until all is written: after a failure it is read again
        self._living = await self._write(moves)
        self.looked_at_us = now_us

    async def _watch(self, tx: Tx) -> _Watched:
        """Return what is looked at, read anew when anything has changed."""
        seq = await get_last_seq(tx)
        if self._watched.seq == seq:
            return self._watched
        known = _index(self._watched)
        rules = [rule for rule in await self._service.list_all_rules(tx) if rule.is_enabled]
        conditions = []
        for number, rule in enumerate(rules):
            await _give_way(number)
            conditions.append(known.get(rule.condition) or _read(rule))
        wanted = list(dict.fromkeys(_list_wanted(conditions)))
        watched = _Watched(seq=seq, rules=rules, conditions=conditions, wanted=wanted)
        self._watched = watched
        return watched

    async def _decide(
        self, watched: _Watched, picture: Picture, living: Iterable[Alert]
    ) -> list[Move]:
        """Return what becomes of every alert, and note what each rule's look came to."""
        of_rule: dict[str, list[Alert]] = {}
        for alert in living:
            of_rule.setdefault(alert.rule_id, []).append(alert)
        looks: dict[str, RuleLook] = {}
        moves: list[Move] = []
        for number, rule in enumerate(watched.rules):
            await _give_way(number)
            alerts = of_rule.pop(rule.id, [])
            made, looks[rule.id] = self._look_at(rule, watched.conditions[number], picture, alerts)
            moves += made
        moves += [end_alert(alert, picture.at_us) for left in of_rule.values() for alert in left]
        self.looks = looks
        self._ends = {rule_id: ends for rule_id, ends in self._ends.items() if rule_id in looks}
        return moves

    def _look_at(
        self,
        rule: AlertRule,
        condition: Condition | PilotageError,
        picture: Picture,
        alerts: Sequence[Alert],
    ) -> tuple[list[Move], RuleLook]:
        at_us = picture.at_us
        problem = self._find_problem(condition, picture)
        if problem or isinstance(condition, PilotageError):
            return [Move(alert, alert) for alert in alerts], RuleLook(at_us=at_us, problem=problem)
        found = evaluate(condition, picture.of(rule.project_id))
        if not found and not alerts:
            return [], RuleLook(at_us=at_us)
        ends = refill_ends(self._ends.get(rule.id), at_us)
        moves = look_at_rule(
            rule,
            condition.for_us,
            alerts,
            found,
            at_us,
            lambda: self._clock.new_id("alt"),
            most_ends=int(ends.left),
        )
        self._ends[rule.id] = spend_ends(ends, moves)
        left_out = count_left_out(moves, found)
        if left_out and not self._had_too_many(rule):
            _LOG.error("the rule %s holds for %d series too many", rule.name, left_out)
        return moves, RuleLook(at_us=at_us, found=found, left_out=left_out)

    def _find_problem(self, condition: Condition | PilotageError, picture: Picture) -> str:
        """Return why nobody can say whether a condition holds, "" if somebody can."""
        if isinstance(condition, PilotageError):
            return condition.detail
        counted = sorted({ref.name for ref in condition.metrics if ref.window_us})
        if counted and not self._is_current():
            return f"{', '.join(counted)}: calls are not counted up to now"
        unread = sorted({ref.name for ref in condition.metrics} & picture.unread)
        return f"{', '.join(unread)} cannot be read" if unread else ""

    def _had_too_many(self, rule: AlertRule) -> bool:
        before = self.looks.get(rule.id)
        return before is not None and before.left_out > 0

    async def _write(self, moves: Sequence[Move]) -> list[Alert]:
        """Write what is news, and now and then the rest; return the alerts that live on."""
        is_due = self._clock.monotonic_s() - self._written_s >= WRITE_EVERY_S
        if is_due:
            moves = [_raise_rev(move) for move in moves]
            self._written_s = self._clock.monotonic_s()
        written = [move for move in moves if is_due or move.is_news]
        if written:
            async with self._db.write(SYSTEM) as tx:
                await self._service.write_alerts(tx, written)
                for change in filter(None, map(tell, written)):
                    await self._notices.take(tx, change)
        return [move.after for move in moves if move.after is not None and move.after.is_living]


def _list_wanted(conditions: Iterable[Condition | PilotageError]) -> list[Wanted]:
    return [
        Wanted.of(ref)
        for condition in conditions
        if isinstance(condition, Condition)
        for ref in condition.metrics
    ]


async def _give_way(number: int) -> None:
    """Let others run at the end of each slice of much work."""
    if number % SLICE == SLICE - 1:
        await asyncio.sleep(0)


def _index(watched: _Watched) -> dict[str, Condition | PilotageError]:
    """Return what was read of conditions, by their text."""
    pairs = zip(watched.rules, watched.conditions, strict=True)
    return {rule.condition: condition for rule, condition in pairs}


def _read(rule: AlertRule) -> Condition | PilotageError:
    """Return the condition of a rule, or why there is none: the language may have changed."""
    try:
        return read_condition(rule.condition)
    except PilotageError as wrong:
        return wrong


def _raise_rev(move: Move) -> Move:
    """Return a move that is written although it is no news."""
    if move.is_news or move.before is None or move.after is None:
        return move
    return Move(move.before, replace(move.after, rev=move.before.rev + 1))
