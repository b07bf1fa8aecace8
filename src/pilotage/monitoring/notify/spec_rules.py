"""What channels, routes, inhibitions and silences can be: each checked, in one written form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from pilotage.core.addresses import (
    NOTICE_PREFIX,
    check_base_url,
    check_ca_file,
    check_notice_secret,
)
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.monitoring.alerts.types import Severity
from pilotage.monitoring.notify.rules import EACH, fits
from pilotage.monitoring.notify.types import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    ChannelKind,
    ChannelSpec,
    Encryption,
    InhibitionSpec,
    RouteSpec,
)

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
SMTP_PORTS = {Encryption.STARTTLS: 587, Encryption.TLS: 465, Encryption.NONE: 25}
LONGEST_SILENCE_US = 90 * DAY_US
_MOST = 50
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9a-fA-F:.]+")
_USERNAME = re.compile(r"[\x21-\x7e]{1,256}")
_OF_KIND: Mapping[ChannelKind, tuple[str, ...]] = {  # what can be said of a channel
    ChannelKind.LOG: (),
    ChannelKind.WEBHOOK: ("url", "secret", "ca_file"),
    ChannelKind.SLACK: ("url", "ca_file"),
    ChannelKind.PAGERDUTY: ("url", "secret", "ca_file"),
    ChannelKind.EMAIL: ("url", "secret", "ca_file", "encryption", "username", "sender", "to"),
}
_ALL = _OF_KIND[ChannelKind.EMAIL]
_EMPTY = ChannelSpec(kind=ChannelKind.LOG)


def check_channel(spec: ChannelSpec) -> ChannelSpec:
    """Return a channel in its one written form; raise ``invalid_request`` for what is none."""
    for name in _ALL:
        if name not in _OF_KIND[spec.kind] and getattr(spec, name) != getattr(_EMPTY, name):
            raise _refuse(name, f"A channel of kind {spec.kind} has none.", "Leave it out.")
    check_notice_secret(spec.secret)
    check_ca_file(spec.ca_file)
    if spec.kind == ChannelKind.EMAIL:
        return _check_mail(spec)
    if spec.kind == ChannelKind.SLACK:
        return replace(spec, url=_check_slack(spec.url))
    if spec.kind == ChannelKind.LOG:
        return spec
    url = spec.url
    if spec.kind == ChannelKind.PAGERDUTY:
        url = url or PAGERDUTY_URL
    if is_reference(url):
        check_notice_secret(url, "url")
    else:
        url = check_address(url, carries_secret=spec.kind == ChannelKind.PAGERDUTY)
    if not spec.secret:
        what = "signed with" if spec.kind == ChannelKind.WEBHOOK else "routed by"
        raise _refuse(
            "secret",
            f"It is missing: notices are {what} it.",
            f"Name a variable or a file that holds it: env:{NOTICE_PREFIX}NAME or file:/PATH.",
        )
    return replace(spec, url=url)


def check_address(url: str, *, carries_secret: bool) -> str:
    """Return an http(s) address; plain http with a secret goes to this machine only."""
    try:
        address = check_base_url(url)
    except PilotageError as wrong:
        raise PilotageError(
            wrong.code,
            wrong.detail.replace("base_url", "url"),
            hint="Write https://HOST/PATH; for one that holds a secret: env:NAME or file:/PATH.",
            param="url",
        ) from None
    parts = urlsplit(address)
    if not _is_host(parts.hostname or ""):
        raise _refuse("url", "Its host ends in a number and is no address.", "Write 10.1.2.3.")
    if carries_secret and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise _refuse("url", "A secret goes there, and would go unencrypted.", "Write https://.")
    return address


def is_reference(text: str) -> bool:
    """Say whether a text names a place rather than being what is there."""
    return text.startswith(("env:", "file:"))


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its spelling alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(host: str) -> bool:
    """Say whether a host can be resolved by its spelling: what ends in a number is an address."""
    try:
        ip_address(host)
    except ValueError:
        return not host.rstrip(".").rpartition(".")[2].isdigit()
    return True


def read_mail_server(spec: ChannelSpec) -> tuple[str, int]:
    """Return host and port of ``smtp://HOST:PORT``; raise ``invalid_request``."""
    parts = _split(spec.url)
    host = (parts.hostname or "") if parts else ""
    if parts is None or parts.scheme != "smtp" or not (_HOST.fullmatch(host) and _is_host(host)):
        raise _refuse("url", "That is no mail server.", "Write smtp://HOST or smtp://HOST:PORT.")
    if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise _refuse(
            "url",
            "A mail server is a host and a port.",
            "Say who signs in with username, and name the password with secret.",
        )
    return host, parts.port or SMTP_PORTS[spec.encryption]


def check_route(spec: RouteSpec) -> RouteSpec:
    """Return a route in its one written form; raise ``invalid_request`` for what is none."""
    check_match(spec.match, "match", may_be_empty=True)
    for name in _check_list(spec.channels, "channels", "A route leads to at least one channel."):
        check_name(name, "channels")
    grouped = _check_list(spec.group_by, "group_by", f"Name a label, or {EACH}: each alert alone.")
    if EACH in grouped and len(grouped) > 1:
        raise _refuse("group_by", f"{EACH} stands alone: each alert is told by itself.", "")
    for label in grouped:
        if label != EACH:
            _check_label(label, "group_by")
    pace = spec.pace
    _check_span("settle", pace.settle_us, 0, HOUR_US)
    _check_span("interval", pace.interval_us, SECOND_US, DAY_US)
    _check_span("repeat", pace.repeat_us, max(MINUTE_US, pace.interval_us), 30 * DAY_US)
    return spec


def check_inhibition(spec: InhibitionSpec) -> InhibitionSpec:
    """Return an inhibition; raise ``invalid_request`` for what is none."""
    check_match(spec.source, "source")
    check_match(spec.target, "target")
    for label in spec.equal:
        _check_label(label, "equal")
    if spec.source == spec.target:
        raise _refuse("target", "No alert would ever be inhibited: it fits what the source fits.")
    return spec


def check_match(match: Mapping[str, str], param: str, *, may_be_empty: bool = False) -> None:
    """Raise ``invalid_request`` unless these are patterns by label."""
    if not match and not may_be_empty:
        raise _refuse(param, "It would fit every alert.", "Name a label, such as team or alias.")
    if len(match) > _MOST:
        raise _refuse(param, f"There are more than {_MOST} labels.")
    for label, pattern in match.items():
        _check_label(label, param)
        if len(pattern) > 500 or not pattern.isprintable() or (pattern and not pattern.strip()):
            raise _refuse(
                param, f"That is no pattern of {label}.", "Write a text, with * for anything."
            )
    _check_severity(match.get("severity"), param)


def check_span_of_silence(starts_at_us: int, ends_at_us: int, now_us: int) -> None:
    """Raise ``invalid_request`` for a silence that is over before it begins, or never."""
    if ends_at_us <= max(starts_at_us, now_us):
        raise _refuse("ends_at", "It would be over before it begins.", "Name a later time.")
    if ends_at_us - max(starts_at_us, now_us) > LONGEST_SILENCE_US:
        raise _refuse(
            "ends_at",
            "A silence lasts 90 days at most.",
            "Change or disable the rule of an alert that nobody wants.",
        )


def _check_mail(spec: ChannelSpec) -> ChannelSpec:
    host, _ = read_mail_server(spec)
    if not _MAILBOX.fullmatch(spec.sender):
        raise _refuse("sender", "That is no mail address.", "Write one, such as pilotage@HOST.")
    for address in _check_list(spec.to, "to", "A mail has at least one recipient."):
        if not _MAILBOX.fullmatch(address):
            raise _refuse("to", f"{address[:80]!r} is no mail address.", "Write one: name@HOST.")
    if bool(spec.username) != bool(spec.secret):
        raise _refuse("username", "Who signs in has a name and a password.", "Give both or none.")
    if spec.username and not _USERNAME.fullmatch(spec.username):
        raise _refuse("username", "That is no name to sign in with.")
    if spec.username and spec.encryption == Encryption.NONE and not is_loopback(host):
        raise _refuse(
            "encryption", "The password would go unencrypted.", "Use starttls or tls, or no name."
        )
    return spec


def _check_slack(url: str) -> str:
    if not is_reference(url):
        raise _refuse(
            "url",
            "The address of a Slack webhook is a secret: it is not kept here.",
            "Put it into a variable or a file and name that: "
            f"env:{NOTICE_PREFIX}SLACK or file:/PATH.",
        )
    return check_notice_secret(url, "url")


def _check_severity(pattern: str | None, param: str) -> None:
    if pattern is None:
        return
    for one in pattern.split("|"):
        if not any(fits({"severity": one}, {"severity": item.value}) for item in Severity):
            raise _refuse(
                param,
                f"No alert has the severity {one[:40]!r}.",
                f"Write one of {', '.join(Severity)}; several as error|critical.",
            )


def _check_list(items: Sequence[str], param: str, if_none: str) -> Sequence[str]:
    if not items:
        raise _refuse(param, if_none)
    if len(items) > _MOST or len(set(items)) != len(items):
        raise _refuse(param, f"Name up to {_MOST}, each once.")
    return items


def _check_label(name: str, param: str) -> None:
    if not _LABEL.fullmatch(name):
        raise _refuse(
            param,
            f"{name[:40]!r} is no label.",
            "Write one such as rule, team, severity, alias, tenant.",
        )


def _check_span(param: str, span_us: int, least_us: int, most_us: int) -> None:
    if not least_us <= span_us <= most_us:
        least, most = least_us // SECOND_US, most_us // SECOND_US
        raise _refuse(param, f"It is {least} to {most} seconds.")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_there = parts.port is None or parts.port > 0
    except ValueError:
        return None
    return parts if is_there and len(url) <= 300 and url.isascii() and url.isprintable() else None


def _refuse(param: str, problem: str, hint: str = "") -> PilotageError:
    return PilotageError("invalid_request", f"{param}: {problem}", hint=hint, param=param)
