"""The attempt step: who is asked, and how long that may take of what the call has left."""

import asyncio

import pytest

from made_calls import BODY, MadeTarget, MadeTargets, make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry, Routing
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.providers.replicas import Replicas
from pilotage.gateway.providers.target import Target
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.steps.attempt import GRACE_S, Attempt
from pilotage.gateway.targets import Targets
from pilotage.gateway.transport.upstream import Limits
from pilotage.kit.clock import ManualClock

STREAM = BODY[:-1] + b',"stream":true}'


async def answer(call: Call) -> Reply:
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
    call.arm = make_arm()
    await Attempt(answer, MadeTargets(), ManualClock(), 30.0)(call)
    assert call.first_byte_timeout_s == expected


async def test_without_time_nothing_is_begun() -> None:
    clock, targets = ManualClock(), MadeTargets()
    clock.advance(2)
    call = make_call(make_alias(), deadline_s=1.5)
    call.arm = make_arm()
    with pytest.raises(PilotageError) as caught:
        await Attempt(answer, targets, clock, 30.0)(call)
    assert caught.value.code == "deadline"
    assert call.target is None


async def test_a_target_has_the_call_from_when_it_is_chosen_until_the_attempt_is_given_up() -> None:
    targets = MadeTargets()

    async def fail(call: Call) -> Reply:
        assert call.target is targets.by_id["dep_a"]
        raise PilotageError("upstream_error")

    call = make_call(make_alias())
    call.arm = make_arm()
    with pytest.raises(PilotageError):
        await Attempt(fail, targets, ManualClock(), 30.0)(call)
    assert targets.by_id["dep_a"].busy == 1
    call.undo(0)
    assert targets.by_id["dep_a"].busy == 0


class Sleepers(MadeTargets):
    """Targets that have to be waited for."""

    def pick(self, arm: ArmEntry, call: Call) -> Target | None:
        return None

    async def wait(self, arm: ArmEntry, call: Call) -> Target:
        assert call.first_byte_timeout_s == 30.0
        await asyncio.sleep(0)
        return self.by_id.setdefault("late", MadeTarget("late"))


async def test_a_target_that_has_to_be_waited_for_is_waited_for() -> None:
    call = make_call(make_alias(), deadline_s=60.0)
    call.arm = make_arm()
    sleepers = Sleepers()
    await Attempt(answer, sleepers, ManualClock(), 30.0)(call)
    assert call.target is sleepers.by_id["late"]


async def test_a_sleeper_that_does_not_wake_up_in_time_is_cold_and_has_not_stalled() -> None:
    clock = ManualClock()
    replicas = Replicas(Limits(), Breakers(clock), clock)
    replicas.apply(Targets(n=1, can_wake=["dep_a"]))
    alias = make_alias(routing=Routing(first_byte_timeout_ms=20))
    call = make_call(alias, body=STREAM, deadline_s=60.0)
    call.arm = make_arm(can_wake=True)
    with pytest.raises(PilotageError) as caught:
        await Attempt(answer, replicas, clock, 30.0)(call)
    assert caught.value.code == "upstream_cold"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # what is awaited later is not cancelled
