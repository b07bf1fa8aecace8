"""The end of a chain, for tests of the steps before it: models that do what a script says."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.transport.connection import UpstreamFailure
from pilotage.kit.clock import ManualClock

HANG = "hang"


class Act(NamedTuple):
    """What a model does when it is asked: raise, hang, or answer with its arm's id.

    ``is_sent`` and ``status`` are how far the attempt gets before that; ``takes_s`` how long.
    """

    raises: PilotageError | UpstreamFailure | str | None = None
    is_sent: bool = True
    status: int = 0
    takes_s: float = 0.0
    chunks: int = 0
    usage: Usage | None = None


def refuse(status: int, code: str, retry_after_s: float | None = None) -> Act:
    """Return what answers with an error status."""
    return Act(PilotageError(code, retry_after_s=retry_after_s), status=status)


ANSWER = Act(status=200)
DEAD = Act(UpstreamFailure("connect", sent=False), is_sent=False)
RESET = Act(UpstreamFailure("reset_before_headers", sent=True))
SILENT = Act(UpstreamFailure("stall", sent=True))
CUT = Act(PilotageError("upstream_cut"), status=200)
BROKEN = refuse(500, "upstream_error")
BUSY = refuse(429, "upstream_overloaded", 1.0)
RESTING = refuse(429, "upstream_overloaded", 7.0)
USED_UP = refuse(429, "upstream_quota")
WRONG = refuse(400, "invalid_request")
TOO_LONG = refuse(400, "context_length_exceeded")


class Script:
    """Acts in turn for each arm, the last one for ever; what was asked, opened and closed."""

    def __init__(self, clock: ManualClock | None = None, **acts: Sequence[Act] | Act) -> None:
        self.clock = clock or ManualClock()
        self.asked: list[str] = []
        self.open = 0
        self._acts = {
            arm: [each] if isinstance(each, Act) else list(each) for arm, each in acts.items()
        }

    async def __call__(self, call: Call) -> Reply:
        """Ask the call's arm."""
        assert call.arm is not None
        acts = self._acts[call.arm.id]
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        self.asked.append(call.arm.id)
        self.open += 1
        call.at_end(self._close)
        call.attempts += 1
        if act.is_sent:
            call.note_sent()
        call.status, call.chunks, call.usage = act.status, act.chunks, act.usage
        self.clock.advance(act.takes_s)
        if act.raises == HANG:
            await asyncio.Event().wait()
        elif isinstance(act.raises, str):
            raise RuntimeError(act.raises)
        elif act.raises is not None:
            raise act.raises
        return Reply(body=call.arm.id.encode())

    def _close(self) -> None:
        self.open -= 1


def widen_up_to(times: int) -> tuple[Callable[[int, int], bool], list[tuple[int, int]]]:
    """Return a ``Call.widen`` that agrees so many times, and the list of what it was asked for."""
    asked: list[tuple[int, int]] = []

    def widen(nano: int, tokens: int) -> bool:
        asked.append((nano, tokens))
        return len(asked) <= times

    return widen, asked
