"""The tables of alert rules, objectives and alerts, and all SQL on them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.alerts.types import (
    Alert,
    AlertRule,
    AlertState,
    Indicator,
    MetricType,
    Severity,
    Slo,
    Standing,
)

ALERT_RULE = sa.Table(
    "alert_rule",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("condition", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("metric_type", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("keep_firing_us", sa.BigInteger, nullable=False),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
SLO = sa.Table(
    "slo",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("objective", sa.Text, nullable=False),
    sa.Column("indicator", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("threshold_us", sa.BigInteger, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("min_bad", sa.BigInteger, nullable=False),
    sa.Column("min_total", sa.BigInteger, nullable=False),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
ALERT = sa.Table(
    "alert",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("rule_id", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("condition", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("held_us", sa.BigInteger, nullable=False),
    sa.Column("gone_us", sa.BigInteger),
    sa.Column("seen_us", sa.BigInteger, nullable=False),
    sa.Column("began_at_us", sa.BigInteger, nullable=False),
    sa.Column("fired_at_us", sa.BigInteger),
    sa.Column("resolved_at_us", sa.BigInteger),
    sa.Column("series", sa.Text, nullable=False, unique=True),  # of what lives; of the past, its id
    sa.Index("ix_alert_project_id_state", "project_id", "state", "id"),
    sa.Index("ix_alert_state", "state", "id"),
    sa.Index("ix_alert_resolved_at_us", "resolved_at_us"),
)
Named = TypeVar("Named", AlertRule, Slo)
_LIVING = (AlertState.PENDING, AlertState.FIRING)

# rules and objectives


async def insert_rule(tx: Tx, rule: AlertRule) -> None:
    """Add a rule."""
    await tx.insert(ALERT_RULE, **_plain(rule))


async def find_rule(tx: Tx, name_or_id: str) -> AlertRule | None:
    """Return a rule by name or id, a deleted one only by its id."""
    row = await _find_named(tx, ALERT_RULE, name_or_id)
    return _rule(row) if row else None


async def list_rules(tx: Tx, after: str, limit: int) -> Sequence[AlertRule]:
    """Return living rules by name."""
    return [_rule(row) for row in await _list_named(tx, ALERT_RULE, after, limit)]


async def count_rules(tx: Tx) -> int:
    """Return how many living rules there are, without those of objectives."""
    return await _count_named(tx, ALERT_RULE)


async def change_rule(tx: Tx, rule: AlertRule, **changed: object) -> bool:
    """Change a rule; False if it has changed meanwhile."""
    return await _change_named(tx, ALERT_RULE, rule, changed)


async def insert_slo(tx: Tx, slo: Slo) -> None:
    """Add an objective."""
    await tx.insert(SLO, **_plain(slo))


async def find_slo(tx: Tx, name_or_id: str) -> Slo | None:
    """Return an objective by name or id, a deleted one only by its id."""
    row = await _find_named(tx, SLO, name_or_id)
    return _slo(row) if row else None


async def list_slos(tx: Tx, after: str, limit: int) -> Sequence[Slo]:
    """Return living objectives by name."""
    return [_slo(row) for row in await _list_named(tx, SLO, after, limit)]


async def count_slos(tx: Tx) -> int:
    """Return how many living objectives there are."""
    return await _count_named(tx, SLO)


async def change_slo(tx: Tx, slo: Slo, **changed: object) -> bool:
    """Change an objective; False if it has changed meanwhile."""
    return await _change_named(tx, SLO, slo, changed)


# alerts


async def insert_alert(tx: Tx, alert: Alert) -> None:
    """Add an alert; its series may have no other living one."""
    await tx.insert(ALERT, id=alert.id, project_id=alert.project_id, **_columns(alert))


async def change_alert(tx: Tx, alert: Alert) -> bool:
    """Write an alert whose ``rev`` was raised by one; False if it has changed meanwhile."""
    guarded = tx.update(ALERT).where(ALERT.c.id == alert.id, ALERT.c.rev == alert.rev - 1)
    return await tx.change(guarded.values(**_columns(alert))) == 1


async def delete_alert(tx: Tx, alert: Alert) -> bool:
    """Forget an alert that never fired; False if it has changed meanwhile."""
    guarded = tx.delete(ALERT).where(ALERT.c.id == alert.id, ALERT.c.rev == alert.rev)
    return await tx.change(guarded) == 1


async def find_alert(tx: Tx, alert_id: str) -> Alert | None:
    """Return an alert."""
    row = await tx.find(tx.select(ALERT).where(ALERT.c.id == alert_id))
    return _alert(row) if row else None


async def list_living(tx: Tx) -> Sequence[Alert]:
    """Return every alert that is pending or fires."""
    living = tx.select(ALERT).where(ALERT.c.state.in_(_LIVING)).order_by(ALERT.c.id)
    return [_alert(row) for row in await tx.all(living)]


async def list_alerts(
    tx: Tx, states: Sequence[AlertState], rule: str, before: str, limit: int
) -> Sequence[Alert]:
    """Return alerts in some states, of one rule unless it is "", the newest first."""
    found = tx.select(ALERT).where(ALERT.c.state.in_(states))
    if rule:
        found = found.where(ALERT.c.rule == rule)
    if before:
        found = found.where(ALERT.c.id < before)
    rows = await tx.all(found.order_by(ALERT.c.id.desc()).limit(limit))
    return [_alert(row) for row in rows]


async def delete_past(tx: Tx, before_us: int) -> int:
    """Forget alerts that were over before a time; return how many."""
    past = tx.delete(ALERT).where(ALERT.c.resolved_at_us < before_us)
    return await tx.change(past)


async def delete_surplus(tx: Tx, most: int) -> int:
    """Forget the oldest of each project's alerts that are over, beyond so many; return how many."""
    columns = ALERT.c
    is_over = columns.state == AlertState.RESOLVED
    counted = tx.select(ALERT, columns.project_id).where(is_over).group_by(columns.project_id)
    gone = 0
    for row in await tx.all(counted.having(sa.func.count() > most)):
        of_project = columns.project_id == row["project_id"]
        newest = tx.select(ALERT, columns.id).where(of_project, is_over).order_by(columns.id.desc())
        last = await tx.find(newest.offset(most).limit(1))
        if last is not None:
            gone += await tx.change(
                tx.delete(ALERT).where(of_project, is_over, columns.id <= last["id"])
            )
    return gone


async def _find_named(tx: Tx, table: sa.Table, name_or_id: str) -> Row | None:
    named = (table.c.name == name_or_id) | (table.c.id == name_or_id)
    return await tx.find(tx.select(table).where(named))


async def _list_named(tx: Tx, table: sa.Table, after: str, limit: int) -> Sequence[Row]:
    living = tx.select(table).where(table.c.deleted_at_us.is_(None), table.c.name > after)
    return await tx.all(living.order_by(table.c.name, table.c.id).limit(limit))


async def _count_named(tx: Tx, table: sa.Table) -> int:
    count = sa.func.count().label("count")
    row = await tx.find(tx.select(table, count).where(table.c.deleted_at_us.is_(None)))
    return int(row["count"]) if row else 0


async def _change_named(tx: Tx, table: sa.Table, item: Named, changed: dict[str, Any]) -> bool:
    guarded = tx.update(table).where(
        table.c.id == item.id, table.c.rev == item.rev, table.c.deleted_at_us.is_(None)
    )
    if "labels" in changed:
        changed["labels"] = write_labels(changed["labels"])
    return await tx.change(guarded.values(rev=item.rev + 1, **changed)) == 1


def write_labels(labels: dict[str, str]) -> str:
    """Return the one text of labels."""
    return msgspec.json.encode(labels, order="sorted").decode()


def name_series(rule_id: str, labels: dict[str, str]) -> str:
    """Return what only one living alert may have: a rule and its labels."""
    return f"{rule_id} {write_labels(labels)}"


def _plain(item: AlertRule | Slo) -> dict[str, Any]:
    found = {name: getattr(item, name) for name in item.__dataclass_fields__}
    if "labels" in found:
        found["labels"] = write_labels(found["labels"])
    return found


def _columns(alert: Alert) -> dict[str, Any]:
    standing = alert.standing
    is_over = standing.state is AlertState.RESOLVED
    same = ("rev", "rule_id", "rule", "condition", "severity", "team", "runbook", "summary")
    times = ("value", "began_at_us", "fired_at_us", "resolved_at_us")
    return {
        **{name: getattr(alert, name) for name in (*same, *times)},
        **{name: getattr(standing, name) for name in ("state", "held_us", "gone_us", "seen_us")},
        "labels": write_labels(alert.labels),
        "series": alert.id if is_over else name_series(alert.rule_id, alert.labels),
    }


def _rule(row: Row) -> AlertRule:
    words = {
        "severity": Severity(row["severity"]),
        "metric_type": MetricType(row["metric_type"]),
        "labels": msgspec.json.decode(row["labels"]),
    }
    return AlertRule(**dict(row) | words)


def _slo(row: Row) -> Slo:
    return Slo(**dict(row) | {"indicator": Indicator(row["indicator"])})


def _alert(row: Row) -> Alert:
    found = dict(row)
    del found["series"]
    standing = Standing(
        state=AlertState(found.pop("state")),
        held_us=found.pop("held_us"),
        gone_us=found.pop("gone_us"),
        seen_us=found.pop("seen_us"),
    )
    labels = msgspec.json.decode(found.pop("labels"))
    severity = Severity(found.pop("severity"))
    return Alert(standing=standing, labels=labels, severity=severity, **found)
