"""What a message looks like on each kind of channel. Pure: no I/O, no clock.

The webhook's body is that of Alertmanager's webhook receiver (version 4), so that programs that
take its notices take these. Slack's is Block Kit (blocks of at most 3,000 letters), PagerDuty's an
event of its Events API v2, a mail is plain text.
"""

import hashlib
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from pilotage.kit.clock import rfc3339, to_datetime
from pilotage.monitoring.alerts.types import AlertChange, AlertState, Severity
from pilotage.monitoring.notify.rules import list_labels
from pilotage.monitoring.notify.types import Message, Notice, RouteKind

NOT_OVER = "0001-01-01T00:00:00Z"  # how Alertmanager writes the end of what has none
_SLACK_ALERTS = 20
_MAIL_PRIORITY = {RouteKind.PAGE: "1", RouteKind.TICKET: "3", RouteKind.FINANCE: "3"}
_RANK = {severity: rank for rank, severity in enumerate(Severity)}


def make_title(message: Message) -> str:
    """Return a line that says how many alerts fire or are over, and which."""
    if message.is_test:
        return "[TEST] A test of this channel"
    names = list(dict.fromkeys(alert.rule for alert in message.alerts))
    which = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    common = _join(_common(message, "team", "alias", "tenant"))
    count, what = len(message.ended) + message.more_ended, "RESOLVED"
    if message.is_firing:
        count, what = len(message.firing) + message.more_firing, "FIRING"
    again = " (still)" if message.is_repeat else ""
    return _one_line(f"[{what}:{count}]{again} {which}{f' ({common})' if common else ''}", 200)


def make_text(message: Message) -> str:
    """Return a message as plain text, a paragraph for each alert."""
    parts = [make_title(message)]
    parts += ["\n".join(_describe(alert)) for alert in message.alerts]
    if message.more:
        parts.append(f"and {message.more} more alerts")
    return "\n\n".join(parts) + "\n"


def make_webhook(notice: Notice) -> dict[str, Any]:
    """Return the body of a webhook: Alertmanager's, and the notice's id and kind."""
    message = notice.message
    return {
        "version": "4",
        "id": notice.id,
        "kind": message.kind,
        "test": message.is_test,
        "repeat": message.is_repeat,
        "groupKey": f"{message.route or 'none'}:{_join(message.key)}",
        "groupId": message.group_id,
        "truncatedAlerts": message.more,
        "mutedAlerts": message.muted,
        "status": AlertState.FIRING if message.is_firing else AlertState.RESOLVED,
        "receiver": notice.channel,
        "groupLabels": _rename(message.key),
        "commonLabels": _rename(_find_common([list_labels(item) for item in message.alerts])),
        "commonAnnotations": _find_common([_annotate(item) for item in message.alerts]),
        "externalURL": "",
        "alerts": [_show(item) for item in message.alerts],
    }


def make_slack(message: Message) -> dict[str, Any]:
    """Return the body of a Slack webhook."""
    title = make_title(message)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150], "emoji": False}}
    ]
    blocks += [
        {"type": "section", "text": {"type": "mrkdwn", "text": _slack_section(alert)}}
        for alert in message.alerts[:_SLACK_ALERTS]
    ]
    left = len(message.alerts) - _SLACK_ALERTS + message.more
    if left > 0:
        elements = [{"type": "mrkdwn", "text": f"and {left} more alerts"}]
        blocks.append({"type": "context", "elements": elements})
    return {"text": _escape_slack(title), "blocks": blocks}


def make_pagerduty(notice: Notice, routing_key: str) -> dict[str, Any]:
    """Return a PagerDuty event: what is said of a group is one incident, by ``dedup_key``."""
    message = notice.message
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "trigger" if message.is_firing else "resolve",
        "dedup_key": message.group_id,
        "client": "Pilotage",
    }
    alerts = message.firing or message.alerts
    worst = max(alerts, key=lambda item: _RANK[item.severity])
    event["payload"] = {
        "summary": make_title(message)[:1024],
        "source": f"pilotage/{worst.project_id}",
        "severity": worst.severity,
        "timestamp": rfc3339(min(item.starts_at_us for item in alerts)),
        "component": worst.labels.get("alias", ""),
        "group": worst.team,
        "class": worst.rule,
        "custom_details": {
            "notice": notice.id,
            "kind": message.kind,
            "alerts": [_show(item) for item in message.alerts[:_SLACK_ALERTS]],
            "more": message.more + max(0, len(message.alerts) - _SLACK_ALERTS),
        },
    }
    books = dict.fromkeys(item.runbook for item in alerts if item.runbook.startswith("http"))
    event["links"] = [{"href": book, "text": "Runbook"} for book in books]
    return event


def make_mail(notice: Notice, sender: str, to: Sequence[str]) -> EmailMessage:
    """Return a mail; its Message-ID is the notice's, and those of a group are one thread."""
    message, host = notice.message, sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Subject"] = make_title(message)
    moment = to_datetime(notice.created_at_us)
    if moment is not None:
        mail["Date"] = format_datetime(moment)
    mail["Message-ID"] = f"<{notice.id}@{host}>"
    mail["References"] = f"<{message.group_id}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Priority"] = _MAIL_PRIORITY[message.kind]
    mail.set_content(make_text(message), cte="quoted-printable")
    return mail


def _describe(alert: AlertChange) -> Iterable[str]:
    """Yield lines about an alert."""
    yield f"{_state(alert)} {alert.rule} ({alert.severity})"
    if alert.summary:
        yield alert.summary
    if alert.condition:
        value = "" if alert.value is None else f" (now {alert.value:.6g})"
        yield f"condition: {alert.condition}{value}"
    if alert.labels:
        yield f"of: {_join(alert.labels)}"
    yield f"since: {rfc3339(alert.starts_at_us)}"
    if alert.state == AlertState.RESOLVED:
        yield f"until: {rfc3339(alert.at_us)}"
    if alert.team:
        yield f"team: {alert.team}"
    if alert.runbook:
        yield f"runbook: {alert.runbook}"


def _show(alert: AlertChange) -> dict[str, Any]:
    """Return an alert as Alertmanager shows it."""
    labels = _rename(list_labels(alert))
    is_over = alert.state == AlertState.RESOLVED
    return {
        "id": alert.alert_id,
        "status": alert.state,
        "labels": labels,
        "annotations": _annotate(alert),
        "startsAt": rfc3339(alert.starts_at_us),
        "endsAt": rfc3339(alert.at_us) if is_over else NOT_OVER,
        "generatorURL": "",
        "fingerprint": _fingerprint(labels),
    }


def _annotate(alert: AlertChange) -> dict[str, str]:
    """Return what is said of an alert besides its labels, as far as there is any."""
    said = {
        "summary": alert.summary,
        "runbook_url": alert.runbook,
        "condition": alert.condition,
        "value": "" if alert.value is None else repr(alert.value),
    }
    return {name: text for name, text in said.items() if text}


def _rename(labels: dict[str, str]) -> dict[str, str]:
    """Return labels with Alertmanager's name of the rule, and without those that are empty."""
    named = {"alertname" if name == "rule" else name: text for name, text in labels.items()}
    return {name: text for name, text in sorted(named.items()) if text}


def _find_common(items: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return what all have the same of."""
    first, *others = items
    return {
        name: text
        for name, text in first.items()
        if all(other.get(name) == text for other in others)
    }


def _common(message: Message, *names: str) -> dict[str, str]:
    common = _find_common([list_labels(item) for item in message.alerts])
    return {name: common[name] for name in names if common.get(name)}


def _fingerprint(labels: dict[str, str]) -> str:
    return hashlib.sha256(_join(labels).encode()).hexdigest()[:16]


def _join(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in sorted(labels.items()))


def _state(alert: AlertChange) -> str:
    return "RESOLVED" if alert.state == AlertState.RESOLVED else "FIRING"


def _slack_section(alert: AlertChange) -> str:
    first, *rest = map(_escape_slack, _describe(alert))
    return "\n".join([f"*{first}*", *rest])[:3000]


def _escape_slack(text: str) -> str:
    """Escape what Slack reads as markup of links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str, longest: int) -> str:
    return " ".join(text.split())[:longest]
