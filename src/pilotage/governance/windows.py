"""When a freeze holds, and for what. Pure: time zones are given in."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from pilotage.core.errors import PilotageError
from pilotage.governance.types import Freeze, FreezeSpec, Repeat, Window

LONGEST_US = 366 * 86_400_000_000
_WEEK = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def check_freeze(spec: FreezeSpec) -> FreezeSpec:
    """Return a freeze; raise ``invalid_request`` for one that cannot be."""
    length = spec.ends_at_us - spec.starts_at_us
    if not 0 < length <= LONGEST_US:
        raise PilotageError(
            "invalid_request",
            "A freeze ends after it begins, and within a year.",
            param="ends_at",
        )
    is_weekly = spec.repeat is Repeat.WEEKLY
    if is_weekly and length > _WEEK // _MICROSECOND:
        raise PilotageError(
            "invalid_request", "A weekly freeze lasts a week at most.", param="ends_at"
        )
    if spec.until_us is not None and (not is_weekly or spec.until_us <= spec.starts_at_us):
        raise PilotageError(
            "invalid_request",
            "Only a weekly freeze has an end of its repetitions, after its beginning.",
            param="until",
        )
    return spec


def is_for(freeze: FreezeSpec, subject: str) -> bool:
    """Say whether a freeze holds for an endpoint, a model or a version (``MODEL@VERSION``)."""
    model = subject.partition("@")[0]
    return not freeze.names or subject in freeze.names or model in freeze.names


def find_window(freeze: Freeze, zone: tzinfo, at_us: int) -> Window | None:
    """Return the occurrence of a freeze that a moment lies in: from its start to before its end."""
    for window in list_windows(freeze, zone, at_us, at_us + 1):
        return window
    return None


def list_windows(freeze: Freeze, zone: tzinfo, from_us: int, to_us: int) -> Iterator[Window]:
    """Yield the occurrences of a freeze that touch a span, in order.

    The first is exactly as it was set. A weekly one begins and ends at the same local times each
    week, whatever the clocks do: at a time that comes twice, or not at all, it holds for longer.
    """
    if freeze.lifted_at_us is not None:
        return
    number = _first_week(freeze, from_us)
    while True:
        window = Window(
            freeze=freeze,
            starts_at_us=min(_list_moments(freeze.starts_at_us, zone, number)),
            ends_at_us=max(_list_moments(freeze.ends_at_us, zone, number)),
        )
        is_over = freeze.until_us is not None and window.starts_at_us >= freeze.until_us
        if window.starts_at_us >= to_us or is_over:
            return
        if window.ends_at_us > from_us:
            yield window
        if freeze.repeat is Repeat.NEVER:
            return
        number += 1


def _first_week(freeze: Freeze, from_us: int) -> int:
    """Return a repetition that is not behind the first one that can touch the span."""
    if freeze.repeat is Repeat.NEVER:
        return 0
    weeks = (from_us - freeze.ends_at_us) // (_WEEK // _MICROSECOND)
    return max(0, weeks - 1)


def _list_moments(at_us: int, zone: tzinfo, weeks: int) -> list[int]:
    """Return when it is the same local time some weeks later: two moments where clocks change."""
    if weeks == 0:
        return [at_us]
    local = (_EPOCH + at_us * _MICROSECOND).astimezone(zone) + weeks * _WEEK
    moments = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    return [(moment - _EPOCH) // _MICROSECOND for moment in moments]
