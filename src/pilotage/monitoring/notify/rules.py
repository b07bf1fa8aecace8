"""What is decided about notices: whom an alert concerns, when a group is told, when to try again.

The order is Alertmanager's: route, group, inhibit, silence, settle, tell, repeat. Two things differ
on purpose: that an alert is over is told to whoever was told of it, silenced or not; and a notice
that cannot be delivered is tried for a day and then kept.

Times that were written down may be in the future: the clock was ahead and has been set right. What
has to wait for a span from such a time waits no longer than twice the span.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pilotage.monitoring.alerts.types import AlertChange, AlertState, Severity
from pilotage.monitoring.notify.types import (
    DAY_US,
    SECOND_US,
    Arrival,
    Configured,
    Group,
    Inhibition,
    InhibitionSpec,
    Message,
    NoticeRoute,
    Pace,
    RouteKind,
    RouteSpec,
    Silence,
)

EACH = "*"  # in group_by: every alert is told alone
MOST_TOLD = 100  # alerts in one message
GIVE_UP_US = DAY_US
FIRST_PAUSE_US = 2 * SECOND_US
LONGEST_PAUSE_US = 300 * SECOND_US
LONGEST_WAIT_US = 3600 * SECOND_US  # nobody who is told may ask for more
MOST_REFUSALS = 3  # of what a notice says, before those behind it may pass it
NO_ROUTE = RouteSpec(kind=RouteKind.TICKET, group_by=(EACH,), settle_us=0, interval_us=0)
_RANK = {severity: rank for rank, severity in enumerate(Severity)}


def fits(match: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Say whether labels fit: each named one, absent ones being "", fits its pattern."""
    return all(
        any(_is_like(labels.get(name, ""), one) for one in pattern.split("|"))
        for name, pattern in match.items()
    )


def _is_like(text: str, pattern: str) -> bool:
    """Say whether a text is like a pattern, in which ``*`` stands for anything."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in others[:-1]:  # the leftmost place of each leaves the most for the others
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(others[-1]) and text.endswith(others[-1])


def list_labels(alert: AlertChange) -> dict[str, str]:
    """Return what an alert is matched and grouped by; its own fields win over its labels."""
    return alert.labels | {
        "rule": alert.rule,
        "team": alert.team,
        "severity": alert.severity.value,
    }


def is_newer(known: AlertChange | None, change: AlertChange) -> bool:
    """Say whether a change tells anything of an alert that is not known; what is over stays so."""
    if change.state == AlertState.PENDING:
        return False
    return known is None or (
        known.state == AlertState.FIRING and (change.state, change.at_us) != _moment(known)
    )


def _moment(alert: AlertChange) -> tuple[AlertState, int]:
    return alert.state, alert.at_us


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All of a project that telling depends on."""

    alerts: Sequence[AlertChange]
    routes: Sequence[NoticeRoute]
    inhibitions: Sequence[Inhibition]
    silences: Sequence[Silence]
    groups: Sequence[Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStep:
    """What becomes of a group: told (``message``), kept for later, or closed.

    ``before`` is None for a new one, ``after`` None for one that is over.
    """

    before: Group | None
    after: Group | None
    route: NoticeRoute | None
    message: Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now: the groups that change, and the alerts nobody needs any more."""

    steps: tuple[GroupStep, ...]
    over: tuple[str, ...]


def plan_notices(world: World, now_us: int) -> Plan:
    """Decide what to tell now. New groups have the id "" until they get one."""
    muted = find_muted(world, now_us)
    gathered = _gather(world)
    known = {(group.route_id, _freeze(group.key)): group for group in world.groups}
    steps: list[GroupStep] = []
    for place, (route, alerts) in gathered.items():
        before = known.pop(place, None)
        seen = _Gathering(route=route, key=dict(place[1]), alerts=alerts, before=before)
        step = _step(seen, muted, now_us)
        if step is not None:
            steps.append(step)
    steps += [GroupStep(before=left, after=None, route=None) for left in known.values()]
    return Plan(steps=tuple(steps), over=_find_over(world, steps))


def find_muted(world: World, now_us: int) -> frozenset[str]:
    """Return the ids of the alerts that fire and shall not be told: silenced or inhibited."""
    firing = {
        item.alert_id: list_labels(item) for item in world.alerts if item.state == AlertState.FIRING
    }
    silences = [item for item in world.silences if item.is_on(now_us)]
    silenced = {
        alert_id
        for alert_id, labels in firing.items()
        if any(fits(item.match, labels) for item in silences)
    }
    return frozenset(silenced.union(*(_inhibit(item.spec, firing) for item in world.inhibitions)))


def _inhibit(rule: InhibitionSpec, firing: Mapping[str, dict[str, str]]) -> set[str]:
    """Return the ids of the alerts that others of those that fire inhibit.

    Two that fit both sides would inhibit each other, and nobody would hear of either: what fits
    both is inhibited by what fits the source alone.
    """
    any_source: set[tuple[str, ...]] = set()
    mere_source: set[tuple[str, ...]] = set()
    targets: list[tuple[str, tuple[str, ...], bool]] = []
    for alert_id, labels in firing.items():
        same = tuple(labels.get(name, "") for name in rule.equal)
        is_source, is_target = fits(rule.source, labels), fits(rule.target, labels)
        if is_source:
            any_source.add(same)
        if is_source and not is_target:
            mere_source.add(same)
        if is_target:
            targets.append((alert_id, same, is_source))
    return {
        alert_id
        for alert_id, same, is_both in targets
        if same in (mere_source if is_both else any_source)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathering:
    route: NoticeRoute
    key: dict[str, str]
    alerts: Sequence[AlertChange]
    before: Group | None


_Key = tuple[tuple[str, str], ...]
_Place = tuple[str, _Key]


def _gather(world: World) -> dict[_Place, tuple[NoticeRoute, list[AlertChange]]]:
    """Put alerts into the groups of all routes that take them, or into that of no route."""
    found: dict[_Place, tuple[NoticeRoute, list[AlertChange]]] = {}
    for alert in world.alerts:
        labels = list_labels(alert)
        taking = [route for route in world.routes if fits(route.spec.match, labels)]
        for route in taking or [_no_route(alert.project_id)]:
            place = (route.id, _freeze(make_key(route.spec, alert)))
            found.setdefault(place, (route, []))[1].append(alert)
    return found


def make_key(spec: RouteSpec, alert: AlertChange) -> dict[str, str]:
    """Return what an alert has in common with the others of its group in a route."""
    labels = list_labels(alert)
    if EACH in spec.group_by:
        return labels | {"alert": alert.alert_id}
    return {name: labels.get(name, "") for name in spec.group_by}


def _no_route(project_id: str) -> NoticeRoute:
    """Return the route of alerts that no route takes."""
    return Configured(id="", rev=0, project_id=project_id, name="", created_at_us=0, spec=NO_ROUTE)


def _freeze(key: Mapping[str, str]) -> _Key:
    return tuple(sorted(key.items()))


def _step(seen: _Gathering, muted: Collection[str], now_us: int) -> GroupStep | None:
    """Decide about one group; None if nothing of it changes."""
    firing = [
        item
        for item in seen.alerts
        if item.state == AlertState.FIRING and item.alert_id not in muted
    ]
    pace, before = seen.route.spec.pace, seen.before
    if before is None:
        if not firing:
            return None
        before = Group(
            id="",
            rev=0,
            project_id=seen.route.project_id,
            route_id=seen.route.id,
            key=seen.key,
            opened_at_us=now_us,
        )
    told, named = frozenset(before.told), frozenset(before.named)
    ended = [
        item for item in seen.alerts if item.state == AlertState.RESOLVED and item.alert_id in told
    ]
    has_news = bool(ended) or any(item.alert_id not in named for item in firing)
    if not has_news and not firing:
        return _close_if_over(seen, told)
    if not is_due(before, pace, now_us, has_news=has_news):
        return None if seen.before else GroupStep(before=None, after=before, route=seen.route)
    return _tell(seen, before, firing, ended, now_us)


def _close_if_over(seen: _Gathering, told: Collection[str]) -> GroupStep | None:
    """Close a group of which nothing fires that was told; what is muted and told keeps it open."""
    firing = {item.alert_id for item in seen.alerts if item.state == AlertState.FIRING}
    if seen.before is None or firing & set(told):
        return None
    return GroupStep(before=seen.before, after=None, route=seen.route)


def is_due(group: Group, pace: Pace, now_us: int, *, has_news: bool) -> bool:
    """Say whether a group is to be told now: settled, then at intervals, then repeated."""
    if group.told_at_us is None:
        return _has_passed(group.opened_at_us, pace.settle_us, now_us)
    return _has_passed(group.told_at_us, pace.interval_us if has_news else pace.repeat_us, now_us)


def _has_passed(since_us: int, span_us: int, now_us: int) -> bool:
    return abs(now_us - since_us) >= span_us


def _tell(
    seen: _Gathering,
    before: Group,
    firing: Sequence[AlertChange],
    ended: Sequence[AlertChange],
    now_us: int,
) -> GroupStep:
    """Tell a group: what is new before what was named already, as much as a message holds."""
    named = frozenset(before.named)
    ordered = sorted(firing, key=_order)
    new = [item for item in ordered if item.alert_id not in named]
    known = [item for item in ordered if item.alert_id in named]
    shown = _choose(new, ended, known)
    shown_ids = {item.alert_id for item in shown}
    fires = {item.alert_id for item in firing}
    on = {item.alert_id for item in seen.alerts if item.state == AlertState.FIRING}
    left = {item.alert_id for item in ended} - shown_ids  # that these are over is told next time
    told = (shown_ids & fires) | (on & frozenset(before.told)) | left
    after = Group(
        id=before.id,
        rev=before.rev + 1,
        project_id=before.project_id,
        route_id=before.route_id,
        key=before.key,
        opened_at_us=before.opened_at_us,
        told_at_us=now_us,
        told=tuple(sorted(told)),
        named=tuple(sorted(fires & (named | shown_ids))),
    )
    return GroupStep(
        before=seen.before,
        after=after if told else None,
        route=seen.route,
        message=Message(
            group_id=before.id,
            route=seen.route.name,
            kind=seen.route.spec.kind,
            key=seen.key,
            alerts=shown,
            more_firing=len(fires - shown_ids),
            more_ended=len(left),
            muted=len(told - fires - left),
            is_repeat=not new and not ended,
        ),
    )


def _choose(
    new: Sequence[AlertChange], ended: Sequence[AlertChange], known: Sequence[AlertChange]
) -> tuple[AlertChange, ...]:
    """Return what a message lists, in its order: of what fires, always some."""
    half = MOST_TOLD // 2
    chosen = [*new[:half], *ended, *new[half:], *known][:MOST_TOLD]
    return tuple(sorted(chosen, key=_order))


def _order(alert: AlertChange) -> tuple[AlertState, int, int, str, str]:
    worst = -_RANK[alert.severity]
    return alert.state, worst, alert.starts_at_us, alert.rule, alert.alert_id


def merge_messages(waiting: Message, news: Message) -> Message:
    """Return what is to be said of a group instead of two messages of which none was sent.

    That is the newer, and the ends that the older was to tell; the alerts that began first are
    those whose beginning was told before.
    """
    known = {item.alert_id for item in news.alerts}
    also = (item for item in waiting.ended if item.alert_id not in known)
    ended = sorted([*news.ended, *also], key=lambda item: item.starts_at_us)
    shown = _choose(news.firing, ended, ())
    fires = sum(item.state == AlertState.FIRING for item in shown)
    return replace(
        news,
        alerts=shown,
        more_firing=news.more_firing + len(news.firing) - fires,
        more_ended=news.more_ended + len(ended) - (len(shown) - fires),
        is_repeat=False,
    )


def say_absent(arrival: Arrival) -> str:
    """Say who does not have a notice that was sent, "" if all have it."""
    parts = {"put off": arrival.later, "refused": arrival.never}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def choose_rank(message: Message) -> int:
    """Return how urgent a message is: 0 for what somebody has to hear now."""
    is_critical = any(item.severity == Severity.CRITICAL for item in message.alerts)
    return 0 if message.kind == RouteKind.PAGE or is_critical else 1


def _find_over(world: World, steps: Iterable[GroupStep]) -> tuple[str, ...]:
    """Return the ids of alerts that are over and that nobody is still to be told of."""
    after = {group.id: group for group in world.groups}
    for step in steps:
        if step.before is not None:
            after.pop(step.before.id)
            if step.after is not None:
                after[step.before.id] = step.after
    awaited = {alert_id for group in after.values() for alert_id in group.told}
    return tuple(
        item.alert_id
        for item in world.alerts
        if item.state == AlertState.RESOLVED and item.alert_id not in awaited
    )


def choose_pause_us(notice_id: str, attempts: int) -> int:
    """Return how long to wait after so many failed attempts: 2 s doubling to 5 min, and jitter.

    Between half of it and all of it, decided by the notice's id: whoever failed together does not
    come again together.
    """
    longest = min(LONGEST_PAUSE_US, FIRST_PAUSE_US << min(attempts - 1, 16))
    spread = hashlib.sha256(f"{notice_id} {attempts}".encode()).digest()
    return longest // 2 + int.from_bytes(spread[:4], "big") * (longest // 2) // 0xFFFFFFFF


def choose_wait_us(
    notice_id: str, attempts: int, tried_us: int, asked_us: int | None
) -> int | None:
    """Return how long to wait after a failed attempt, None to give up.

    ``tried_us`` is how long it was waited so far, ``asked_us`` how long the other side asks for.
    """
    if tried_us >= GIVE_UP_US:
        return None
    return max(choose_pause_us(notice_id, attempts), min(asked_us or 0, LONGEST_WAIT_US))
