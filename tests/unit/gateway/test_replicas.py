"""Which replica of a deployment takes a call, and what happens while there is none."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from faulty_upstream import FaultyUpstream
from made_calls import make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.snapshot import TenantEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.adapters import add_adapter
from pilotage.gateway.providers.replica import COLD_CALLS, COLD_S, LONGEST_COLD_S, Replica
from pilotage.gateway.providers.replicas import (
    AHEAD,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    Replicas,
)
from pilotage.gateway.routing.breakers import FAILURES_IN_ROW, FIRST_OPEN_S, Breakers
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits, UpstreamFailure
from pilotage.kit.clock import ManualClock

SLEEPER = make_arm("dep_a", can_wake=True)


def make_targets(
    *ports: int,
    n: int = 1,
    can_wake: Sequence[str] | None = ("dep_a",),
    **more: Any,  # noqa: ANN401
) -> Targets:
    return Targets(
        n=n,
        can_wake=None if can_wake is None else list(can_wake),
        replicas=[
            ReplicaTarget(
                id=f"dep_a.{number}",
                deployment_id="dep_a",
                host="127.0.0.1",
                port=port,
                key="k",
                **more,
            )
            for number, port in enumerate(ports)
        ],
    )


def make_replicas(*ports: int, clock: ManualClock | None = None, **more: Any) -> Replicas:  # noqa: ANN401
    clock = clock or ManualClock()
    replicas = Replicas(Limits(), Breakers(clock), clock)
    replicas.apply(make_targets(*ports, **more))
    return replicas


def say(prompt: str, tenant: str = "ten_1", *, is_long: bool = False) -> Call:
    """Return a call; a long one asks more behind the same beginning."""
    text = prompt + ("x" * 2000 + prompt if is_long else "")
    messages = [{"role": "system", "content": text}]
    body = json.dumps({"model": "chat", "n": 1, "messages": messages}).encode()
    owner = TenantEntry(id=tenant, name=tenant, project_id="prj_1")
    return make_call(body=body, tenant=owner)


def pick(replicas: Replicas, call: Call | None = None) -> Replica:
    found = replicas.pick(make_arm("dep_a"), call or make_call())
    assert found is not None
    return found


# Which one.


async def test_calls_that_begin_alike_go_to_one_replica_until_it_is_far_ahead() -> None:
    replicas = make_replicas(1, 2, 3)
    taken = []
    for number in range(9):
        replica = pick(replicas, say("You are helpful." + " " * 1024 + str(number)))
        replica.enter()
        taken.append(replica.target.port)
        busy = [one.busy for one in replicas.groups["dep_a"].replicas]
        assert max(busy) - min(busy) <= AHEAD
    assert len(set(taken[:AHEAD])) == 1
    assert set(taken) == {1, 2, 3}
    replicas.close()


async def test_different_beginnings_are_spread_and_stay_when_replicas_come_and_go() -> None:
    replicas = make_replicas(1, 2, 3)
    prompts = [f"You are helper {number}." for number in range(300)]
    before = {text: pick(replicas, say(text)).target.port for text in prompts}
    assert min(Counter(before.values()).values()) > 60
    assert before == {text: pick(replicas, say(text)).target.port for text in prompts}
    others = {text: pick(replicas, say(text, "ten_2")).target.port for text in prompts}
    assert 120 < sum(before[text] != others[text] for text in prompts) < 280
    replicas.apply(make_targets(1, 2))
    after = {text: pick(replicas, say(text)).target.port for text in prompts}
    assert all(after[text] == port for text, port in before.items() if port != 3)
    replicas.close()


async def test_a_replica_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead_port = closed.getsockname()[1]
    async with FaultyUpstream() as upstream:
        replicas = make_replicas(dead_port, upstream.port)
        (dead,) = (r for r in replicas.groups["dep_a"].replicas if r.target.port == dead_port)
        with pytest.raises(UpstreamFailure, match="connect"):
            await dead.pool.post(b"POST / HTTP/1.1\r\n", b"{}")
        for number in range(5):
            replica = pick(replicas, say(str(number)))
            replica.enter()
            assert replica.target.port == upstream.port  # busier, but there
        replicas.apply(make_targets(dead_port))
        assert pick(replicas).target.port == dead_port  # the only one
        replicas.close()


async def test_a_replica_that_keeps_failing_rests_until_it_is_started_again() -> None:
    clock = ManualClock()
    breakers = Breakers(clock)
    replicas = Replicas(Limits(), breakers, clock)
    replicas.apply(make_targets(1, 2))
    for _ in range(FAILURES_IN_ROW):
        breakers.fail("dep_a.0", "upstream_unreachable")
    assert {pick(replicas, say(str(number))).id for number in range(20)} == {"dep_a.1"}
    replicas.apply(make_targets(1))
    assert pick(replicas).id == "dep_a.0"  # the only one, and refused
    replicas.apply(make_targets(3))  # it listens elsewhere now
    assert not breakers.is_resting("dep_a.0")
    replicas.close()


async def test_a_dropped_replica_is_known_until_its_last_call_has_ended() -> None:
    replicas = make_replicas(1, 2)
    calls = [say(str(number)) for number in range(4)]
    for call in calls:
        pick(replicas, call).enter()
    replicas.apply(make_targets(1))
    (left,) = replicas.list_leaving()
    assert (left.target.port, left.is_retired) == (2, True)
    replicas.apply(make_targets(1, n=2))
    assert list(replicas.list_leaving()) == [left]
    while left.busy:
        left.leave()
    replicas.apply(make_targets(1, n=3))
    assert list(replicas.list_leaving()) == []
    replicas.close()


async def test_deployments_that_share_a_process_see_each_others_calls() -> None:
    replicas = make_replicas(1, 2)
    alike = make_targets(1, 2).replicas
    others = [
        msgspec.structs.replace(one, id=one.id.replace("_a", "_b"), deployment_id="dep_b")
        for one in alike
    ]
    replicas.apply(Targets(n=2, replicas=[*alike, *others]))
    assert len(replicas.list_pools()) == 2
    busy = pick(replicas)
    for _ in range(AHEAD):
        busy.enter()
    sibling = replicas.pick(make_arm("dep_b"), make_call())
    assert sibling is not None
    assert (sibling.target.port, sibling.busy) == (3 - busy.target.port, 0)
    replicas.apply(Targets(n=3, replicas=others))
    assert busy.pool in replicas.list_pools()  # of those that share it, one is left
    replicas.apply(Targets(n=4))
    assert replicas.list_pools() == []
    for _ in range(AHEAD):
        busy.leave()
    with pytest.raises(UpstreamFailure):
        await busy.pool.post(b"POST / HTTP/1.1\r\n", b"{}")


# Cold ones.


async def test_a_new_replica_is_cold_for_a_minute_and_for_twenty_calls_at_least() -> None:
    clock = ManualClock()
    replicas = make_replicas(1, clock=clock, ready_at_us=clock.now_us())
    first = make_call()
    pick(replicas, first)
    assert first.flags == {Flag.COLD}
    clock.advance(COLD_S)
    cold = []
    for _ in range(COLD_CALLS + 5):
        call = make_call()
        pick(replicas, call)
        cold.append(Flag.COLD in call.flags)
    assert cold == [True] * (COLD_CALLS - 1) + [False] * 6
    replicas.close()


async def test_many_calls_do_not_warm_a_replica_before_its_minute_is_over() -> None:
    clock = ManualClock()
    replicas = make_replicas(1, clock=clock, ready_at_us=clock.now_us())
    for _ in range(3 * COLD_CALLS):
        call = make_call()
        pick(replicas, call)
        assert call.flags == {Flag.COLD}
    clock.advance(COLD_S)
    call = make_call()
    pick(replicas, call)
    assert not call.flags
    replicas.close()


async def test_a_deployment_is_cold_while_it_sleeps_or_one_of_its_replicas_is() -> None:
    clock = ManualClock()
    replicas = make_replicas(clock=clock)
    assert replicas.is_cold("dep_a")
    old_us = clock.now_us() - round(3600e6)
    replicas.apply(make_targets(1, n=2, ready_at_us=old_us))
    assert not replicas.is_cold("dep_a")
    scaled = make_targets(1, 2, n=3, ready_at_us=old_us)
    scaled.replicas[1] = msgspec.structs.replace(scaled.replicas[1], ready_at_us=clock.now_us())
    replicas.apply(scaled)
    assert replicas.is_cold("dep_a")
    clock.advance(COLD_S)
    for _ in range(COLD_CALLS):
        assert replicas.is_cold("dep_a")
        [new] = [one for one in replicas.groups["dep_a"].replicas if one.target.port == 2]
        new.flag(make_call())
    assert not replicas.is_cold("dep_a")
    replicas.apply(make_targets(n=4))
    assert replicas.is_cold("dep_a")
    replicas.close()


async def test_a_replica_that_nobody_calls_is_not_cold_for_ever() -> None:
    clock = ManualClock()
    replicas = make_replicas(1, clock=clock, ready_at_us=clock.now_us())
    clock.advance(LONGEST_COLD_S - 1)
    assert replicas.is_cold("dep_a")
    clock.advance(1)
    assert not replicas.is_cold("dep_a")
    replicas.close()


@pytest.mark.parametrize("age_s", [COLD_S, 3600.0, None])
async def test_a_replica_that_was_ready_long_ago_is_not_cold(age_s: float | None) -> None:
    clock = ManualClock()
    ready_at_us = 0 if age_s is None else clock.now_us() - round(age_s * 1e6)
    replicas = make_replicas(1, clock=clock, ready_at_us=ready_at_us)
    call = make_call()
    pick(replicas, call)
    assert not call.flags
    replicas.close()


async def test_a_retry_that_meets_a_cold_replica_is_not_excused_by_it() -> None:
    clock = ManualClock()
    replicas = make_replicas(1, clock=clock, ready_at_us=clock.now_us())
    call = make_call()
    call.attempts = 1
    pick(replicas, call)
    assert not call.flags
    replicas.close()


async def test_what_is_refused_does_not_warm_a_replica() -> None:
    clock = ManualClock()
    breakers = Breakers(clock)
    replicas = Replicas(Limits(), breakers, clock)
    replicas.apply(make_targets(1, ready_at_us=clock.now_us()))
    clock.advance(COLD_S)
    for _ in range(FAILURES_IN_ROW):
        breakers.fail("dep_a.0", "upstream_unreachable")
    for _ in range(COLD_CALLS):
        call = make_call()
        pick(replicas, call)
        assert not call.flags
    clock.advance(FIRST_OPEN_S)
    probe = make_call()
    pick(replicas, probe)
    assert probe.flags == {Flag.COLD}
    replicas.close()


# Waiting.


def make_waiting(timeout_s: float = 60.0) -> Call:
    call = make_call()
    call.first_byte_timeout_s = timeout_s
    return call


async def begin_waiting(replicas: Replicas, call: Call) -> "asyncio.Task[Replica]":
    assert replicas.pick(SLEEPER, call) is None
    task = asyncio.ensure_future(replicas.wait(SLEEPER, call))
    await asyncio.sleep(0)
    return task


async def test_calls_wait_for_a_deployment_to_wake_up() -> None:
    clock, rung = ManualClock(), []
    replicas = make_replicas(clock=clock)
    replicas.on_wait = lambda: rung.append(clock.now_us())
    calls = [make_waiting() for _ in range(3)]
    tasks = [await begin_waiting(replicas, call) for call in calls]
    assert len(rung) == 3
    replicas.apply(make_targets(n=2))  # another deployment's news
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    clock.advance(1.2)
    replicas.apply(make_targets(7, n=3, ready_at_us=clock.now_us()))
    assert [(await task).target.port for task in tasks] == [7, 7, 7]
    assert [call.queue_us for call in calls] == [1_200_000] * 3
    assert [call.waited_s for call in calls] == [1.2] * 3
    assert all(call.flags == {Flag.COLD} for call in calls)
    assert not replicas.groups["dep_a"].waiting
    replicas.close()


async def test_whoever_is_gone_waits_no_more() -> None:
    replicas = make_replicas()
    task = await begin_waiting(replicas, make_waiting())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not replicas.groups["dep_a"].waiting
    assert make_waiting().queue_us == -1


@pytest.mark.parametrize("can_wake", [[], ["dep_other"]])
async def test_nobody_waits_for_what_cannot_be_had(can_wake: list[str]) -> None:
    never, awake = make_replicas(can_wake=can_wake), make_replicas()
    for replicas, arm in ((never, SLEEPER), (awake, make_arm("dep_a"))):
        with pytest.raises(PilotageError) as caught:
            replicas.pick(arm, make_call())
        assert caught.value.code == "no_replica"
    task = await begin_waiting(awake, make_waiting())
    awake.apply(make_targets(n=2, can_wake=can_wake))  # it crashes in a loop, or is undeployed
    with pytest.raises(PilotageError) as caught:
        await task
    assert (caught.value.code, caught.value.retry_after_s) == ("no_replica", 1.0)
    assert awake.groups == {}


async def test_anybody_is_waited_for_until_it_is_known_who_may_come() -> None:
    replicas = make_replicas(can_wake=None)
    task = await begin_waiting(replicas, make_waiting())
    replicas.apply(make_targets(7, n=2))
    assert (await task).target.port == 7
    replicas.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_replica_that_wakes_up_does_not_get_all_that_wait() -> None:
    replicas, given = make_replicas(), list[Replica]()

    async def begin() -> None:
        replica = await replicas.wait(SLEEPER, make_waiting())
        replica.enter()
        given.append(replica)

    tasks = [asyncio.ensure_future(begin()) for _ in range(10)]
    await settle()
    replicas.apply(make_targets(1, n=2, slots=3))
    await settle()
    assert [one.target.port for one in given] == [1] * 3
    replicas.apply(make_targets(1, 2, n=3, slots=3))
    await settle()
    assert Counter(one.target.port for one in given) == {1: 4, 2: 3}  # one more for who is full
    for number in range(3):
        given[number].leave()
        await settle()
        assert len(given) == 8 + number
    await asyncio.gather(*tasks)
    replicas.close()


async def test_who_goes_when_its_turn_has_come_leaves_it_to_the_next() -> None:
    replicas = make_replicas()
    tasks = [await begin_waiting(replicas, make_waiting()) for _ in range(3)]
    replicas.apply(make_targets(1, n=2, slots=1))
    tasks[0].cancel()
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    tasks[1].result().enter()
    tasks[1].result().leave()
    assert (await tasks[2]).target.port == 1
    replicas.close()


async def test_large_bodies_wait_in_small_numbers() -> None:
    replicas = make_replicas()
    large = make_waiting()
    large.body = bytes(MOST_WAITING_BYTES + 1)
    tasks = [await begin_waiting(replicas, large)]  # there is always room for one
    with pytest.raises(PilotageError) as caught:
        await replicas.wait(SLEEPER, make_waiting())
    assert (caught.value.code, caught.value.retry_after_s) == ("no_replica", 2.0)
    replicas.apply(make_targets(7, n=2))
    await asyncio.gather(*tasks)
    replicas.apply(make_targets(n=3))
    another = await begin_waiting(replicas, make_waiting())
    replicas.apply(make_targets(7, n=4))
    await another
    replicas.close()


async def test_a_waiting_call_has_the_time_of_an_attempt() -> None:
    replicas = make_replicas()
    with pytest.raises(PilotageError, match="did not wake up") as caught:
        await replicas.wait(SLEEPER, make_waiting(timeout_s=0.01))
    assert caught.value.code == "upstream_cold"
    assert not replicas.groups["dep_a"].waiting


async def test_who_waits_for_a_replica_that_is_full_is_not_told_that_it_sleeps() -> None:
    replicas = make_replicas()
    first = await begin_waiting(replicas, make_waiting())
    second = await begin_waiting(replicas, make_waiting(timeout_s=0.01))
    replicas.apply(make_targets(1, n=2, slots=1))
    (await first).enter()
    with pytest.raises(PilotageError, match="had no room") as caught:
        await second
    assert (caught.value.code, caught.value.retry_after_s) == ("no_replica", 1.0)
    replicas.close()


async def test_only_so_many_wait_and_others_are_told_to_come_again() -> None:
    replicas = make_replicas()
    tasks = [await begin_waiting(replicas, make_waiting()) for _ in range(MOST_WAITING)]
    with pytest.raises(PilotageError) as caught:
        await replicas.wait(SLEEPER, make_waiting())
    assert (caught.value.code, caught.value.retry_after_s) == ("no_replica", 2.0)
    replicas.apply(make_targets(7, n=2))
    await asyncio.gather(*tasks)
    replicas.close()


# Adapters.


@pytest.mark.parametrize(
    "said",
    [b'{"model":"chat"}', b'{"model":"chat","lora":[{"id":1,"scale":9}]}', b' {"model":"chat"} \n'],
)
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("sha_b", [{"id": 1, "scale": 1.0}]), ("", [{"id": 0, "scale": 0.0}])],
)
def test_the_arm_alone_says_which_adapter_a_call_gets(
    said: bytes, name: str, chosen: list[dict[str, float]]
) -> None:
    body = add_adapter(said, ("sha_a", "sha_b"), make_arm(adapter=name))
    assert msgspec.json.decode(body) == {"model": "chat", "lora": chosen}


def test_an_adapter_that_a_replica_does_not_have_is_not_replaced_by_its_base() -> None:
    for adapters in ((), ("sha_a",)):
        with pytest.raises(PilotageError) as caught:
            add_adapter(b"{}", adapters, make_arm(adapter="sha_gone"))
        assert caught.value.code == "no_replica"
    assert add_adapter(b'{"model":"chat"}', (), make_arm()) == b'{"model":"chat"}'
