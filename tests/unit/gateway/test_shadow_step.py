"""The shadow step: copies are calls of their own, never in the way, within bounds and regions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway_harness import make_rates, until
from made_calls import BODY, PROJECT, make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import FULL_WEIGHT, RouteRule, Routing, TenantEntry
from pilotage.core.snapshot import Shadow as ShadowRule
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.snapshots import AliasView
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.steps.shadow import Shadow
from pilotage.kit.clock import ManualClock
from pilotage.kit.resources import Background

RICH = 10**12
STREAM = BODY[:-1] + b',"stream":true}'


class Rig:
    """A shadow step, the calls it counts as running, and a copy's model that can be held back."""

    def __init__(self, background: Background | None) -> None:
        self.background = background
        self.is_draining = False
        self.running: set[Call] = set()
        self.copies: list[Call] = []
        self.fails: Exception | None = None
        self.parts = [b"one", b"two"]
        self.go = asyncio.Event()
        self.go.set()
        self.clock = ManualClock()
        self.step = Shadow(self.answer, self.answer_copy, self, self.clock)

    def enter(self, call: Call) -> None:
        self.running.add(call)

    def leave(self, call: Call) -> None:
        self.running.discard(call)

    async def answer(self, call: Call) -> Reply:
        return Reply(body=b"primary")

    async def answer_copy(self, call: Call) -> Reply:
        self.copies.append(call)
        if call.alias is not None:
            bound_call(call, call.alias)
        await self.go.wait()
        if self.fails is not None:
            raise self.fails
        call.usage = Usage(input=1, output=2)
        call.note_sent()
        return Reply(stream=self) if call.request.stream else Reply(body=b"copy")

    async def read(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""

    async def ask(self, alias: AliasView, **more: Any) -> Call:  # noqa: ANN401
        call = make_call(alias, **more)
        async with call:
            reply = await self.step(call)
            assert reply.body == b"primary"
        return call

    async def rest(self) -> None:
        begun = self.step.bounds.counts["begun"]
        await until(lambda: not self.running and len(self.copies) == begun, "the copies to end")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Background() as background:
        yield Rig(background)


def make_shadowed(
    share: int = FULL_WEIGHT, concurrency: int = 4, daily_nano: int = RICH, **more: object
) -> AliasView:
    shadow = ShadowRule(arm="dep_s", share=share, concurrency=concurrency, daily_nano=daily_nano)
    arm = make_arm("dep_s", 0, rates=make_rates("5.00", "15.00"))
    return make_alias(make_arm(), arm, routing=Routing(shadow=shadow), **more)


async def test_a_copy_is_a_call_of_its_own(rig: Rig) -> None:
    tenant = TenantEntry(id="ten_1", name="acme", project_id=PROJECT, data_class="internal")
    call = await rig.ask(
        make_shadowed(), tenant=tenant, purpose="audit", user="ann", deadline_s=40.0
    )
    await rig.rest()
    [copy] = rig.copies
    assert (copy.id != call.id, copy.shadow_of, copy.flags) == (True, call.id, {Flag.SHADOW})
    assert (copy.tenant.id, copy.tenant.project_id, copy.tenant.data_class) == (
        "shadow",
        PROJECT,
        "internal",
    )
    assert (copy.key_id, copy.user, copy.idempotency_key, copy.counters) == ("", "", "", [])
    assert (copy.body, copy.purpose, copy.alias_name) == (call.body, "audit", "chat")
    assert copy.arm is not None
    assert (copy.arm.id, [arm.id for arm in copy.plan]) == ("dep_s", ["dep_s"])
    assert copy.deadline_s == 40.0
    assert copy.outcome is Outcome.OK


async def test_its_worst_case_is_that_of_its_own_arm(rig: Rig) -> None:
    await rig.ask(make_shadowed())
    await rig.rest()
    [copy] = rig.copies
    assert copy.arm is not None
    assert bill_call(copy).cost_nano == cost_nano(Usage(input=1, output=2), copy.arm.rates)
    most = Usage(input=copy.input_bound, output=256)
    assert cost_nano(most, copy.arm.rates) == copy.worst_nano


async def test_the_call_is_answered_while_its_copy_hangs(rig: Rig) -> None:
    rig.go.clear()
    for n in range(3):
        await rig.ask(make_shadowed(), call_id=f"call_{n}")
    await until(lambda: len(rig.copies) == 3, "the copies")
    assert len(rig.running) == 3
    rig.go.set()
    await rig.rest()


async def test_a_copied_stream_is_read_to_its_end(rig: Rig) -> None:
    await rig.ask(make_shadowed(), body=STREAM)
    await rig.rest()
    assert rig.parts == []


@pytest.mark.parametrize("fails", [PilotageError("upstream_error"), RuntimeError("a bug")])
async def test_a_copy_that_fails_harms_nobody(rig: Rig, fails: Exception) -> None:
    rig.fails = fails
    assert (await rig.ask(make_shadowed())).outcome is Outcome.OK
    await rig.rest()
    assert rig.copies[0].outcome in (Outcome.UPSTREAM_ERROR, Outcome.INTERNAL_ERROR)
    rig.fails = None
    await rig.ask(make_shadowed(), call_id="call_2")
    await until(lambda: len(rig.copies) == 2, "another copy")


async def test_only_a_share_is_copied(rig: Rig) -> None:
    alias = make_shadowed(share=2500, concurrency=10_000)
    for n in range(1000):
        await rig.ask(alias, call_id=f"call_{n}")
    assert 180 < rig.step.bounds.counts["begun"] < 320
    await rig.rest()
    assert len({copy.shadow_of for copy in rig.copies}) == rig.step.bounds.counts["begun"]


async def test_what_finds_no_place_is_dropped(rig: Rig) -> None:
    rig.go.clear()
    for n in range(5):
        await rig.ask(make_shadowed(concurrency=2), call_id=f"call_{n}")
    counts = rig.step.bounds.counts
    assert (counts["begun"], counts["busy"]) == (2, 3)
    rig.go.set()
    await rig.rest()
    await rig.ask(make_shadowed(concurrency=2), call_id="call_9")
    assert counts["begun"] == 3


async def test_copies_stop_at_the_days_money_and_go_on_tomorrow(rig: Rig) -> None:
    first = make_shadowed()
    await rig.ask(first)
    await rig.rest()
    worst_nano, cost = rig.copies[0].worst_nano, bill_call(rig.copies[0]).cost_nano
    assert 0 < cost < worst_nano
    alias = make_shadowed(daily_nano=worst_nano + 2 * cost)
    for n in range(5):  # the first one was settled at its cost
        await rig.ask(alias, call_id=f"call_{n}")
        await rig.rest()
    counts = rig.step.bounds.counts
    assert (counts["begun"], counts["budget"]) == (3, 3)
    rig.clock.advance(86_400)
    await rig.ask(alias, call_id="call_9")
    assert counts["begun"] == 4


@pytest.mark.parametrize("where", ["tenant", "alias", "rule"])
async def test_no_copy_leaves_the_regions_or_a_rule(rig: Rig, where: str) -> None:
    arms = [make_arm(), make_arm("dep_s", 0, upstream_id="upm_1", location="us")]
    shadow = ShadowRule(arm="dep_s", share=FULL_WEIGHT, daily_nano=RICH)
    rules = [RouteRule(arms=["dep_a"], purposes=["audit"])] if where == "rule" else []
    alias = make_alias(
        *arms,
        routing=Routing(shadow=shadow, rules=rules),
        regions=["eu", "local"] if where == "alias" else [],
    )
    regions = ["eu", "local"] if where == "tenant" else []
    tenant = TenantEntry(id="ten_1", name="acme", project_id=PROJECT, regions=regions)
    await rig.ask(alias, tenant=tenant, purpose="audit")
    assert rig.step.bounds.counts["not_allowed"] == 1
    assert rig.step.bounds.counts["begun"] == 0


async def test_nothing_is_copied_without_an_owner_or_while_draining(rig: Rig) -> None:
    rig.is_draining = True
    await rig.ask(make_shadowed())
    rig.is_draining, rig.background = False, None
    await rig.ask(make_shadowed())
    assert rig.step.bounds.counts["closed"] == 2
    assert rig.copies == []


async def test_a_drain_that_comes_before_the_copy_began_frees_its_place(rig: Rig) -> None:
    alias = make_shadowed(concurrency=1)
    call = make_call(alias)
    async with call:
        await rig.step(call)
        rig.is_draining = True  # the copy's task has not run yet
    await asyncio.sleep(0)
    rig.is_draining = False
    await rig.ask(alias, call_id="call_2")
    await until(lambda: bool(rig.copies), "a copy")
    assert [copy.shadow_of for copy in rig.copies] == ["call_2"]


async def test_a_copy_ends_with_its_owner() -> None:
    async with Background() as background:
        rig = Rig(background)
        rig.go.clear()
        await rig.ask(make_shadowed())
        await until(lambda: bool(rig.copies), "the copy")
    assert rig.running == set()
    assert rig.copies[0].outcome is Outcome.CANCELLED
