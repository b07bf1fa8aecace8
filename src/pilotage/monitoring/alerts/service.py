"""The verbs of alert rules, objectives and alerts. Never commits: the edge does."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Condition
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.monitoring.alerts import store
from pilotage.monitoring.alerts.burn import PAIRS, check_slo, list_burn_rules
from pilotage.monitoring.alerts.rules import Move, check_rule
from pilotage.monitoring.alerts.types import (
    Alert,
    AlertRule,
    AlertState,
    RuleSpec,
    Slo,
    SloSpec,
)

EVERYTHING = 1_000_000
MOST_RULES = 1_000  # of a project, with those of its objectives, so that a look is bounded
MOST_READINGS = 32  # windows and splits of calls that a project's rules look at
MOST_PAST = 10_000  # alerts of a project that are over and not forgotten
KEEP_PAST_US = 90 * 24 * 3_600_000_000
_RULE_FIELDS = tuple(RuleSpec.__dataclass_fields__)
_SLO_FIELDS = tuple(SloSpec.__dataclass_fields__)


class AlertService:
    """Alert rules and objectives of projects, and the alerts that were found."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    # rules

    async def create_rule(self, tx: Tx, name: str, spec: RuleSpec) -> AlertRule:
        """Create a rule in the transaction's project; it is looked at from the next second on.

        Raise ``already_exists`` if the name is taken, ``invalid_request`` for a condition that
        cannot be read or could never hold.
        """
        check_rule(name, spec)
        read_condition(spec.condition)
        if await store.find_rule(tx, name):
            raise _taken("an alert rule", name)
        await _check_room(tx, 1)
        await _check_readings(tx, spec.condition)
        rule = AlertRule(
            id=self._clock.new_id("alr"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            **_said(spec, _RULE_FIELDS),
        )
        await store.insert_rule(tx, rule)
        await append_revision(tx, "monitoring.alert_rule.created", rule.id, 1, rule)
        return rule

    async def get_rule(self, tx: Tx, name_or_id: str) -> AlertRule:
        """Return a living rule by name or id; raise ``not_found``."""
        rule = await store.find_rule(tx, name_or_id)
        if rule is None or rule.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no alert rule {name_or_id!r}.",
                hint="List them: pilotage alerts rules",
                param="alert_rule",
            )
        return rule

    async def list_rules(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[AlertRule]:
        """Return living rules by name, without those of objectives."""
        return await store.list_rules(tx, after, limit)

    async def change_rule(
        self, tx: Tx, name_or_id: str, spec: RuleSpec, expected_rev: int | None = None
    ) -> AlertRule:
        """Change what a rule says; what fires goes on as long as the new condition holds for it."""
        rule = await self.get_rule(tx, name_or_id)
        check_rule(rule.name, spec)
        read_condition(spec.condition)
        if expected_rev not in (None, rule.rev):
            raise _changed("Alert rule", rule.name)
        after, before = _said(spec, _RULE_FIELDS), _said(rule, _RULE_FIELDS)
        if after == before:
            return rule
        await _check_readings(tx, spec.condition, rule.id)
        if not await store.change_rule(tx, rule, **after):
            raise _changed("Alert rule", rule.name)
        await append_revision(
            tx, "monitoring.alert_rule.changed", rule.id, rule.rev + 1, after, before
        )
        return replace(rule, rev=rule.rev + 1, **after)

    async def delete_rule(self, tx: Tx, name_or_id: str) -> None:
        """Delete a rule: what fires of it is over with the next look."""
        rule = await self.get_rule(tx, name_or_id)
        name = f"{rule.name}~{rule.id}"
        if not await store.change_rule(tx, rule, name=name, deleted_at_us=tx.now_us):
            raise _changed("Alert rule", rule.name)
        gone = {"id": rule.id, "name": rule.name}
        await append_revision(
            tx, "monitoring.alert_rule.deleted", rule.id, rule.rev + 1, gone, rule
        )

    # objectives

    async def create_slo(self, tx: Tx, name: str, spec: SloSpec) -> Slo:
        """Create an objective; its burn-rate rules are looked at from the next second on."""
        check_slo(name, spec)
        if await store.find_slo(tx, name):
            raise _taken("an objective", name)
        await _check_room(tx, len(PAIRS))
        slo = Slo(
            id=self._clock.new_id("slo"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            **_said(spec, _SLO_FIELDS),
        )
        await store.insert_slo(tx, slo)
        await append_revision(tx, "monitoring.slo.created", slo.id, 1, slo)
        return slo

    async def get_slo(self, tx: Tx, name_or_id: str) -> Slo:
        """Return a living objective by name or id; raise ``not_found``."""
        slo = await store.find_slo(tx, name_or_id)
        if slo is None or slo.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no objective {name_or_id!r}.",
                hint="List them: pilotage slos list",
                param="slo",
            )
        return slo

    async def list_slos(self, tx: Tx, after: str = "", limit: int = EVERYTHING) -> Sequence[Slo]:
        """Return living objectives by name."""
        return await store.list_slos(tx, after, limit)

    async def change_slo(
        self, tx: Tx, name_or_id: str, spec: SloSpec, expected_rev: int | None = None
    ) -> Slo:
        """Change an objective; its past is judged by the new one at once."""
        slo = await self.get_slo(tx, name_or_id)
        check_slo(slo.name, spec)
        if expected_rev not in (None, slo.rev):
            raise _changed("Objective", slo.name)
        after, before = _said(spec, _SLO_FIELDS), _said(slo, _SLO_FIELDS)
        if after == before:
            return slo
        if not await store.change_slo(tx, slo, **after):
            raise _changed("Objective", slo.name)
        await append_revision(tx, "monitoring.slo.changed", slo.id, slo.rev + 1, after, before)
        return replace(slo, rev=slo.rev + 1, **after)

    async def delete_slo(self, tx: Tx, name_or_id: str) -> None:
        """Delete an objective with its rules: what fires of them is over with the next look."""
        slo = await self.get_slo(tx, name_or_id)
        name = f"{slo.name}~{slo.id}"
        if not await store.change_slo(tx, slo, name=name, deleted_at_us=tx.now_us):
            raise _changed("Objective", slo.name)
        gone = {"id": slo.id, "name": slo.name}
        await append_revision(tx, "monitoring.slo.deleted", slo.id, slo.rev + 1, gone, slo)

    # alerts

    async def list_all_rules(self, tx: Tx) -> Sequence[AlertRule]:
        """Return living rules with those of objectives: all that is looked at or exported."""
        own = await store.list_rules(tx, "", EVERYTHING)
        slos = await store.list_slos(tx, "", EVERYTHING)
        return [*own, *(rule for slo in slos for rule in list_burn_rules(slo))]

    async def get_alert(self, tx: Tx, alert_id: str) -> Alert:
        """Return an alert, a past one too; raise ``not_found``."""
        alert = await store.find_alert(tx, alert_id)
        if alert is None:
            raise PilotageError(
                "not_found",
                f"There is no alert {alert_id!r}.",
                hint="List them: pilotage alerts list --state resolved",
                param="alert",
            )
        return alert

    async def list_alerts(
        self,
        tx: Tx,
        states: Sequence[AlertState] = (AlertState.PENDING, AlertState.FIRING),
        rule: str = "",
        before: str = "",
        limit: int = EVERYTHING,
    ) -> Sequence[Alert]:
        """Return alerts in some states, of one rule unless it is "", the newest first."""
        return await store.list_alerts(tx, states, rule, before, limit)

    async def list_living(self, tx: Tx) -> Sequence[Alert]:
        """Return every alert that is pending or fires."""
        return await store.list_living(tx)

    async def write_alerts(self, tx: Tx, moves: Sequence[Move]) -> None:
        """Write what a look at all rules came to.

        Raise ``conflict`` if somebody else wrote one of them: then nothing here may be committed.
        """
        for move in moves:
            if not await _write(tx, move):
                alert = move.before or move.after
                raise PilotageError(
                    "conflict", f"The alert {alert and alert.id} was written by somebody else."
                )

    async def drop_past(self, tx: Tx) -> int:
        """Forget alerts that have been over for 90 days, or long before many; return how many."""
        old = await store.delete_past(tx, tx.now_us - KEEP_PAST_US)
        return old + await store.delete_surplus(tx, MOST_PAST)


@lru_cache(maxsize=2 * MOST_RULES)
def read_condition(text: str) -> Condition:
    """Return a condition, read once however often it is looked at; raise ``invalid_request``."""
    return parse(text)


async def _write(tx: Tx, move: Move) -> bool:
    """Write a move; return False if the alert has changed meanwhile."""
    if move.after is None:
        return move.before is None or await store.delete_alert(tx, move.before)
    if move.before is None:
        await store.insert_alert(tx, move.after)
        return True
    return await store.change_alert(tx, move.after)


def _said(item: object, fields: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in fields}


async def _check_room(tx: Tx, more: int) -> None:
    """Raise ``conflict`` if a project has no room for more rules."""
    count = await store.count_rules(tx) + len(PAIRS) * await store.count_slos(tx)
    if count + more > MOST_RULES:
        raise PilotageError(
            "conflict",
            f"The project has {count} rules already, of at most {MOST_RULES}; an objective comes "
            f"with {len(PAIRS)}.",
            hint="Delete some, or let one rule watch several endpoints: each is a series of it.",
        )


async def _check_readings(tx: Tx, condition: str, instead_of: str = "") -> None:
    """Raise ``conflict`` if a project's rules looked at too many windows and splits of calls."""
    kept = [rule for rule in await store.list_rules(tx, "", EVERYTHING) if rule.id != instead_of]
    readings: set[tuple[int, tuple[str, ...]]] = set()
    for text in (*(rule.condition for rule in kept), condition):
        with suppress(PilotageError):  # what cannot be read any more reads nothing
            refs = read_condition(text).metrics
            readings |= {(ref.window_us, ref.by) for ref in refs if ref.window_us}
    if len(readings) > MOST_READINGS:
        raise PilotageError(
            "conflict",
            f"The project's rules would look at {len(readings)} windows and splits of calls, of at "
            f"most {MOST_READINGS}.",
            hint="Use the same windows and labels in several rules: they are read once.",
            param="condition",
        )


def _taken(what: str, name: str) -> PilotageError:
    return PilotageError(
        "already_exists",
        f"There is {what} {name!r} already.",
        hint="Choose another name, or change the one that is there.",
        param="name",
    )


def _changed(what: str, name: str) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"{what} {name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
