"""Calendar windows: the day or month that a call counts in, by the calendar of its tenant."""

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TOTAL = "total"
_GRACE = timedelta(days=2)  # beyond every time zone and every call that ends after its window
_FOREVER_US = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Window(NamedTuple):
    """A span of time [start, end) by its name: ``2026-11-21``, ``2026-11``, ``total``."""

    name: str
    start_us: int
    end_us: int

    @property
    def shown_end_us(self) -> int:
        """Its end as people are told, 0 if it has none."""
        return 0 if self.end_us == _FOREVER_US else self.end_us

    @property
    def forget_at_us(self) -> int:
        """When it is over in every zone and for every call that began in it, 0 for never."""
        return forget_at_us(self.name)


ENDLESS = Window(TOTAL, -_FOREVER_US, _FOREVER_US)
RATE = Window("minute", -_FOREVER_US, _FOREVER_US)  # of a bucket, which refills all the time
NOW = Window("now", -_FOREVER_US, _FOREVER_US)  # of what counts only while it lasts


class Calendar:
    """Finds windows; the one last found is kept for each zone, so that most calls look once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Window] = {}

    def find(self, per: str, zone: str, now_us: int) -> Window:
        """Return the window of ``per`` (minute, day, month, total) that a time is in."""
        window = self._found.get((per, zone))
        if window is None or not window.start_us <= now_us < window.end_us:
            window = self._found[per, zone] = find_window(per, zone, now_us)
        return window


def find_window(per: str, zone: str, now_us: int) -> Window:
    """Work a window out. A zone that is not known counts as UTC."""
    if per == TOTAL:
        return ENDLESS
    where = _find_zone(zone)
    moment = (_EPOCH + timedelta(microseconds=now_us)).astimezone(where)
    if per == "minute":
        start_us = now_us - now_us % 60_000_000
        name = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"
        return Window(name, start_us, start_us + 60_000_000)
    first = moment.date() if per == "day" else moment.date().replace(day=1)
    after = first + timedelta(days=1 if per == "day" else 32)
    after = after if per == "day" else after.replace(day=1)
    name = f"{first:%Y-%m-%d}" if per == "day" else f"{first:%Y-%m}"
    return Window(name, _midnight_us(first, where), _midnight_us(after, where))


def forget_at_us(name: str) -> int:
    """Return when a window of this name is over in every zone and for every call, 0 for never."""
    if not name[:1].isdigit():
        return 0
    parts = [int(part) for part in name[:10].split("-")]
    if len(parts) == 2:
        last = date(parts[0] + parts[1] // 12, parts[1] % 12 + 1, 1)
    else:
        last = date(*parts) + timedelta(days=1)
    return _midnight_us(last + _GRACE, UTC)


def _midnight_us(day: date, where: tzinfo) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=where)
    return round(midnight.timestamp()) * 1_000_000


def _find_zone(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")
