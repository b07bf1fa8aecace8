"""The fallback step: the next arm of the plan, booked and undone, and the truth if all fail."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_calls import make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import ArmEntry, Routing
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.routing.failures import is_targets_fault
from pilotage.gateway.snapshots import AliasView
from pilotage.gateway.steps.fallback import Fallback
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.transport.connection import UpstreamFailure
from scripted_models import (
    ANSWER,
    BROKEN,
    CUT,
    DEAD,
    HANG,
    RESET,
    RESTING,
    SILENT,
    TOO_LONG,
    USED_UP,
    WRONG,
    Act,
    Script,
    widen_up_to,
)

ARMS = [make_arm("dep_a"), make_arm("dep_b", 0), make_arm("dep_c", 0)]


def make_three(*arms: ArmEntry) -> AliasView:
    given_arms = arms or tuple(ARMS)
    return make_alias(
        *given_arms, routing=Routing(fallbacks=[arm.id for arm in given_arms if not arm.weight])
    )


def plan_call(alias: AliasView) -> Call:
    call = make_call(alias)
    bound_call(call, alias)
    call.plan = alias.find_routes(call.tenant).plain.only_plan or call.plan
    call.arm = call.plan[0]
    return call


async def run(call: Call, script: Script) -> Reply:
    reply = Reply()
    async with call:
        reply = await Fallback(script, script.clock)(call)
        assert script.open == 1  # only the attempt that answered is still open
    assert script.open == 0
    return reply


@pytest.mark.parametrize("failed", [DEAD, RESET, SILENT, CUT, BROKEN, RESTING, USED_UP])
async def test_the_next_arm_answers_where_one_could_not(failed: Act) -> None:
    script = Script(dep_a=failed, dep_b=ANSWER)
    call = plan_call(make_three())
    reply = await run(call, script)
    assert reply.body == b"dep_b"
    assert script.asked == ["dep_a", "dep_b"]
    assert (call.outcome, call.arm, call.flags) == (Outcome.OK, ARMS[1], {Flag.FELL_BACK})
    assert [each.arm_id for each in call.tries] == ["dep_a"]


async def test_the_first_answer_is_the_answer() -> None:
    script = Script(dep_a=ANSWER)
    call = plan_call(make_three())
    assert (await run(call, script)).body == b"dep_a"
    assert (call.flags, call.tries, script.asked) == (set(), [], ["dep_a"])


async def test_a_fault_of_the_request_is_told_at_once() -> None:
    script = Script(dep_a=WRONG, dep_b=ANSWER)
    call = plan_call(make_three())
    await run(call, script)
    assert script.asked == ["dep_a"]
    assert call.error is not None
    assert (call.error.code, call.outcome) == ("invalid_request", Outcome.REFUSED)


async def test_a_prompt_too_long_skips_to_a_larger_context() -> None:
    arms = [
        make_arm("dep_a", context_tokens=4096),
        make_arm("dep_b", 0, context_tokens=4096),
        make_arm("dep_c", 0, context_tokens=32_768),
    ]
    script = Script(dep_a=TOO_LONG, dep_c=ANSWER)
    assert (await run(plan_call(make_three(*arms)), script)).body == b"dep_c"
    assert script.asked == ["dep_a", "dep_c"]


async def test_what_is_wrong_with_the_request_is_told_before_what_failed_later() -> None:
    arms = [make_arm("dep_a", context_tokens=10), make_arm("dep_b", 0, context_tokens=20)]
    script = Script(dep_a=TOO_LONG, dep_b=SILENT)
    call = plan_call(make_three(*arms))
    await run(call, script)
    assert call.error is not None
    assert (call.error.code, call.error.status) == ("context_length_exceeded", 400)
    assert "2 targets were tried" in call.error.detail
    assert bill_call(call).cost_nano > 0  # the silent one may have worked


async def test_the_last_failure_is_told_with_the_number_of_targets() -> None:
    call = plan_call(make_three())
    await run(call, Script(dep_a=DEAD, dep_b=BROKEN, dep_c=RESTING))
    assert call.error is not None
    assert (call.error.code, call.error.retry_after_s) == ("upstream_overloaded", 7.0)
    assert "3 targets were tried" in call.error.detail
    assert [each.code for each in call.tries] == [
        "upstream_unreachable",
        "upstream_error",
        "upstream_overloaded",
    ]


async def test_what_may_have_run_is_paid_and_reserved_once_more() -> None:
    call = plan_call(make_three())
    widen, asked = widen_up_to(9)
    call.widen = widen
    worst = (call.worst_nano, call.worst_tokens)
    used = Usage(input=5, output=7)
    await run(
        call,
        Script(
            dep_a=CUT._replace(usage=Usage(input=3, output=2)),
            dep_b=SILENT,
            dep_c=ANSWER._replace(usage=used),
        ),
    )
    assert asked == [worst, worst]
    assert (call.worst_nano, call.worst_tokens) == (3 * worst[0], 3 * worst[1])
    bill, guessed = bill_call(call), Usage(input=len(call.body) // 4)
    assert bill.usage == used.plus(Usage(input=3, output=2)).plus(guessed)
    costs = [cost_nano(each, ARMS[0].rates) for each in (used, Usage(input=3, output=2), guessed)]
    assert (bill.cost_nano, bill.is_estimated) == (sum(costs), True)


@pytest.mark.parametrize("failed", [DEAD, BROKEN, RESTING, USED_UP])
async def test_what_cannot_have_run_costs_nothing_and_asks_for_no_more(failed: Act) -> None:
    call = plan_call(make_three())
    widen, asked = widen_up_to(0)
    call.widen = widen
    used = Usage(input=5, output=7)
    await run(call, Script(dep_a=failed, dep_b=ANSWER._replace(usage=used)))
    assert asked == []
    bill = bill_call(call)
    assert (bill.usage, bill.is_estimated) == (used, False)


async def test_where_no_more_can_be_paid_the_failure_stands() -> None:
    call = plan_call(make_three())
    call.widen, asked = widen_up_to(0)
    script = Script(dep_a=SILENT, dep_b=ANSWER)
    await run(call, script)
    assert (script.asked, len(asked)) == (["dep_a"], 1)
    assert call.error is not None
    assert call.error.code == "upstream_stall"


async def test_nothing_of_a_failed_attempt_is_left_on_the_call() -> None:
    seen: list[tuple[object, ...]] = []

    async def follow(call: Call) -> Reply:
        seen.append((call.is_sent, call.status, call.chunks, call.answered_by, call.usage))
        if len(seen) == 2:
            return Reply()
        call.note_sent()
        call.status, call.chunks, call.answered_by = 200, 3, "somebody"
        call.fingerprint, call.finish_reason = "fp", "stop"
        call.flags.add(Flag.USAGE_INVALID)
        raise UpstreamFailure("cut", sent=True, got_headers=True)

    call = plan_call(make_three())
    async with call:
        await Fallback(follow, Script().clock)(call)
    assert seen == [(False, 0, 0, "", None)] * 2
    assert (call.fingerprint, call.finish_reason, call.flags) == ("", "", {Flag.FELL_BACK})


async def test_a_stopped_call_does_not_go_on() -> None:
    script = Script(dep_a=Act(HANG), dep_b=ANSWER)
    call = plan_call(make_three())
    asyncio.get_running_loop().call_soon(call.stop, Outcome.CLIENT_GONE)
    await run(call, script)
    assert (script.asked, call.outcome) == (["dep_a"], Outcome.CLIENT_GONE)


async def test_a_call_stopped_while_a_step_swallows_it_does_not_go_on() -> None:
    script = Script(dep_b=ANSWER)

    async def swallow(call: Call) -> Reply:
        if call.arm is ARMS[0]:
            call.stop(Outcome.DRAINING)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise PilotageError("upstream_error") from None
        return await script(call)

    call = plan_call(make_three())
    async with call:
        await Fallback(swallow, script.clock)(call)
    assert (script.asked, call.outcome) == ([], Outcome.DRAINING)


async def test_a_broken_step_is_nobodys_failure() -> None:
    script = Script(dep_a=Act("a bug"), dep_b=ANSWER)
    call = plan_call(make_three())
    with pytest.raises(RuntimeError):
        await Fallback(script, script.clock)(call)
    assert script.asked == ["dep_a"]


async def test_a_failure_before_any_attempt_is_listed_too() -> None:
    async def refuse(call: Call) -> Reply:
        raise PilotageError("breaker_open")

    call = plan_call(make_three())
    with pytest.raises(PilotageError):
        await Fallback(refuse, Script().clock)(call)
    assert [(each.arm_id, each.code) for each in call.tries] == [
        ("dep_a", "breaker_open"),
        ("dep_b", "breaker_open"),
        ("dep_c", "breaker_open"),
    ]


ACTS = st.sampled_from([ANSWER, DEAD, RESET, SILENT, CUT, BROKEN, RESTING, USED_UP, WRONG])


@given(st.lists(ACTS, min_size=3, max_size=3), st.integers(0, 3))
async def test_any_run_asks_the_plan_in_order_and_closes_all_it_opened(
    acts: list[Act], payable: int
) -> None:
    script = Script(dep_a=acts[0], dep_b=acts[1], dep_c=acts[2])
    call = plan_call(make_three())
    call.widen, asked = widen_up_to(payable)
    await run(call, script)
    assert script.asked == [arm.id for arm in call.plan][: len(script.asked)]
    assert len(call.tries) == len(script.asked) - (call.error is None)
    assert bill_call(call).cost_nano <= call.worst_nano
    assert len(asked) <= payable + 1
    failed = [each.code for each in call.tries]
    if call.error is not None:
        about_request = [code for code in failed if not is_targets_fault(code)]
        assert call.error.code == (about_request[0] if about_request else failed[-1])
    else:
        assert call.arm is not None
        assert call.arm.id == script.asked[-1]
    assert (Flag.FELL_BACK in call.flags) == (len(script.asked) > 1)
