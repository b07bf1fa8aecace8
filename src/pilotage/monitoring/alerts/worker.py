"""The look at all rules, once a second: whose condition holds, what is news, who is to be told.

What is news is written together with the notices of it. How far an alert has come in between is
kept here and written every ten seconds, so that a restart forgets no more than that. Alerts are no
revisions: they have to be found, and people told of them, also while changes are refused because
the audit log or the clock is broken.
"""

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
from pilotage.monitoring.alerts.rules import Move, count_left_out, end_alert, look_at_rule, tell
from pilotage.monitoring.alerts.service import AlertService, read_condition
from pilotage.monitoring.alerts.types import Alert, AlertChange, AlertRule
from pilotage.monitoring.alerts.values import Picture, ValueSource, Wanted

LOOK_EVERY_S = 1.0
WRITE_EVERY_S = 10.0
DROP_EVERY_S = 3600.0
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


class AlertKeeper:
    """Looks at the rules of all projects.

    ``is_current`` says whether the numbers are those of now: while they are not, as after a start
    with much to catch up on, nothing begins and nothing is over.
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
        self._db = db
        self._service = service
        self._values = values
        self._notices = notices
        self._clock = clock
        self._is_current = is_current
        self._living: list[Alert] | None = None
        self._rules: tuple[int, Sequence[AlertRule]] | None = None
        self._conditions: dict[tuple[str, str], Condition | PilotageError] = {}
        self._written_s = self._dropped_s = clock.monotonic_s()

    async def step(self) -> bool:
        """Look once."""
        if self._is_current():
            await self._look_at_all()
        if self._clock.monotonic_s() - self._dropped_s >= DROP_EVERY_S:
            self._dropped_s = self._clock.monotonic_s()
            async with self._db.write(SYSTEM) as tx:
                await self._service.drop_past(tx)
        return False

    def make_worker(self) -> Worker:
        """Make the worker."""
        return Worker("alerts", self.step, Wakeup(), LOOK_EVERY_S)

    async def try_condition(self, project_id: str, condition: Condition) -> RuleLook:
        """Look at a condition that is no rule's: nothing begins and nobody is told."""
        now_us = self._clock.now_us()
        async with self._db.read(SYSTEM) as tx:
            picture = await self._values.read(tx, _list_wanted([condition]), now_us)
        problem = _find_problem(condition, picture)
        found = {} if problem else evaluate(condition, picture.of(project_id))
        return RuleLook(at_us=now_us, found=found, problem=problem)

    async def _look_at_all(self) -> None:
        now_us = self._clock.now_us()
        async with self._db.read(SYSTEM) as tx:
            living = self._living
            if living is None:
                living = list(await self._service.list_living(tx))
            rules = await self._list_rules(tx)
            conditions = {rule.id: self._read(rule) for rule in rules}
            picture = await self._values.read(tx, _list_wanted(conditions.values()), now_us)
        moves = self._decide(rules, conditions, picture, living)
        self._living = None  # until all is written: after a failure it is read again
        self._living = await self._write(moves)

    async def _list_rules(self, tx: Tx) -> Sequence[AlertRule]:
        """Return the rules that are looked at, read anew when anything has changed."""
        seq = await get_last_seq(tx)
        if self._rules is None or self._rules[0] != seq:
            found = await self._service.list_all_rules(tx)
            self._rules = (seq, [rule for rule in found if rule.is_enabled])
        return self._rules[1]

    def _read(self, rule: AlertRule) -> Condition | PilotageError:
        """Return the condition of a rule, or why there is none: the language may have changed."""
        key = (rule.id, rule.condition)
        if key not in self._conditions:
            try:
                self._conditions[key] = read_condition(rule)
            except PilotageError as wrong:
                self._conditions[key] = wrong
        return self._conditions[key]

    def _decide(
        self,
        rules: Sequence[AlertRule],
        conditions: Mapping[str, Condition | PilotageError],
        picture: Picture,
        living: Iterable[Alert],
    ) -> list[Move]:
        """Return what becomes of every alert, and note what each rule's look came to."""
        of_rule: dict[str, list[Alert]] = {}
        for alert in living:
            of_rule.setdefault(alert.rule_id, []).append(alert)
        looks: dict[str, RuleLook] = {}
        moves: list[Move] = []
        for rule in rules:
            alerts = of_rule.pop(rule.id, [])
            made, looks[rule.id] = self._look_at(rule, conditions[rule.id], picture, alerts)
            moves += made
        moves += [end_alert(alert, picture.at_us) for left in of_rule.values() for alert in left]
        self.looks = looks
        self._conditions = {(rule.id, rule.condition): conditions[rule.id] for rule in rules}
        return moves

    def _look_at(
        self,
        rule: AlertRule,
        condition: Condition | PilotageError,
        picture: Picture,
        alerts: Sequence[Alert],
    ) -> tuple[list[Move], RuleLook]:
        at_us = picture.at_us
        problem = _find_problem(condition, picture)
        if problem or isinstance(condition, PilotageError):
            return [Move(alert, alert) for alert in alerts], RuleLook(at_us=at_us, problem=problem)
        found = evaluate(condition, picture.of(rule.project_id))
        moves = look_at_rule(
            rule, condition.for_us, alerts, found, at_us, lambda: self._clock.new_id("alt")
        )
        left_out = count_left_out(moves, found)
        if left_out and not self._had_too_many(rule):
            _LOG.error("the rule %s holds for %d series too many", rule.name, left_out)
        return moves, RuleLook(at_us=at_us, found=found, left_out=left_out)

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


def _find_problem(condition: Condition | PilotageError, picture: Picture) -> str:
    """Return why nobody can say whether a condition holds, "" if somebody can."""
    if isinstance(condition, PilotageError):
        return condition.detail
    unread = sorted({ref.name for ref in condition.metrics} & picture.unread)
    return f"{', '.join(unread)} cannot be read" if unread else ""


def _raise_rev(move: Move) -> Move:
    """Return a move that is written although it is no news."""
    if move.is_news or move.before is None or move.after is None:
        return move
    return Move(move.before, replace(move.after, rev=move.before.rev + 1))
