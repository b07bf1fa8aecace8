"""The retry step: asked again where that is safe, soon and paid for; else the failure stands."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_calls import make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import Routing
from pilotage.core.usage import Usage
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.routing.retry_budget import MOST_SAVED, PRICE
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.steps.retry import FIRST_PAUSE_S, Retry
from scripted_models import (
    ANSWER,
    BROKEN,
    BUSY,
    CUT,
    DEAD,
    RESET,
    RESTING,
    SILENT,
    USED_UP,
    WRONG,
    Act,
    Script,
    refuse,
    widen_up_to,
)


class Rig:
    """A retry step whose pauses move the clock, and dice that always fall in the middle."""

    def __init__(self, *acts: Act, retries: int = 2, fallback: bool = False) -> None:
        self.script = Script(dep_a=list(acts))
        self.pauses: list[float] = []
        self.step = Retry(self.script, self.script.clock, pause=self.pause, draw=lambda: 0.5)
        arms = [make_arm("dep_a"), make_arm("dep_b", 0)]
        routing = Routing(retries=retries, fallbacks=["dep_b"] if fallback else [])
        self.alias = make_alias(*arms, routing=routing)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.script.clock.advance(seconds)

    def make_call(self, deadline_s: float = 100.0) -> Call:
        call = make_call(self.alias, deadline_s=self.script.clock.monotonic_s() + deadline_s)
        bound_call(call, self.alias)
        call.plan = self.alias.find_routes(call.tenant).plain.only_plan or call.plan
        call.arm = call.plan[0]
        return call

    async def run(self, call: Call | None = None) -> Call:
        call = call or self.make_call()
        async with call:
            await self.step(call)
            assert self.script.open == 1
        assert self.script.open == 0
        return call


@pytest.mark.parametrize("failed", [DEAD, RESET, BROKEN, BUSY])
async def test_the_same_arm_is_asked_again(failed: Act) -> None:
    rig = Rig(failed, ANSWER)
    call = await rig.run()
    assert (call.outcome, call.flags, len(rig.script.asked)) == (Outcome.OK, {Flag.RETRIED}, 2)
    assert [each.arm_id for each in call.tries] == ["dep_a"]


@pytest.mark.parametrize(
    "failed", [SILENT, CUT, RESTING, USED_UP, WRONG, refuse(503, "upstream_cold"),
               refuse(404, "upstream_error"), Act(PilotageError("no_replica"), is_sent=False)]
)  # fmt: skip
async def test_what_would_not_help_or_may_still_run_is_not_asked_again(failed: Act) -> None:
    rig = Rig(failed, ANSWER)
    call = await rig.run()
    assert (len(rig.script.asked), rig.pauses, call.flags) == (1, [], set())
    assert call.error is not None
    assert len(call.tries) == 1


async def test_it_is_asked_again_as_often_as_the_alias_says_with_growing_pauses() -> None:
    rig = Rig(BROKEN, retries=3)
    call = await rig.run()
    assert len(rig.script.asked) == 4
    assert rig.pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert len(call.tries) == 4
    assert (await Rig(BROKEN, retries=0).run()).flags == set()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 4))
async def test_pauses_are_spread_around_their_length(drawn: float, number: int) -> None:
    rig = Rig(BROKEN, retries=number + 1)
    rig.step = Retry(rig.script, rig.script.clock, pause=rig.pause, draw=lambda: drawn)
    await rig.run()
    length = FIRST_PAUSE_S * 2**number
    assert rig.pauses[number] == pytest.approx(length * (0.5 + drawn))


async def test_what_failed_is_told_where_it_may_not_be_asked_again() -> None:
    refused = Act(PilotageError("breaker_open", retry_after_s=1.0), is_sent=False)
    rig = Rig(BROKEN, refused, retries=5)
    call = await rig.run()
    assert call.error is not None
    assert (call.error.code, call.outcome) == ("upstream_error", Outcome.UPSTREAM_ERROR)
    assert [each.code for each in call.tries] == ["upstream_error", "breaker_open"]
    assert len(rig.pauses) == 1


async def test_a_target_gets_the_rest_it_asks_for() -> None:
    rig = Rig(BUSY, ANSWER)
    await rig.run()
    assert rig.pauses == [1.0 + FIRST_PAUSE_S]


async def test_another_arm_is_sooner_than_a_rest() -> None:
    rig = Rig(BUSY, ANSWER, fallback=True)
    call = await rig.run()
    assert (len(rig.script.asked), call.error is not None) == (1, True)
    broken = Rig(BROKEN, ANSWER, fallback=True)  # asked for no rest
    assert (await broken.run()).outcome is Outcome.OK


async def test_nothing_is_asked_beyond_the_deadline() -> None:
    rig = Rig(BROKEN._replace(takes_s=0.9), ANSWER)
    await rig.run(rig.make_call(deadline_s=0.94))
    assert (len(rig.script.asked), rig.pauses) == (1, [])
    rig = Rig(BROKEN._replace(takes_s=0.9), ANSWER)
    await rig.run(rig.make_call(deadline_s=0.96))
    assert len(rig.script.asked) == 2


async def test_what_may_have_run_is_asked_again_only_if_it_can_be_paid_twice() -> None:
    rig = Rig(RESET, ANSWER)
    call = rig.make_call()
    call.widen, asked = widen_up_to(0)
    await rig.run(call)
    assert (len(rig.script.asked), len(asked)) == (1, 1)
    rig = Rig(RESET, ANSWER._replace(usage=Usage(input=1, output=1)))
    call = rig.make_call()
    call.widen, asked = widen_up_to(1)
    worst_nano = call.worst_nano
    await rig.run(call)
    assert asked == [(worst_nano, call.worst_tokens // 2)]
    assert call.worst_nano == 2 * worst_nano
    assert bill_call(call).usage == Usage(input=len(call.body) // 4 + 1, output=1)


async def test_what_did_not_run_is_not_paid() -> None:
    rig = Rig(BROKEN, DEAD, ANSWER._replace(usage=Usage(input=1, output=1)))
    call = rig.make_call()
    call.widen, asked = widen_up_to(0)
    await rig.run(call)
    assert (asked, bill_call(call).usage) == ([], Usage(input=1, output=1))


async def test_retries_are_a_share_of_the_calls() -> None:
    rig = Rig(BROKEN, retries=1)
    for _ in range(200):
        await rig.run()
    # the pauses earn some as well; the clock moves only in them
    earned = MOST_SAVED + 200 + sum(rig.pauses) * 20
    assert MOST_SAVED / PRICE < len(rig.pauses) <= earned / PRICE


async def test_a_client_that_leaves_during_a_pause_ends_it() -> None:
    rig = Rig(BROKEN, ANSWER)
    call = rig.make_call()

    async def leave(seconds: float) -> None:
        call.leave()
        await asyncio.Event().wait()

    rig.step = Retry(rig.script, rig.script.clock, pause=leave, draw=lambda: 0.5)
    async with call:
        await rig.step(call)
    assert (call.outcome, len(rig.script.asked), rig.script.open) == (Outcome.CLIENT_GONE, 1, 0)


async def test_a_stopped_call_is_not_asked_again() -> None:
    rig = Rig(ANSWER)

    async def swallow(call: Call) -> Reply:
        call.stop(Outcome.DEADLINE)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise BROKEN.raises from None  # type: ignore[misc]
        return Reply()

    rig.step = Retry(swallow, rig.script.clock, pause=rig.pause, draw=lambda: 0.5)
    call = rig.make_call()
    async with call:
        call.status = 500
        await rig.step(call)
    assert (call.outcome, rig.pauses) == (Outcome.DEADLINE, [])


async def test_tries_say_when_they_began_and_how_long_they_took() -> None:
    rig = Rig(BROKEN._replace(takes_s=0.25), BROKEN._replace(takes_s=0.5), ANSWER)
    call = await rig.run()
    spans = [(round(each.began_s, 6), round(each.duration_s, 6)) for each in call.tries]
    assert spans == [(0.0, 0.25), (0.25 + FIRST_PAUSE_S, 0.5)]
