"""The deadline step: what one attempt may take, of what the call has left."""

import asyncio

import pytest

from made_calls import BODY, make_alias, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import Routing
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.steps.deadline import GRACE_S, Deadline
from pilotage.kit.clock import ManualClock, SystemClock

STREAM = BODY[:-1] + b',"stream":true}'


async def answer(call: Call) -> Reply:
    return Reply()


async def hang(call: Call) -> Reply:
    call.note_sent()
    await asyncio.Event().wait()
    return Reply()


@pytest.mark.parametrize(
    ("own_ms", "left_s", "expected"),
    [
        (0, 100.0, 30.0),
        (0, 20.0, 20.0 + GRACE_S),
        (5_000, 100.0, 5.0),
        (50_000, 100.0, 50.0),
        (5_000, 4.0, 4.0 + GRACE_S),
    ],
)
async def test_an_attempt_gets_its_limit_or_what_is_left(
    own_ms: int, left_s: float, expected: float
) -> None:
    alias = make_alias(routing=Routing(first_byte_timeout_ms=own_ms))
    call = make_call(alias, deadline_s=left_s)
    await Deadline(answer, ManualClock(), 30.0)(call)
    assert call.first_byte_timeout_s == expected


async def test_without_time_nothing_is_begun() -> None:
    clock = ManualClock()
    clock.advance(2)
    call = make_call(make_alias(), deadline_s=1.5)
    with pytest.raises(PilotageError) as caught:
        await Deadline(hang, clock, 30.0)(call)
    assert caught.value.code == "deadline"
    assert not call.is_sent


async def test_a_stream_that_says_nothing_is_given_up() -> None:
    alias = make_alias(routing=Routing(first_byte_timeout_ms=50))
    clock = SystemClock()
    call = make_call(alias, body=STREAM, deadline_s=clock.monotonic_s() + 60)
    with pytest.raises(PilotageError) as caught:
        await Deadline(hang, clock, 30.0)(call)
    assert (caught.value.code, caught.value.detail) == (
        "upstream_stall",
        "The model said nothing for 0.05 s.",
    )
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # what is awaited later is not cancelled


async def test_a_stop_is_not_taken_for_the_limit() -> None:
    alias = make_alias(routing=Routing(first_byte_timeout_ms=60_000))
    clock = SystemClock()
    call = make_call(alias, body=STREAM, deadline_s=clock.monotonic_s() + 600)
    asyncio.get_running_loop().call_soon(call.stop, Outcome.CLIENT_GONE)
    async with call:
        await Deadline(hang, clock, 30.0)(call)
    assert call.outcome is Outcome.CLIENT_GONE


async def test_a_time_out_of_something_else_stays_one() -> None:
    async def time_out(call: Call) -> Reply:
        raise TimeoutError

    alias = make_alias(routing=Routing(first_byte_timeout_ms=60_000))
    clock = SystemClock()
    call = make_call(alias, body=STREAM, deadline_s=clock.monotonic_s() + 600)
    with pytest.raises(TimeoutError):
        await Deadline(time_out, clock, 30.0)(call)
