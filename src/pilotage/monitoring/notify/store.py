"""The tables of notices, and all SQL on them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.alerts.types import AlertChange
from pilotage.monitoring.notify.types import (
    Group,
    Message,
    Notice,
    NoticeState,
    SettingKind,
    Silence,
)

NOTICE_SETTING = sa.Table(
    "notice_setting",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "kind", "name"),
)
NOTICE_SILENCE = sa.Table(
    "notice_silence",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("match", sa.Text, nullable=False),
    sa.Column("starts_at_us", sa.BigInteger, nullable=False),
    sa.Column("ends_at_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Index("ix_notice_silence_project_id_ends_at_us", "project_id", "ends_at_us"),
)
NOTICE_ALERT = sa.Table(  # what was taken and is still to be told, or fires
    "notice_alert",
    METADATA,
    sa.Column("alert_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False, index=True),
    sa.Column("change", sa.Text, nullable=False),
)
NOTICE_GROUP = sa.Table(
    "notice_group",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False, index=True),
    sa.Column("route_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("opened_at_us", sa.BigInteger, nullable=False),
    sa.Column("told_at_us", sa.BigInteger),
    sa.Column("told", sa.Text, nullable=False),
    sa.Column("named", sa.Text, nullable=False),
)
NOTICE = sa.Table(
    "notice",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("channel_id", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("group_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("remaining", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("tried_us", sa.BigInteger, nullable=False),
    sa.Column("may_pass", sa.Boolean, nullable=False),
    sa.Column("message", sa.Text, nullable=False),  # last: SQLite reads what is before without it
    sa.Index("ix_notice_state_channel_id_group_id", "state", "channel_id", "group_id"),
    sa.Index("ix_notice_channel_id_group_id_place", "channel_id", "group_id", "place"),
    sa.Index("ix_notice_project_id_channel_state", "project_id", "channel", "state"),
    sa.Index("ix_notice_project_id_id", "project_id", "id"),
    sa.Index("ix_notice_ended_at_us", "ended_at_us"),
)


# what is configured


async def insert_setting(tx: Tx, kind: SettingKind, values: dict[str, Any], spec: object) -> None:
    """Add a configured object; ``values`` are its columns but for kind and specification."""
    await tx.insert(NOTICE_SETTING, kind=kind, spec=_encode(spec), **values)


async def find_setting(tx: Tx, kind: SettingKind, name_or_id: str) -> Row | None:
    """Return a configured object by name or id, deleted ones too."""
    columns = NOTICE_SETTING.c
    named = (columns.name == name_or_id) | (columns.id == name_or_id)
    return await tx.find(tx.select(NOTICE_SETTING).where(columns.kind == kind, named))


async def find_setting_by_id(
    tx: Tx, kind: SettingKind, setting_id: str, project_id: str
) -> Row | None:
    """Return a project's configured object by its id alone, deleted ones too."""
    columns = NOTICE_SETTING.c
    same = columns.kind == kind, columns.id == setting_id, columns.project_id == project_id
    return await tx.find(tx.select(NOTICE_SETTING).where(*same))


async def list_settings(tx: Tx, kind: SettingKind, after: str, limit: int) -> Sequence[Row]:
    """Return living configured objects by name."""
    columns = NOTICE_SETTING.c
    living = tx.select(NOTICE_SETTING).where(
        columns.kind == kind, columns.deleted_at_us.is_(None), columns.name > after
    )
    return await tx.all(living.order_by(columns.name).limit(limit))


async def change_setting(
    tx: Tx, setting_id: str, rev: int, spec: object = None, **values: object
) -> bool:
    """Change a configured object; False if it has changed meanwhile."""
    columns = NOTICE_SETTING.c
    if spec is not None:
        values["spec"] = _encode(spec)
    guarded = tx.update(NOTICE_SETTING).where(columns.id == setting_id, columns.rev == rev)
    return await tx.change(guarded.values(rev=rev + 1, **values)) == 1


# silences


async def insert_silence(tx: Tx, silence: Silence) -> None:
    """Add a silence."""
    await tx.insert(NOTICE_SILENCE, **_values(silence, "match"))


async def find_silence(tx: Tx, silence_id: str) -> Silence | None:
    """Return a silence, over or not."""
    row = await tx.find(tx.select(NOTICE_SILENCE).where(NOTICE_SILENCE.c.id == silence_id))
    return _silence(row) if row else None


async def list_silences(
    tx: Tx, after: str, limit: int, *, ending_after_us: int = 0
) -> Sequence[Silence]:
    """Return silences by id, which is by time; those that end after a time."""
    columns = NOTICE_SILENCE.c
    later = tx.select(NOTICE_SILENCE).where(
        columns.ends_at_us > ending_after_us, columns.id > after
    )
    return [_silence(row) for row in await tx.all(later.order_by(columns.id).limit(limit))]


async def end_silence(tx: Tx, silence: Silence, at_us: int) -> bool:
    """Let a silence end at a time; False if it has changed meanwhile."""
    columns = NOTICE_SILENCE.c
    guarded = tx.update(NOTICE_SILENCE).where(columns.id == silence.id, columns.rev == silence.rev)
    return await tx.change(guarded.values(rev=silence.rev + 1, ends_at_us=at_us)) == 1


# alerts and groups of them


async def find_alert(tx: Tx, alert_id: str) -> AlertChange | None:
    """Return what was last taken of an alert."""
    row = await tx.find(tx.select(NOTICE_ALERT).where(NOTICE_ALERT.c.alert_id == alert_id))
    return _alert(row) if row else None


async def put_alert(tx: Tx, change: AlertChange, *, is_new: bool) -> None:
    """Keep what is last known of an alert."""
    values = {"project_id": change.project_id, "change": _encode(change)}
    if is_new:
        await tx.insert(NOTICE_ALERT, alert_id=change.alert_id, **values)
    else:
        same = NOTICE_ALERT.c.alert_id == change.alert_id
        await tx.change(tx.update(NOTICE_ALERT).where(same).values(**values))


async def list_alerts(tx: Tx) -> Sequence[AlertChange]:
    """Return the alerts that fire or are still to be told, by id."""
    rows = await tx.all(tx.select(NOTICE_ALERT).order_by(NOTICE_ALERT.c.alert_id))
    return [_alert(row) for row in rows]


async def drop_alerts(tx: Tx, alerts: Sequence[AlertChange]) -> None:
    """Forget alerts, unless more was taken of them meanwhile."""
    for alert in alerts:
        columns = NOTICE_ALERT.c
        same = columns.alert_id == alert.alert_id, columns.change == _encode(alert)
        await tx.change(tx.delete(NOTICE_ALERT).where(*same))


async def list_busy_projects(tx: Tx) -> Sequence[str]:
    """Return the projects with alerts or groups."""
    found = set()
    for table in (NOTICE_ALERT, NOTICE_GROUP):
        rows = await tx.all(tx.select(table, table.c.project_id).distinct())
        found |= {row["project_id"] for row in rows}
    return sorted(found)


async def list_groups(tx: Tx) -> Sequence[Group]:
    """Return the groups that are open."""
    return [_group(row) for row in await tx.all(tx.select(NOTICE_GROUP))]


async def insert_group(tx: Tx, group: Group) -> None:
    """Open a group."""
    await tx.insert(NOTICE_GROUP, **_values(group, "key", "told", "named"))


async def change_group(tx: Tx, before: Group, after: Group) -> bool:
    """Change a group; False if it has changed meanwhile."""
    columns = NOTICE_GROUP.c
    guarded = tx.update(NOTICE_GROUP).where(columns.id == before.id, columns.rev == before.rev)
    return await tx.change(guarded.values(**_values(after, "key", "told", "named"))) == 1


async def drop_group(tx: Tx, group: Group) -> bool:
    """Close a group; False if it has changed meanwhile."""
    columns = NOTICE_GROUP.c
    guarded = tx.delete(NOTICE_GROUP).where(columns.id == group.id, columns.rev == group.rev)
    return await tx.change(guarded) == 1


# notices


async def insert_notice(tx: Tx, notice: Notice) -> None:
    """Add a notice to those that wait."""
    await tx.insert(NOTICE, **_values(notice, "message", "remaining"))


async def find_notice(tx: Tx, notice_id: str) -> Notice | None:
    """Return a notice."""
    row = await tx.find(tx.select(NOTICE).where(NOTICE.c.id == notice_id))
    return _notice(row) if row else None


async def list_notices(
    tx: Tx, after: str, limit: int, *, state: NoticeState | None, channel: str
) -> Sequence[Notice]:
    """Return notices by id, which is by time."""
    columns = NOTICE.c
    statement = tx.select(NOTICE).where(columns.id > after)
    if state is not None:
        statement = statement.where(columns.state == state)
    if channel:
        statement = statement.where(columns.channel == channel)
    return [_notice(row) for row in await tx.all(statement.order_by(columns.id).limit(limit))]


async def list_waiting_channels(tx: Tx) -> Sequence[str]:
    """Return the ids of the channels for which a notice waits."""
    waiting = tx.select(NOTICE, NOTICE.c.channel_id).where(NOTICE.c.state == NoticeState.WAITING)
    return sorted(row["channel_id"] for row in await tx.all(waiting.distinct()))


async def find_next(tx: Tx, channel_id: str, latest_us: int) -> Notice | None:
    """Return what is to be tried next on a channel: the most urgent that is due.

    Of each group only what comes before all that may not be passed. A time after ``latest_us`` was
    written by a clock that was ahead, and is due.
    """
    columns = NOTICE.c
    waiting = columns.state == NoticeState.WAITING, columns.channel_id == channel_id
    heads = (
        tx.select(NOTICE, columns.group_id, sa.func.min(columns.place).label("place"))
        .where(*waiting, columns.may_pass.is_(sa.false()))
        .group_by(columns.group_id)
        .subquery()
    )
    is_due = (columns.due_at_us <= tx.now_us) | (columns.due_at_us > latest_us)
    is_first = heads.c.place.is_(None) | (columns.place <= heads.c.place)
    found = (  # its id alone: others may have long messages
        tx.select(NOTICE, columns.id)
        .outerjoin(heads, heads.c.group_id == columns.group_id)
        .where(*waiting, is_due, is_first)
        .order_by(columns.rank, columns.created_at_us, columns.place, columns.id)
        .limit(1)
    )
    row = await tx.find(found)
    return await find_notice(tx, row["id"]) if row else None


async def list_last(tx: Tx, channel_id: str, group_id: str) -> Sequence[Notice]:
    """Return the last notice of a group on a channel and the one before, last first."""
    columns = NOTICE.c
    same = tx.select(NOTICE).where(columns.channel_id == channel_id, columns.group_id == group_id)
    return [_notice(row) for row in await tx.all(same.order_by(columns.place.desc()).limit(2))]


async def change_notice(tx: Tx, notice: Notice, **values: object) -> bool:
    """Change what has become of a notice; False if it has changed meanwhile."""
    columns = NOTICE.c
    for name in values.keys() & {"remaining", "message"}:
        values[name] = _encode(values[name])
    guarded = tx.update(NOTICE).where(columns.id == notice.id, columns.rev == notice.rev)
    return await tx.change(guarded.values(rev=notice.rev + 1, **values)) == 1


async def postpone_channel(tx: Tx, channel_id: str, until_us: int) -> None:
    """Let nothing go to a channel before a time."""
    columns = NOTICE.c
    sooner = tx.update(NOTICE).where(
        columns.state == NoticeState.WAITING,
        columns.channel_id == channel_id,
        columns.due_at_us < until_us,
    )
    await tx.change(sooner.values(rev=columns.rev + 1, due_at_us=until_us))


async def end_passed(tx: Tx, notice: Notice) -> None:
    """End what waits of a notice's group before it: whoever has this needs none of that."""
    columns = NOTICE.c
    passed = tx.update(NOTICE).where(
        columns.state == NoticeState.WAITING,
        columns.channel_id == notice.channel_id,
        columns.group_id == notice.group_id,
        columns.place < notice.place,
    )
    values = {"state": NoticeState.FAILED, "ended_at_us": tx.now_us}
    await tx.change(passed.values(rev=columns.rev + 1, **values))


async def drop_notices(tx: Tx, before_us: int) -> int:
    """Forget the notices that ended before a time; return how many."""
    return await tx.change(tx.delete(NOTICE).where(NOTICE.c.ended_at_us < before_us))


async def give_up_beyond(tx: Tx, channel_id: str, most: int, problem: str) -> int:
    """Give the oldest up that wait for a channel, where there are more than so many."""
    columns = NOTICE.c
    waiting = columns.state == NoticeState.WAITING, columns.channel_id == channel_id
    newest = tx.select(NOTICE, columns.id).where(*waiting).order_by(columns.id.desc())
    last = await tx.find(newest.offset(most).limit(1))
    if last is None:
        return 0
    values = {"state": NoticeState.FAILED, "ended_at_us": tx.now_us, "problem": problem}
    older = tx.update(NOTICE).where(*waiting, columns.id <= last["id"])
    return await tx.change(older.values(rev=columns.rev + 1, **values))


async def drop_beyond(tx: Tx, project_id: str, most: int) -> int:
    """Forget the oldest that ended of a project, where there are more than so many."""
    columns = NOTICE.c
    ended = columns.project_id == project_id, columns.ended_at_us.is_not(None)
    newest = tx.select(NOTICE, columns.id).where(*ended).order_by(columns.id.desc())
    last = await tx.find(newest.offset(most).limit(1))
    if last is None:
        return 0
    return await tx.change(tx.delete(NOTICE).where(*ended, columns.id <= last["id"]))


async def count_notices(tx: Tx) -> dict[tuple[str, str, str], int]:
    """Return how many notices there are, by project, channel and state."""
    by = NOTICE.c.project_id, NOTICE.c.channel, NOTICE.c.state
    rows = await tx.all(tx.select(NOTICE, *by, sa.func.count().label("count")).group_by(*by))
    return {(row["project_id"], row["channel"], row["state"]): row["count"] for row in rows}


def _values(item: Silence | Group | Notice, *encoded: str) -> dict[str, Any]:
    """Return the columns of a row; some of them are JSON."""
    values = {name: getattr(item, name) for name in item.__dataclass_fields__}
    return values | {name: _encode(values[name]) for name in encoded}


def _silence(row: Row) -> Silence:
    return Silence(**dict(row) | {"match": msgspec.json.decode(row["match"])})


def _alert(row: Row) -> AlertChange:
    return msgspec.json.decode(row["change"], type=AlertChange)


def _group(row: Row) -> Group:
    lists = {name: tuple(msgspec.json.decode(row[name])) for name in ("told", "named")}
    return Group(**dict(row) | {"key": msgspec.json.decode(row["key"])} | lists)


def _notice(row: Row) -> Notice:
    return Notice(
        **dict(row)
        | {
            "message": msgspec.json.decode(row["message"], type=Message),
            "state": NoticeState(row["state"]),
            "remaining": tuple(msgspec.json.decode(row["remaining"])),
        }
    )


def _encode(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
