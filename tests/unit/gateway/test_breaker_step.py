"""The breaker step: what counts against a target, and that it is left alone when enough did."""

import asyncio

import pytest

from made_calls import MadeTarget, make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.routing.breakers import FAILURES_IN_ROW, FIRST_OPEN_S, Breakers
from pilotage.gateway.steps.breaker import Breaker
from pilotage.gateway.transport.connection import UpstreamFailure
from scripted_models import (
    ANSWER,
    BROKEN,
    BUSY,
    CUT,
    DEAD,
    HANG,
    RESTING,
    SILENT,
    USED_UP,
    WRONG,
    Act,
    Script,
    refuse,
)

ARM = make_arm("dep_a")


class Rig:
    """A breaker before scripted models."""

    def __init__(self, *acts: Act) -> None:
        self.script = Script(dep_a=list(acts), dep_b=ANSWER)
        self.breakers = Breakers(self.script.clock)
        self.step = Breaker(self.script, self.breakers)

    async def ask(self, arm: ArmEntry = ARM) -> str:
        """Make a call; return the code it failed with, "" if it did not."""
        call = make_call(make_alias())
        call.arm, call.target = arm, MadeTarget(arm.upstream_id or arm.id)
        try:
            await self.step(call)
        except PilotageError as failed:
            return failed.code
        except UpstreamFailure as failed:
            return failed.kind
        finally:
            call.undo(0)
        return ""

    @property
    def states(self) -> dict[str, str]:
        return {each.target: each.state for each in self.breakers.list_states()}


@pytest.mark.parametrize("failed", [DEAD, SILENT, CUT, BROKEN, refuse(401, "upstream_auth")])
async def test_a_target_that_keeps_failing_is_not_asked(failed: Act) -> None:
    rig = Rig(failed)
    for _ in range(FAILURES_IN_ROW):
        assert await rig.ask() not in ("", "breaker_open")
    assert await rig.ask() == "breaker_open"
    assert len(rig.script.asked) == FAILURES_IN_ROW
    assert await rig.ask(make_arm("dep_b")) == ""  # others are asked as ever


@pytest.mark.parametrize("fine", [WRONG, USED_UP, BUSY, refuse(404, "upstream_error")])
async def test_what_is_not_the_targets_fault_does_not_count(fine: Act) -> None:
    rig = Rig(*[BROKEN] * (FAILURES_IN_ROW - 1), fine, *[BROKEN] * (FAILURES_IN_ROW - 1), ANSWER)
    for _ in range(2 * FAILURES_IN_ROW - 1):
        assert await rig.ask() != "breaker_open"
    assert await rig.ask() == ""


async def test_a_request_that_is_repeated_counts_once_at_each_target() -> None:
    rig = Rig(BROKEN)
    call = make_call(make_alias())
    call.arm = ARM
    for name in ["dep_a"] * FAILURES_IN_ROW + ["dep_a.1", "dep_a"]:
        call.target = MadeTarget(name)
        with pytest.raises(PilotageError, match="with an error"):
            await rig.step(call)
    assert [(one.target, one.failures) for one in rig.breakers.list_states()] == [
        ("dep_a", 1),
        ("dep_a.1", 1),
    ]


async def test_a_stream_that_breaks_off_after_a_failure_is_the_same_call() -> None:
    rig = Rig(BROKEN)
    call = make_call(make_alias())
    call.arm, call.target = ARM, MadeTarget(ARM.id)
    with pytest.raises(PilotageError):
        await rig.step(call)
    await Breaker(stream, rig.breakers)(call)
    call.outcome = Outcome.UPSTREAM_CUT
    call.undo(0)
    assert rig.breakers.troubled["dep_a"].streak == 1


async def test_a_probe_that_asks_what_failed_before_lets_another_find_out() -> None:
    rig = Rig(*[BROKEN] * (FAILURES_IN_ROW + 1), ANSWER)
    for _ in range(FAILURES_IN_ROW - 1):
        await rig.ask()
    call = make_call(make_alias())
    call.arm, call.target = ARM, MadeTarget(ARM.id)
    for _ in range(2):
        with pytest.raises(PilotageError):
            await rig.step(call)
        rig.script.clock.advance(FIRST_OPEN_S)
    assert rig.states == {"dep_a": "half_open"}
    assert await rig.ask() == ""


@pytest.mark.parametrize("failed", [BROKEN, DEAD, RESTING])
async def test_what_befalls_a_replica_that_is_gone_is_not_its_successors(failed: Act) -> None:
    rig = Rig(failed)
    for _ in range(FAILURES_IN_ROW):
        call = make_call(make_alias())
        call.arm, call.target = ARM, MadeTarget(ARM.id)
        call.target.is_retired = True
        with pytest.raises((PilotageError, UpstreamFailure)):
            await rig.step(call)
    assert rig.states == {}


async def test_a_stream_that_is_cut_with_its_replica_is_not_its_successors() -> None:
    rig = Rig(ANSWER)
    for _ in range(FAILURES_IN_ROW):
        call = make_call(make_alias())
        call.arm, call.target = ARM, MadeTarget(ARM.id)
        await Breaker(stream, rig.breakers)(call)
        call.target.is_retired = True
        call.outcome = Outcome.UPSTREAM_CUT
        call.undo(0)
    assert rig.states == {}


async def test_our_own_bound_on_connections_does_not_count() -> None:
    rig = Rig(Act(UpstreamFailure("busy", sent=False), is_sent=False))
    for _ in range(3 * FAILURES_IN_ROW):
        assert await rig.ask() == "busy"
    assert rig.states == {}


async def test_arms_of_one_upstream_are_one_target() -> None:
    rig = Rig(BROKEN)
    for _ in range(FAILURES_IN_ROW):
        await rig.ask(make_arm("dep_a", upstream_id="upm_1"))
    assert await rig.ask(make_arm("dep_b", upstream_id="upm_1")) == "breaker_open"
    assert rig.states == {"upm_1": "open"}


async def test_a_live_call_finds_out_that_the_target_works_again() -> None:
    rig = Rig(*[BROKEN] * (FAILURES_IN_ROW + 1), ANSWER)
    for _ in range(FAILURES_IN_ROW):
        await rig.ask()
    rig.script.clock.advance(FIRST_OPEN_S)
    assert await rig.ask() == "upstream_error"
    assert await rig.ask() == "breaker_open"
    rig.script.clock.advance(2 * FIRST_OPEN_S)
    assert [await rig.ask() for _ in range(3)] == ["", "", ""]
    assert rig.states == {}


async def test_a_probe_whose_client_leaves_lets_another_find_out() -> None:
    rig = Rig(*[BROKEN] * FAILURES_IN_ROW, Act(HANG), ANSWER)
    for _ in range(FAILURES_IN_ROW):
        await rig.ask()
    rig.script.clock.advance(FIRST_OPEN_S)
    call = make_call(make_alias())
    call.arm, call.target = ARM, MadeTarget(ARM.id)
    asyncio.get_running_loop().call_soon(call.stop, Outcome.CLIENT_GONE)
    async with call:
        await rig.step(call)
    assert rig.states == {"dep_a": "half_open"}
    assert await rig.ask() == ""


@pytest.mark.parametrize(("is_sent", "counts"), [(True, True), (False, False)])
async def test_a_target_that_uses_up_the_calls_time_has_failed(is_sent: bool, counts: bool) -> None:
    rig = Rig(Act(HANG, is_sent=is_sent))
    call = make_call(make_alias())
    call.arm, call.target = ARM, MadeTarget(ARM.id)
    asyncio.get_running_loop().call_soon(call.stop, Outcome.DEADLINE)
    async with call:
        await rig.step(call)
    assert call.outcome is Outcome.DEADLINE
    assert (rig.states == {"dep_a": "closed"}) is counts


async def test_a_target_that_asks_for_rest_gets_it() -> None:
    rig = Rig(RESTING, ANSWER)
    assert [await rig.ask() for _ in range(3)] == ["upstream_overloaded"] * 3
    assert rig.script.asked == ["dep_a"]
    rig.script.clock.advance(7.0)
    assert await rig.ask() == ""


async def test_a_short_rest_is_left_to_the_callers() -> None:
    rig = Rig(BUSY, ANSWER)
    assert [await rig.ask(), await rig.ask()] == ["upstream_overloaded", ""]


class Part:
    async def read(self) -> bytes:
        return b""


async def stream(call: Call) -> Reply:
    return Reply(stream=Part())


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.UPSTREAM_CUT, "open"),
        (Outcome.UPSTREAM_STALL, "open"),
        (Outcome.UPSTREAM_ERROR, "open"),
        (Outcome.CLIENT_GONE, ""),
        (Outcome.OK, ""),
    ],
)
async def test_streams_count_by_how_they_end(outcome: Outcome, state: str) -> None:
    rig = Rig(ANSWER)
    step = Breaker(stream, rig.breakers)
    for _ in range(FAILURES_IN_ROW):
        call = make_call(make_alias())
        call.arm, call.target = ARM, MadeTarget(ARM.id)
        await step(call)
        call.outcome = outcome
        call.undo(0)
    assert rig.states.get("dep_a", "") == state


async def test_streams_that_end_well_close_what_failures_began() -> None:
    rig = Rig(*[BROKEN] * (FAILURES_IN_ROW - 1))
    for _ in range(FAILURES_IN_ROW - 1):
        await rig.ask()
    call = make_call(make_alias())
    call.arm, call.target = ARM, MadeTarget(ARM.id)
    await Breaker(stream, rig.breakers)(call)
    assert rig.breakers.troubled["dep_a"].streak == FAILURES_IN_ROW - 1
    call.undo(0)
    assert rig.breakers.troubled["dep_a"].streak == 0
