"""Spans of calls that are worth a trace, waiting to be sent; bounded, and never a prompt."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.semconv import OPERATIONS, describe, describe_attempt, name_model
from pilotage.gateway.telemetry.trace import Context, Contexts
from pilotage.kit.clock import Clock

MAX_WAITING = 10_000
SERVER, CLIENT = 2, 3  # span kinds of OTLP
_QUIET = frozenset({Outcome.OK, Outcome.REFUSED, Outcome.CLIENT_GONE})


class Span(NamedTuple):
    """One span; times are microseconds UTC, ``error`` is an error's code, "" for none."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    began_us: int
    ended_us: int
    error: str
    attributes: dict[str, Any]


class _Asked(NamedTuple):
    arm_id: str
    began_s: float
    until_s: float
    code: str


class Tracer:
    """Decides which calls are traced, and keeps their spans until they are sent.

    Always those that failed or were slow, and those whose client traces; of the others a share.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        share: float,
        slow_s: float,
        has_room: Callable[[], bool] = lambda: True,
        contexts: Contexts | None = None,
    ) -> None:
        self.waiting: deque[Span] = deque()
        self.dropped = 0  # spans that found no room
        self._clock = clock
        self._share = share
        self._slow_s = slow_s
        self._has_room = has_room
        self._contexts = contexts or Contexts()

    def begin(self, call: Call) -> Context:
        """Give a call its place in its client's trace, or a trace of its own."""
        context = self._contexts.begin(call.trace_parent, self._share)
        call.trace_id = context.trace_id
        call.trace_parent = context.header
        return context

    def end(self, call: Call, context: Context) -> None:
        """Keep the spans of a call that has ended, if it is worth them."""
        ended_s = call.ended_s
        if not (
            context.is_sampled
            or call.outcome not in _QUIET
            or ended_s - call.started_s >= self._slow_s
        ):
            return
        asked = _list_asked(call, ended_s)
        if not self._has_room() or len(self.waiting) + len(asked) >= MAX_WAITING:
            self.dropped += 1 + len(asked)
            return
        offset_us = self._clock.now_us() - round(
            self._clock.monotonic_s() * 1e6
        )  # from monotonic time to the day's
        self.waiting.append(
            Span(
                context.trace_id,
                context.span_id,
                context.parent_id,
                f"{OPERATIONS.get(call.wire.name, call.wire.name)} {name_model(call)}",
                SERVER,
                offset_us + round(call.started_s * 1e6),
                offset_us + round(ended_s * 1e6),
                call.error.code if call.error else "",
                describe(call),
            )
        )
        self.waiting.extend(self._make_attempts(call, context, offset_us, asked))

    def take(self, most: int) -> list[Span]:
        """Take the oldest spans out; safe from the exporter's thread."""
        taken: list[Span] = []
        while len(taken) < most:
            try:
                taken.append(self.waiting.popleft())
            except IndexError:
                break
        return taken

    def _make_attempts(
        self, call: Call, context: Context, offset_us: int, asked: Sequence[_Asked]
    ) -> list[Span]:
        return [
            Span(
                context.trace_id,
                self._contexts.make_span_id(),
                context.span_id,
                f"attempt {number}",
                CLIENT,
                offset_us + round(began_s * 1e6),
                offset_us + round(until_s * 1e6),
                code,
                describe_attempt(call, arm_id, code),
            )
            for number, (arm_id, began_s, until_s, code) in enumerate(asked, 1)
        ]


def _list_asked(call: Call, ended_s: float) -> list[_Asked]:
    """Return the attempts of a call that has ended, the last one included."""
    asked = [_Asked(t.arm_id, t.began_s, t.began_s + t.duration_s, t.code) for t in call.tries]
    noted_s = asked[-1].until_s if asked else 0.0
    if call.arm is not None and call.asked_s > noted_s:  # the last one is no failed try
        code = call.error.code if call.error else ""
        asked.append(_Asked(call.arm.id, call.asked_s, ended_s, code))
    return asked
