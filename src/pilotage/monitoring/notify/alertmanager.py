"""Alertmanager's configuration for the same alerts: who is told, when, and what keeps quiet.

Prometheus fires the exported rules with the labels that routes match here; only the rule's name is
called ``alertname`` there, and ``project`` says whose it is, where several share an Alertmanager.
See https://prometheus.io/docs/alerting/latest/configuration/.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.core.duration import format_duration
from pilotage.monitoring.notify.rules import EACH
from pilotage.monitoring.notify.spec_rules import is_reference, read_mail_server
from pilotage.monitoring.notify.types import (
    PACES,
    Channel,
    ChannelKind,
    ChannelSpec,
    Encryption,
    Inhibition,
    NoticeRoute,
    Pace,
    RouteKind,
)

SECRETS = "/etc/alertmanager/secrets"
NOBODY = "log"  # the receiver of alerts that no route takes
PROJECT = "project"
_TLS_PORT = 465  # the only one on which Alertmanager encrypts from the start


def make_config(
    project: str,
    channels: Sequence[Channel],
    routes: Sequence[NoticeRoute],
    inhibitions: Sequence[Inhibition],
) -> tuple[dict[str, Any], list[str]]:
    """Return a project's configuration, and notes on what has to be done or cannot be had there."""
    notes: list[str] = []
    by_name = {item.name: item.spec for item in channels}
    receivers = [{"name": NOBODY}]
    for route in routes:
        receiver: dict[str, Any] = {"name": f"route/{route.name}"}
        for name in route.spec.channels:
            if name in by_name:
                _add_channel(receiver, name, by_name[name], notes)
        receivers.append(receiver)
    config: dict[str, Any] = {
        "route": {
            "receiver": NOBODY,
            **_pace(PACES[RouteKind.TICKET]),
            "routes": [_route(project, item) for item in routes],
        },
        "receivers": receivers,
    }
    if inhibitions:
        config["inhibit_rules"] = [_inhibit(project, item) for item in inhibitions]
    return config, list(dict.fromkeys(notes))


def list_matchers(project: str, match: Mapping[str, str]) -> list[str]:
    """Return patterns by label as Alertmanager's matchers of a project's alerts."""
    given = (f"{_label(name)}{_matcher(pattern)}" for name, pattern in sorted(match.items()))
    return [f"{PROJECT}={_quote(project)}", *given]


def _matcher(pattern: str) -> str:
    if "*" not in pattern and "|" not in pattern:
        return f"={_quote(pattern)}"
    alternatives = (".*".join(map(re.escape, one.split("*"))) for one in pattern.split("|"))
    return f"=~{_quote('|'.join(alternatives))}"


def _quote(text: str) -> str:
    inside = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inside}"'


def _label(name: str) -> str:
    return "alertname" if name == "rule" else name


def _route(project: str, route: NoticeRoute) -> dict[str, Any]:
    spec = route.spec
    return {
        "receiver": f"route/{route.name}",
        "continue": True,  # alerts take every route that fits them
        "group_by": ["..."] if EACH in spec.group_by else [_label(name) for name in spec.group_by],
        **_pace(spec.pace),
        "matchers": list_matchers(project, spec.match),
    }


def _pace(pace: Pace) -> dict[str, str]:
    return {
        "group_wait": _span(pace.settle_us),
        "group_interval": _span(pace.interval_us),
        "repeat_interval": _span(pace.repeat_us),
    }


def _span(span_us: int) -> str:
    return format_duration(span_us) if span_us else "0s"


def _inhibit(project: str, inhibition: Inhibition) -> dict[str, Any]:
    spec = inhibition.spec
    return {
        "source_matchers": list_matchers(project, spec.source),
        "target_matchers": list_matchers(project, spec.target),
        "equal": [_label(name) for name in spec.equal],
    }


def _add_channel(receiver: dict[str, Any], name: str, spec: ChannelSpec, notes: list[str]) -> None:
    """Add a channel to a receiver."""
    if spec.kind == ChannelKind.LOG:
        notes.append(f"{name}: Alertmanager writes no alerts to its log.")
        return
    key, made = _MAKERS[spec.kind](name, spec, notes)
    if spec.ca_file:
        trust = {"tls_config": {"ca_file": spec.ca_file}}
        made |= trust if spec.kind == ChannelKind.EMAIL else {"http_config": trust}
    receiver.setdefault(key, []).append({"send_resolved": spec.tells_end, **made})


def _make_webhook(name: str, spec: ChannelSpec, notes: list[str]) -> tuple[str, dict[str, Any]]:
    notes.append(f"{name}: Alertmanager does not sign what it posts.")
    if is_reference(spec.url):
        notes.append(f"{name}: write its address, which is a secret here, in place of its url.")
        return "webhook_configs", {"url": f"https://{name}.invalid/"}
    return "webhook_configs", {"url": spec.url}


def _make_slack(name: str, spec: ChannelSpec, notes: list[str]) -> tuple[str, dict[str, Any]]:
    return "slack_configs", {"api_url_file": _file(name, spec.url, notes)}


def _make_pagerduty(name: str, spec: ChannelSpec, notes: list[str]) -> tuple[str, dict[str, Any]]:
    made = {"routing_key_file": _file(name, spec.secret, notes), "client": "Pilotage"}
    if not is_reference(spec.url):
        made["url"] = spec.url
    return "pagerduty_configs", made


def _make_mail(name: str, spec: ChannelSpec, notes: list[str]) -> tuple[str, dict[str, Any]]:
    host, port = read_mail_server(spec)
    is_starttls = spec.encryption == Encryption.STARTTLS
    if spec.encryption == Encryption.TLS and port != _TLS_PORT:
        is_starttls = True  # rather no mail than one in the clear
        notes.append(
            f"{name}: Alertmanager encrypts from the start on port {_TLS_PORT} alone, and by "
            f"STARTTLS on port {port}."
        )
    made: dict[str, Any] = {
        "to": ", ".join(spec.to),
        "from": spec.sender,
        "smarthost": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "require_tls": is_starttls,
    }
    if spec.username:
        made["auth_username"] = spec.username
        made["auth_password_file"] = _file(name, spec.secret, notes)
    return "email_configs", made


def _file(name: str, reference: str, notes: list[str]) -> str:
    """Return the file in which Alertmanager finds a secret."""
    kind, _, path = reference.partition(":")
    if kind == "file":
        return path
    where = f"{SECRETS}/{name}"
    notes.append(f"{name}: put what {reference} holds into {where}.")
    return where


_MAKERS = {
    ChannelKind.WEBHOOK: _make_webhook,
    ChannelKind.SLACK: _make_slack,
    ChannelKind.PAGERDUTY: _make_pagerduty,
    ChannelKind.EMAIL: _make_mail,
}
