"""What a request for metrics asks for, read from its query."""

from typing import NamedTuple

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import parse_time
from pilotage.monitoring.rollups.rules import floor
from pilotage.monitoring.rollups.types import Dimension, Level

MOST_POINTS = 1_500
_LAST_HOUR = "1h"
_USUAL_POINTS = 60
_FILTERED = set(Dimension) - {Dimension.PROJECT}


class Window(NamedTuple):
    """From a whole minute to before a time."""

    since_us: int
    until_us: int


def read_window(window: str, since: str, until: str, now_us: int) -> Window:
    """Return the window of the last ``window`` before ``until``, or from ``since`` to then."""
    if window and since:
        raise PilotageError(
            "invalid_request",
            "A window is as long as window says, or begins at since.",
            hint="Leave one of them out.",
            param="window",
        )
    until_us = read_time(until, "until") if until else now_us
    if since:
        since_us = read_time(since, "since")
    else:
        since_us = max(0, until_us - _read_duration(window or _LAST_HOUR, "window"))
    if since_us >= until_us:
        raise PilotageError(
            "invalid_request",
            "The window ends before it begins.",
            hint="Give since a time before until.",
            param="since",
        )
    return Window(floor(since_us, Level.MINUTE), until_us)


def read_step(step: str, window: Window) -> int:
    """Return how long a step is; without one as long as makes about 60 of them."""
    length_us = window.until_us - window.since_us
    minute_us = Level.MINUTE.span_us
    if not step:
        usual_us = max(minute_us, floor(length_us // _USUAL_POINTS, Level.MINUTE))
        longer = [level.span_us for level in (Level.HOUR, Level.DAY) if usual_us >= level.span_us]
        return usual_us - usual_us % longer[-1] if longer else usual_us
    step_us = _read_duration(step, "step")
    if step_us < minute_us or step_us % minute_us:
        raise PilotageError(
            "invalid_request",
            f"step: {step[:40]!r} is no number of minutes.",
            hint="Write 1m, 5m, 1h or 1d.",
            param="step",
        )
    if length_us > step_us * MOST_POINTS:
        raise PilotageError(
            "invalid_request",
            f"That are more than {MOST_POINTS} steps.",
            hint="Ask for longer steps or a shorter window.",
            param="step",
        )
    return step_us


def read_groups(text: str) -> list[Dimension]:
    """Return the dimensions that are listed with commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return list(dict.fromkeys(map(Dimension, names)))
    except ValueError:
        known = ", ".join(Dimension)
        raise PilotageError(
            "invalid_request",
            f"by: calls are not told apart by {text[:80]!r}.",
            hint=f"There are: {known}.",
            param="by",
        ) from None


def read_filters(text: str) -> dict[Dimension, str]:
    """Return what ``alias=chat,arm=stable`` leaves to be seen."""
    filters: dict[Dimension, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if name not in _FILTERED or not equals or not value or not value.isprintable():
            raise PilotageError(
                "invalid_request",
                f"where: {part[:80]!r} leaves nothing out.",
                hint=f"Write NAME=VALUE with one of {', '.join(sorted(_FILTERED))}.",
                param="where",
            )
        filters[Dimension(name)] = value
    return filters


def read_time(text: str, param: str) -> int:
    """Return a time that a request names; raise ``invalid_request``."""
    try:
        at_us = parse_time(text)
    except ValueError:
        at_us = -1
    if at_us < 0:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a time.",
            hint="Write 2026-01-31 or 2026-01-31T12:00:00Z.",
            param=param,
        )
    return at_us


def _read_duration(text: str, param: str) -> int:
    try:
        length_us = parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{param}: {wrong}", param=param) from None
    return length_us
