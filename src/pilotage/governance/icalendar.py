"""The change calendar as iCalendar (RFC 5545), for the calendar programs people look at. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pilotage.governance.types import ReleaseState, ScheduledRelease, Window

_LONGEST_LINE = 75  # octets, without the line's end
_RELEASE_US = 15 * 60 * 1_000_000  # how long a planned change is shown to take
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = {ReleaseState.PLANNED: "CONFIRMED", ReleaseState.DONE: "CONFIRMED"}


def write_calendar(
    project: str, windows: Sequence[Window], releases: Sequence[ScheduledRelease], now_us: int
) -> str:
    """Return freezes and planned changes as one calendar; ``now_us`` is when it is written."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Pilotage//Change calendar//EN"]
    lines.append(f"X-WR-CALNAME:{_escape(f'Changes of {project}')}")
    for window in windows:
        lines += _write_window(window, now_us)
    for release in releases:
        lines += _write_release(release, now_us)
    lines.append("END:VCALENDAR")
    return "".join(f"{folded}\r\n" for line in lines for folded in _fold(line))


def _write_window(window: Window, now_us: int) -> list[str]:
    freeze = window.freeze
    of = ", ".join(freeze.names) or "everything"
    who = f"role {freeze.override_role}" if freeze.override_role else "nobody"
    return [
        "BEGIN:VEVENT",
        f"UID:{freeze.id}-{window.starts_at_us}@pilotage",
        f"DTSTAMP:{_time(now_us)}",
        f"DTSTART:{_time(window.starts_at_us)}",
        f"DTEND:{_time(window.ends_at_us)}",
        f"SUMMARY:{_escape(f'Freeze {freeze.name}: {of}')}",
        f"DESCRIPTION:{_escape(f'{freeze.reason} - may be overridden by {who}')}",
        "END:VEVENT",
    ]


def _write_release(release: ScheduledRelease, now_us: int) -> list[str]:
    said = f"{release.reason} - asked for by {release.requested_by}, {release.state}"
    return [
        "BEGIN:VEVENT",
        f"UID:{release.id}@pilotage",
        f"SEQUENCE:{release.rev}",
        f"DTSTAMP:{_time(now_us)}",
        f"DTSTART:{_time(release.at_us)}",
        f"DTEND:{_time(release.at_us + _RELEASE_US)}",
        f"SUMMARY:{_escape(f'{release.action} {release.subject}')}",
        f"DESCRIPTION:{_escape(f'{said}. {release.outcome}'.strip())}",
        f"STATUS:{_SHOWN.get(release.state, 'CANCELLED')}",
        "END:VEVENT",
    ]


def _time(at_us: int) -> str:
    return f"{_EPOCH + timedelta(microseconds=at_us):%Y%m%dT%H%M%SZ}"


def _escape(text: str) -> str:
    """Escape a text value: what would end the line, the value or the event."""
    for plain, escaped in (("\\", "\\\\"), (";", "\\;"), (",", "\\,")):
        text = text.replace(plain, escaped)
    lines = text.splitlines()
    return "\\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def _fold(line: str) -> Iterator[str]:
    """Yield the pieces of a line, none longer than allowed and none ending within a letter."""
    piece = ""
    for letter in line:
        if len(f"{piece}{letter}".encode()) > _LONGEST_LINE:
            yield piece
            piece = " "
        piece += letter
    yield piece
