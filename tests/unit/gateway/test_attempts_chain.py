"""Fallback, retry, attempt and breaker together: whatever happens, the books of a call agree."""

from hypothesis import given
from hypothesis import strategies as st

from made_calls import MadeTargets, make_alias, make_arm, make_call
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import Routing
from pilotage.core.usage import Usage
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.chain import build_chain
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.steps.attempt import Attempt
from pilotage.gateway.steps.breaker import Breaker
from pilotage.gateway.steps.fallback import Fallback
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.steps.retry import Retry
from pilotage.gateway.steps.route import Route
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
    widen_up_to,
)

USED = Usage(input=3, output=2)
ACTS = st.sampled_from(
    [
        ANSWER._replace(usage=USED),
        CUT._replace(usage=USED),
        BROKEN._replace(takes_s=0.3),
        SILENT._replace(takes_s=0.9),
        DEAD, RESET, CUT, BUSY, RESTING, USED_UP, WRONG,
    ]
)  # fmt: skip
SCRIPTS = st.lists(ACTS, min_size=1, max_size=6)
ARMS = [make_arm("dep_a"), make_arm("dep_b", 0), make_arm("dep_c", 0)]


def make_chain(script: Script) -> Step:
    async def pause(seconds: float) -> None:
        script.clock.advance(seconds)

    breakers, targets = Breakers(script.clock), MadeTargets()
    return build_chain(
        [
            lambda follow: Route(follow, script.clock, lambda arm: False),
            lambda follow: Fallback(follow, script.clock),
            lambda follow: Retry(follow, script.clock, pause=pause, draw=lambda: 0.5),
            lambda follow: Attempt(follow, targets, script.clock, 600.0),
            lambda follow: Breaker(follow, breakers),
        ],
        script,
    )


def open_call(script: Script, retries: int, deadline_s: float, number: int = 0) -> Call:
    alias = make_alias(*ARMS, routing=Routing(fallbacks=["dep_b", "dep_c"], retries=retries))
    now_s = script.clock.monotonic_s()
    call = make_call(
        alias, call_id=f"call_{number}", started_s=now_s, deadline_s=now_s + deadline_s
    )
    bound_call(call, alias)
    return call


@given(SCRIPTS, SCRIPTS, SCRIPTS, st.integers(0, 2), st.integers(0, 4), st.floats(0.1, 5))
async def test_the_books_of_any_call_agree(
    a: list[Act], b: list[Act], c: list[Act], retries: int, payable: int, deadline_s: float
) -> None:
    script = Script(dep_a=a, dep_b=b, dep_c=c)
    chain = make_chain(script)
    for number in range(8):  # the breakers remember
        before = len(script.asked)
        call = open_call(script, retries, deadline_s, number)
        call.widen, asked_more = widen_up_to(payable)
        async with call:
            await chain(call)
            assert script.open == 1
        assert script.open == 0
        check_books(call, script.asked[before:], retries, min(len(asked_more), payable))


def check_books(call: Call, asked: list[str], retries: int, granted: int) -> None:
    order = [arm.id for arm in call.plan]
    assert [order.index(arm) for arm in asked] == sorted(order.index(arm) for arm in asked)
    assert max((asked.count(arm) for arm in order), default=0) <= retries + 1
    assert call.attempts == len(asked)
    begun = [each for each in call.tries if each.code not in ("breaker_open", "deadline")]
    assert len(begun) + (call.outcome is Outcome.OK) >= len(asked)
    assert call.alias is not None
    outputs = call.output_limit * call.request.choices
    assert call.worst_nano == (1 + granted) * call.alias.worst_nano(call.input_bound, outputs)
    assert bill_call(call).cost_nano <= call.worst_nano
    assert (Flag.RETRIED in call.flags) == any(asked.count(arm) > 1 for arm in order)
    if call.outcome is Outcome.OK:
        assert call.arm is not None
        assert call.arm.id == asked[-1]
        assert (Flag.FELL_BACK in call.flags) == (call.arm.id != order[0])


async def test_every_attempt_is_listed_once_with_its_time() -> None:
    script = Script(
        dep_a=BROKEN._replace(takes_s=0.25), dep_b=SILENT._replace(takes_s=0.5), dep_c=ANSWER
    )
    call, reply = open_call(script, 1, 60.0), Reply()
    async with call:
        reply = await make_chain(script)(call)
    assert reply.body == b"dep_c"
    listed = [(each.arm_id, each.code, round(each.duration_s, 3)) for each in call.tries]
    assert listed == [
        ("dep_a", "upstream_error", 0.25),
        ("dep_a", "upstream_error", 0.25),
        ("dep_b", "upstream_stall", 0.5),
    ]
    assert call.flags == {Flag.RETRIED, Flag.FELL_BACK}


async def test_no_attempt_begins_without_time() -> None:
    script = Script(dep_a=SILENT._replace(takes_s=2.0), dep_b=ANSWER)
    call = open_call(script, 1, 1.0)
    async with call:
        await make_chain(script)(call)
    assert (script.asked, call.outcome) == (["dep_a"], Outcome.DEADLINE)
    assert call.error is not None
    assert call.error.status == 504


async def test_one_request_that_breaks_a_model_takes_it_from_nobody() -> None:
    script = Script(dep_a=[BROKEN] * 6 + [ANSWER], dep_b=ANSWER, dep_c=ANSWER)
    chain = make_chain(script)
    outcomes = []
    for number in range(2):
        call = open_call(script, 5, 60.0, number)
        call.alias = make_alias(*ARMS, routing=Routing(retries=5))
        async with call:
            await chain(call)
        outcomes.append((call.error.code if call.error else "", call.attempts))
    assert outcomes == [("upstream_error", 6), ("", 1)]
