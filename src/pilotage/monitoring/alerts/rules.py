"""What alerting decides: when a series is pending, fires and is over. Pure: no clock, no I/O.

Time is counted, not subtracted from a beginning: each look adds what passed since the one before,
and vouches for no more than a little of it. So a clock that is set back adds nothing, one that
leaps adds next to nothing, and no alert fires for time in which nobody looked.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.types import Condition, Labels
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.monitoring.alerts.types import (
    Alert,
    AlertChange,
    AlertRule,
    AlertState,
    MetricType,
    RuleSpec,
    Standing,
)

VOUCHED_US = 15_000_000  # how much of the time before it a look stands for
LONGEST_TEXT = 1000
MOST_LABELS = 16
MOST_KEPT_US = 24 * 3_600_000_000
MOST_SERIES = 500  # that can be pending or fire of one rule
MOST_ENDS = 1000  # alerts of one rule that are over in an hour; beyond, they go on firing
HOUR_US = 3_600_000_000
RESERVED_LABELS = frozenset(
    {
        *("alertname", "rule", "project", "severity", "team", "window", "le"),
        *("alias", "tenant", "arm", "version", "model", "feature", "measure", "slo"),
    }
)


BURN_NAME = re.compile(r"-burn-\d+[mhd]\Z")
_COST = frozenset({"budget_used", "cost_spike"})  # beside what is in USD
_QUALITY = frozenset(
    {
        *("prediction_distribution_shift", "drift_score", "feedback_score", "accuracy"),
        *("hallucination_rate", "toxicity_score", "validation_pass_rate"),
    }
)


class Ends(NamedTuple):
    """How many more alerts of a rule may be over just now, and when that was reckoned."""

    left: float
    at_us: int


class Move(NamedTuple):
    """What becomes of an alert: begun without ``before``, forgotten without ``after``."""

    before: Alert | None
    after: Alert | None

    @property
    def is_news(self) -> bool:
        """Whether it is in another state, and not only further in the same."""
        return self.before is None or self.after is None or self.before.state != self.after.state


def look_at_rule(
    rule: AlertRule,
    for_us: int,
    living: Iterable[Alert],
    found: Mapping[Labels, float],
    now_us: int,
    make_id: Callable[[], str],
    *,
    most_ends: int = MOST_ENDS,
) -> list[Move]:
    """Return what becomes of a rule's alerts, given the series for which its condition holds.

    ``living`` are those that are pending or fire. Of more than ``MOST_SERIES`` series, those that
    are new are left out; :func:`count_left_out` says how many. No more than ``most_ends`` alerts
    are over: of a rule that flaps, the others go on firing until it is their turn.
    """
    held = {_name(rule, labels): value for labels, value in found.items()}
    moves = []
    for alert in living:
        value = held.pop(tuple(sorted(alert.labels.items())), None)
        standing = move_standing(
            alert.standing,
            is_held=value is not None,
            now_us=now_us,
            for_us=for_us,
            keep_us=rule.keep_firing_us,
        )
        if standing is not None and standing.state is AlertState.RESOLVED:
            if most_ends <= 0:
                standing = replace(standing, state=AlertState.FIRING)
            most_ends -= 1
        moves.append(Move(alert, _move(alert, standing, value, now_us)))
    room = max(0, MOST_SERIES - len(moves))
    for labels in sorted(held)[:room]:
        began = _begin(rule, dict(labels), held[labels], now_us, for_us, make_id())
        moves.append(Move(None, began))
    return moves


def count_left_out(moves: Iterable[Move], found: Mapping[Labels, float]) -> int:
    """Return for how many series a condition holds that have no alert, for want of room."""
    alive = sum(
        1 for move in moves if move.after is not None and move.after.standing.gone_us is None
    )
    return len(found) - alive


def refill_ends(before: Ends | None, now_us: int) -> Ends:
    """Return how many alerts of a rule may be over now: it is given them evenly over the hour."""
    if before is None:
        return Ends(MOST_ENDS, now_us)
    passed_us = count_passed(before.at_us, now_us, HOUR_US)
    return Ends(min(MOST_ENDS, before.left + MOST_ENDS * passed_us / HOUR_US), now_us)


def spend_ends(ends: Ends, moves: Iterable[Move]) -> Ends:
    """Return what is left of them after a look."""
    over = sum(1 for move in moves if move.after is not None and not move.after.is_living)
    return Ends(ends.left - over, ends.at_us)


def end_alert(alert: Alert, now_us: int) -> Move:
    """Return what becomes of an alert whose rule is no more: it is over, or was never told of."""
    if alert.state is AlertState.PENDING:
        return Move(alert, None)
    over = replace(alert.standing, state=AlertState.RESOLVED, seen_us=now_us)
    return Move(alert, _move(alert, over, None, now_us))


def tell(move: Move) -> AlertChange | None:
    """Return what people are told of a move, None where it is no news to them."""
    alert = move.after
    if alert is None or not move.is_news or alert.state is AlertState.PENDING:
        return None
    fired_at_us = alert.fired_at_us or alert.began_at_us
    return AlertChange(
        alert_id=alert.id,
        project_id=alert.project_id,
        rule=alert.rule,
        condition=alert.condition,
        severity=alert.severity,
        state=alert.state,
        labels=alert.labels,
        value=alert.value,
        summary=alert.summary,
        team=alert.team,
        runbook=alert.runbook,
        starts_at_us=fired_at_us,
        at_us=max(fired_at_us, alert.resolved_at_us or fired_at_us),
    )


def begin_standing(now_us: int, for_us: int) -> Standing:
    """Return where a series is whose condition is seen to hold for the first time."""
    state = AlertState.PENDING if for_us else AlertState.FIRING
    return Standing(state=state, held_us=0, gone_us=None, seen_us=now_us)


def move_standing(
    before: Standing,
    *,
    is_held: bool,
    now_us: int,
    for_us: int,
    keep_us: int,
    vouched_us: int = VOUCHED_US,
) -> Standing | None:
    """Return where a series is now, given whether its condition holds; None if it never fired.

    It fires once its condition was seen to hold for ``for_us``, and is over once it was seen not to
    for ``keep_us``. What is over stays so: a condition that holds again begins anew.
    """
    passed_us = count_passed(before.seen_us, now_us, vouched_us)
    if is_held:
        held_us = before.held_us + passed_us
        is_firing = before.state is AlertState.FIRING or held_us >= for_us
        state = AlertState.FIRING if is_firing else AlertState.PENDING
        return Standing(state=state, held_us=held_us, gone_us=None, seen_us=now_us)
    if before.state is AlertState.PENDING:
        return None
    gone_us = 0 if before.gone_us is None else before.gone_us + passed_us
    state = AlertState.RESOLVED if gone_us >= keep_us else AlertState.FIRING
    return replace(before, state=state, gone_us=gone_us, seen_us=now_us)


def count_passed(before_us: int, now_us: int, vouched_us: int) -> int:
    """Return how much of the time between two looks counts: none if the clock went back."""
    return min(max(now_us - before_us, 0), vouched_us)


def find_type(condition: Condition) -> MetricType:
    """Return what a condition watches over: cost before quality before all else."""
    names = {ref.name for ref in condition.metrics}
    if names & _COST or any("USD" in dict(METRICS[name].unit) for name in names):
        return MetricType.COST
    return MetricType.QUALITY if names & _QUALITY else MetricType.PERFORMANCE


def to_finite(value: float) -> float | None:
    """Return a value that can be written down; a quotient may be infinite, or no number."""
    return value if math.isfinite(value) else None


def check_rule(name: str, spec: RuleSpec) -> None:
    """Raise ``invalid_request`` for what a rule cannot say; its condition is checked elsewhere."""
    check_name(name)
    if BURN_NAME.search(name):
        raise PilotageError(
            "invalid_request",
            f"{name!r} is as the rules of objectives are called.",
            hint="Choose a name that does not end so.",
            param="name",
        )
    for field in ("team", "runbook", "summary"):
        _check_text(getattr(spec, field), field)
    if spec.team:
        check_name(spec.team, "team")
    if not 0 <= spec.keep_firing_us <= MOST_KEPT_US:
        raise PilotageError(
            "invalid_request", "An alert is kept firing for at most 24h.", param="keep_firing_for"
        )
    check_labels(spec.labels)


def check_labels(labels: dict[str, str]) -> None:
    """Raise ``invalid_request`` for labels that alerts cannot have."""
    if len(labels) > MOST_LABELS:
        raise PilotageError(
            "invalid_request", f"A rule has at most {MOST_LABELS} labels.", param="labels"
        )
    for label, value in labels.items():
        is_name = label.isascii() and label.isidentifier() and not label.startswith("__")
        if not is_name or label in RESERVED_LABELS:
            raise PilotageError(
                "invalid_request",
                f"{label[:40]!r} cannot be a label of a rule.",
                hint="Use letters, digits and '_'. Alerts have these anyway: "
                f"{', '.join(sorted(RESERVED_LABELS))}.",
                param="labels",
            )
        _check_text(value, "labels")


def _name(rule: AlertRule, labels: Labels) -> Labels:
    """Return the labels of an alert: those of the series and those that the rule adds."""
    return tuple(sorted((rule.labels | dict(labels)).items()))


def _begin(
    rule: AlertRule, labels: dict[str, str], value: float, now_us: int, for_us: int, alert_id: str
) -> Alert:
    standing = begin_standing(now_us, for_us)
    return Alert(
        id=alert_id,
        rev=1,
        project_id=rule.project_id,
        rule_id=rule.id,
        rule=rule.name,
        condition=rule.condition,
        severity=rule.severity,
        team=rule.team,
        runbook=rule.runbook,
        summary=rule.summary or f"{rule.name}: {rule.condition}",
        labels=labels,
        value=to_finite(value),
        standing=standing,
        began_at_us=now_us,
        fired_at_us=now_us if standing.state is AlertState.FIRING else None,
    )


def _move(
    alert: Alert, standing: Standing | None, value: float | None, now_us: int
) -> Alert | None:
    """Return an alert that stands where it does now; its revision rises when its state changes."""
    if standing is None:
        return None
    moved = replace(
        alert, standing=standing, value=alert.value if value is None else to_finite(value)
    )
    if standing.state is alert.state:
        return moved
    if standing.state is AlertState.FIRING:
        return replace(moved, rev=alert.rev + 1, fired_at_us=now_us)
    return replace(moved, rev=alert.rev + 1, resolved_at_us=now_us)


def _check_text(text: str, param: str) -> None:
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise PilotageError(
            "invalid_request",
            f"{param}: this is not one line of at most {LONGEST_TEXT} letters.",
            param=param,
        )
