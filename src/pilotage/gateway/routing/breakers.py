"""Breakers: targets that fail again and again are left alone for a while, then tried with one call.

Only live traffic counts; nothing is sent to find out. A target without a failure in its recent past
costs a call nothing and has no entry here.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.gateway")

CLOSED, OPEN, HALF_OPEN, HELD = "closed", "open", "half_open", "held"
FAILURES_IN_ROW = 5
WINDOW = 40  # calls that are looked back on
FAILURES_IN_WINDOW = 20
WINDOW_S = 30.0  # failures are forgotten after so long without another
FIRST_OPEN_S = 1.0
LONGEST_OPEN_S = 60.0
LONGEST_HOLD_S = 30.0
FORGET_S = 600.0  # without a call: the target is gone
MOST_TARGETS = 4096
_MASK = (1 << WINDOW) - 1


class TargetState(NamedTuple):
    """The state of a target that is in trouble: closed, open, half_open or held.

    ``failures`` counts those of its last calls; ``left_s`` is how long it will be left alone.
    """

    target: str
    state: str
    failures: int
    left_s: float


@dataclass(slots=True)
class _Health:
    touched_s: float
    state: str = CLOSED
    history: int = 0  # one bit for each of the last calls, 1 is a failure
    streak: int = 0
    failed_s: float = 0.0
    open_s: float = 0.0
    until_s: float = 0.0
    is_probing: bool = False


class Breakers:
    """The breakers of one process. ``troubled`` holds targets that failed lately, and no others."""

    def __init__(self, clock: Clock) -> None:
        self.troubled: dict[str, _Health] = {}
        self.opened_total = 0
        self._clock = clock

    def admit(self, target: str) -> bool:
        """Let a call to a target pass; True if it is the one that finds out how the target is.

        Raises ``breaker_open``, or ``upstream_overloaded`` while the target rests as it wished.
        """
        health = self.troubled.get(target)
        if health is None or health.state == CLOSED:
            return False
        now_s = self._clock.monotonic_s()
        health.touched_s = now_s
        left_s = health.until_s - now_s
        if health.state == HELD:
            if left_s > 0:
                raise PilotageError("upstream_overloaded", retry_after_s=left_s)
            self._change(target, health, CLOSED)
            return False
        if left_s > 0 or health.is_probing:
            raise PilotageError("breaker_open", retry_after_s=max(left_s, FIRST_OPEN_S))
        if health.state == OPEN:
            self._change(target, health, HALF_OPEN)
        health.is_probing = True
        return True

    def is_resting(self, target: str) -> bool:
        """Say whether a call to a target would be refused now."""
        health = self.troubled.get(target)
        return health is not None and (
            health.is_probing or health.until_s > self._clock.monotonic_s()
        )

    def succeed(self, target: str, *, is_probe: bool = False) -> None:
        """Take in that a target answered as it should."""
        health = self.troubled.get(target)
        if health is None:
            return
        if is_probe:
            health.is_probing = False
            self._change(target, health, CLOSED)
            del self.troubled[target]
        elif health.state == CLOSED:
            health.streak = 0
            health.history = health.history << 1 & _MASK
            if not health.history:
                del self.troubled[target]

    def fail(self, target: str, code: str, *, is_probe: bool = False) -> None:
        """Take in that a target failed; whoever was under way when it opened changes nothing."""
        now_s = self._clock.monotonic_s()
        health = self._find(target, now_s)
        if is_probe:
            health.is_probing = False
            self._open(target, health, now_s, code)
        elif health.state in (CLOSED, HELD):
            if now_s - health.failed_s > WINDOW_S:
                health.history = health.streak = 0
            health.failed_s = now_s
            health.streak += 1
            health.history = (health.history << 1 | 1) & _MASK
            if health.streak >= FAILURES_IN_ROW or health.history.bit_count() >= FAILURES_IN_WINDOW:
                self._open(target, health, now_s, code)

    def hold(self, target: str, seconds: float) -> None:
        """Leave a target alone for as long as it asked for, within reason."""
        now_s = self._clock.monotonic_s()
        health = self._find(target, now_s)
        if health.state in (CLOSED, HELD):
            health.until_s = max(health.until_s, now_s + min(seconds, LONGEST_HOLD_S))
            if health.state == CLOSED:
                self._change(target, health, HELD)

    def release(self, target: str) -> None:
        """Take back a probe that found nothing out."""
        health = self.troubled.get(target)
        if health is not None:
            health.is_probing = False

    def forget(self, target: str) -> None:
        """Take in that a target is gone; what comes by its name is another."""
        self.troubled.pop(target, None)

    def list_states(self) -> list[TargetState]:
        """Return every target that is in trouble, by name; for metrics."""
        now_s = self._clock.monotonic_s()
        self._forget(now_s)
        return [
            TargetState(
                target, health.state, health.history.bit_count(), max(health.until_s - now_s, 0.0)
            )
            for target, health in sorted(self.troubled.items())
        ]

    def _find(self, target: str, now_s: float) -> _Health:
        health = self.troubled.get(target)
        if health is None:
            self._forget(now_s)
            if len(self.troubled) >= MOST_TARGETS:
                del self.troubled[min(self.troubled, key=lambda t: self.troubled[t].touched_s)]
            health = self.troubled[target] = _Health(now_s, failed_s=now_s)
        health.touched_s = now_s
        return health

    def _forget(self, now_s: float) -> None:
        gone = [
            target
            for target, health in self.troubled.items()
            if now_s - health.touched_s > FORGET_S and not health.is_probing
        ]
        for target in gone:
            del self.troubled[target]

    def _open(self, target: str, health: _Health, now_s: float, code: str) -> None:
        health.open_s = min(health.open_s * 2 or FIRST_OPEN_S, LONGEST_OPEN_S)
        health.until_s = now_s + health.open_s
        self.opened_total += 1
        self._change(target, health, OPEN, f" for {health.open_s:g} s after {code}")

    def _change(self, target: str, health: _Health, state: str, why: str = "") -> None:
        level = logging.WARNING if state in (OPEN, HELD) else logging.INFO
        _LOG.log(level, "breaker of %s: %s, was %s%s", target, state, health.state, why)
        health.state = state
