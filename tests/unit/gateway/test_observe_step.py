"""The outermost step: a call's place in a trace before it, and who is told after it."""

from collections.abc import Callable, Sequence

import pytest

from made_calls import make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.steps.observe import Observe
from pilotage.gateway.telemetry.spans import Tracer
from pilotage.kit.clock import ManualClock

TRACE, PARENT = "1" * 32, "2" * 16
SENT = f"00-{TRACE}-{PARENT}-00"


async def run(
    call: Call, tracer: Tracer | None, notes: Sequence[Callable[[Call], None]] = ()
) -> str:
    """Run a call through the step; return the trace parent that whoever comes after it saw."""
    seen: list[str] = []

    async def follow(call: Call) -> Reply:
        seen.append(call.trace_parent)
        return Reply(body=b"{}")

    step = Observe(follow, ManualClock(), tracer, notes)
    async with call:
        await step(call)
    return seen[0]


def make_traced(header: str) -> Call:
    call = make_call(make_alias(make_arm()))
    call.trace_parent = header
    return call


@pytest.mark.parametrize(
    ("header", "trace_id", "sent"),
    [(SENT, TRACE, SENT), ("", "", ""), ("00-short-01", "", ""), (f"{SENT}-x", "", "")],
)
async def test_without_a_tracer_only_a_valid_trace_is_passed_on(
    header: str, trace_id: str, sent: str
) -> None:
    call = make_traced(header)
    assert await run(call, None) == sent
    assert call.trace_id == trace_id


async def test_with_a_tracer_whoever_comes_after_is_below_the_calls_span() -> None:
    tracer = Tracer(ManualClock(), share=1.0, slow_s=10.0)
    call = make_traced(f"00-{TRACE}-{PARENT}-01")
    sent = await run(call, tracer)
    (span,) = tracer.take(9)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert sent == f"00-{TRACE}-{span.span_id}-01"
    assert call.trace_id == TRACE


@pytest.mark.parametrize("code", ["", "rate_limited", "upstream_error"])
async def test_all_are_told_of_a_call_once_when_everything_else_has_ended(code: str) -> None:
    told: list[tuple[str, Outcome]] = []
    call = make_traced("")
    notes: list[Callable[[Call], None]] = [
        lambda call: told.append(("first", call.outcome)),
        lambda call: told.append(("second", call.outcome)),
    ]

    async def follow(call: Call) -> Reply:
        call.at_end(lambda: told.append(("inside", call.outcome)))
        if code:
            raise PilotageError(code)
        return Reply(body=b"{}")

    async with call:
        await Observe(follow, ManualClock(), None, notes)(call)
    assert [who for who, _ in told] == ["inside", "first", "second"]
    assert {outcome for _, outcome in told} == {call.outcome}


async def test_a_note_that_fails_changes_nothing_for_the_call() -> None:
    def fail(call: Call) -> None:
        raise ZeroDivisionError(call.id)

    call = make_traced("")
    await run(call, None, [fail])
    assert (call.outcome, call.error) == (Outcome.OK, None)
