"""The shadow step: copies are calls of their own, never in the way, within bounds and regions."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from counted_limits import FaultyStore, open_limits
from gateway_harness import make_rates, until
from made_calls import BODY, PROJECT, make_alias, make_arm, make_call
from pilotage.core.comparison import ALIKE, USABLE
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Compared, Flag, Outcome, decode_frame
from pilotage.core.snapshot import FULL_WEIGHT, RouteRule, Routing, TenantEntry
from pilotage.core.snapshot import Shadow as ShadowRule
from pilotage.core.usage import Rates, Usage, cost_nano
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.counters.away import AwayStore
from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.measures.pairs import Comparisons
from pilotage.gateway.ports import CounterStore
from pilotage.gateway.snapshots import AliasView
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.steps.shadow import Shadow
from pilotage.kit.clock import ManualClock
from pilotage.kit.resources import Background
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import read_records

RICH = 10**12
DEAR = make_rates("5.00", "15.00")
STREAM = BODY[:-1] + b',"stream":true}'


class Rig:
    """A shadow step, the calls it counts as running, and a copy's model that can be held back."""

    def __init__(
        self,
        background: Background | None,
        spool: SpoolWriter,
        store: CounterStore | None = None,
        *,
        clock: ManualClock | None = None,
        totals: dict[str, int] | None = None,
    ) -> None:
        self.background = background
        self.is_draining = False
        self.running: set[Call] = set()
        self.copies: list[Call] = []
        self.fails: Exception | None = None
        self.parts = [b"one", b"two"]
        self.go = asyncio.Event()
        self.go.set()
        self.clock = clock or ManualClock()
        self.said, self.copied = b"primary", b"copy"
        self.comparisons = Comparisons(spool, self.clock)
        store = store or MemoryStore(self.clock)
        owner = f"{spool.folder.name}:e1"
        self.limits = open_limits(store, self.clock, spool.folder, owner=owner, totals=totals)
        self.step = Shadow(
            self.answer,
            self.answer_copy,
            self,
            limits=self.limits,
            clock=self.clock,
            comparisons=self.comparisons,
        )
        if background is not None:
            background.start(self.limits.run(), "counters")

    def enter(self, call: Call) -> None:
        self.running.add(call)

    def leave(self, call: Call) -> None:
        self.running.discard(call)

    async def answer(self, call: Call) -> Reply:
        call.arm = make_arm()
        return Reply(body=self.said)

    async def answer_copy(self, call: Call) -> Reply:
        self.copies.append(call)
        if call.alias is not None:
            bound_call(call, call.alias)
        call.seq = len(self.copies)  # as if it were on record
        await self.go.wait()
        if self.fails is not None:
            raise self.fails
        call.usage = Usage(input=1, output=2)
        call.note_sent()
        return Reply(stream=self) if call.request.stream else Reply(body=self.copied)

    async def read(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""

    async def ask(self, alias: AliasView, **more: Any) -> Call:  # noqa: ANN401
        call = make_call(alias, **more)
        async with call:
            reply = await self.step(call)
            assert reply.body == self.said
        return call

    async def rest(self) -> None:
        await until(lambda: not self.step.bounds.running, "the copies to end")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with open_spool(tmp_path, segment_bytes=1 << 20, reserve_bytes=0, sync="none") as spool:
        async with Background() as background:
            yield Rig(background, spool)


def list_compared(folder: Path) -> list[Compared]:
    frames = [decode_frame(payload) for _, payload in read_records(folder, 0, 10_000)]
    return [frame for frame in frames if isinstance(frame, Compared)]


def make_shadowed(
    share: int = FULL_WEIGHT,
    concurrency: int = 4,
    daily_nano: int = RICH,
    rates: Rates = DEAR,
    **more: object,
) -> AliasView:
    shadow = ShadowRule(arm="dep_s", share=share, concurrency=concurrency, daily_nano=daily_nano)
    arm = make_arm("dep_s", 0, rates=rates)
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
    assert (copy.key_id, copy.user, copy.idempotency_key) == ("", "", "")
    assert copy.counters == [f"shadow:{PROJECT}:chat|cost|2023-11-14"]
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
    await rig.rest()
    assert 180 < rig.step.bounds.counts["begun"] < 320
    assert len({copy.shadow_of for copy in rig.copies}) == rig.step.bounds.counts["begun"]


async def test_what_finds_no_place_is_dropped(rig: Rig) -> None:
    rig.go.clear()
    for n in range(5):
        await rig.ask(make_shadowed(concurrency=2), call_id=f"call_{n}")
    counts = rig.step.bounds.counts
    await until(lambda: counts["begun"] == 2, "two copies")
    assert counts["busy"] == 3
    rig.go.set()
    await rest_compared(rig)
    await rig.ask(make_shadowed(concurrency=2), call_id="call_9")
    await until(lambda: counts["begun"] == 3, "another copy")


async def test_a_copy_keeps_its_place_while_its_answer_waits_for_the_calls_own(rig: Rig) -> None:
    alias, counts = make_shadowed(concurrency=1), rig.step.bounds.counts
    call = make_call(alias, call_id="call_1")
    async with call:
        await rig.step(call)
        await until(lambda: bool(rig.copies) and not rig.running, "the copy to end")
        await rig.ask(alias, call_id="call_2")
        assert (counts["begun"], counts["busy"]) == (1, 1)
    await rest_compared(rig)
    await rig.ask(alias, call_id="call_3")
    await until(lambda: counts["begun"] == 2, "another copy")


async def find_prices(rig: Rig) -> tuple[int, int]:
    """Return what a copy costs at worst, and in fact."""
    await rig.ask(make_shadowed(name="other"))
    await rig.rest()
    copy = rig.copies.pop()
    worst_nano, cost = copy.worst_nano, bill_call(copy).cost_nano
    assert 0 < cost < worst_nano
    return worst_nano, cost


async def test_copies_stop_at_the_days_money_and_go_on_tomorrow(rig: Rig) -> None:
    worst_nano, cost = await find_prices(rig)
    alias = make_shadowed(daily_nano=worst_nano + 2 * cost)
    for n in range(5):  # each is settled at its cost
        await rig.ask(alias, call_id=f"call_{n}")
        await rig.rest()
    assert (len(rig.copies), rig.step.bounds.counts["budget"]) == (3, 2)
    rig.clock.advance(86_400)
    await rig.ask(alias, call_id="call_9")
    await until(lambda: len(rig.copies) == 4, "another copy")


async def test_nobody_waits_for_money_that_is_spent(tmp_path: Path) -> None:
    async with Background() as background:
        with open_spool(tmp_path, segment_bytes=1 << 20, reserve_bytes=0, sync="none") as spool:
            store = FaultyStore(MemoryStore(ManualClock()))
            rig = Rig(background, spool, store)
            worst_nano, _ = await find_prices(rig)
            alias = make_shadowed(daily_nano=worst_nano)
            await rig.ask(alias)
            await rig.rest()
            store.asked.clear()
            await rig.ask(alias, call_id="call_2")
            await rig.rest()
            counts = rig.step.bounds.counts
            assert (len(rig.copies), counts["budget"], store.asked) == (1, 1, [])


async def test_the_days_money_is_one_for_all_processes_and_over_restarts(tmp_path: Path) -> None:
    clock = ManualClock()

    async def rest(rig: Rig) -> int:
        """Let time go on until the copies have ended; return how many were too dear."""

        def has_rested() -> bool:
            clock.advance(0.02)
            return not rig.step.bounds.running

        await until(has_rested, "the copies to end")
        return rig.step.bounds.counts["budget"]

    async with AsyncExitStack() as stack:
        background = await stack.enter_async_context(Background())

        def start(name: str, store: CounterStore, totals: dict[str, int] | None = None) -> Rig:
            spool = open_spool(tmp_path / name, segment_bytes=1 << 20, reserve_bytes=0, sync="none")
            stack.callback(spool.close)
            return Rig(background, spool, store, clock=clock, totals=totals)

        store = FaultyStore(MemoryStore(clock))
        one, other = start("one", store), start("other", store)
        worst_nano, cost = await find_prices(one)
        alias = make_shadowed(daily_nano=worst_nano + cost)
        refused = []
        for rig in (one, other, one, other):
            await rig.ask(alias)
            refused.append(await rest(rig))
        assert (len(one.copies), len(other.copies), refused) == (1, 1, [0, 0, 1, 1])

        again = start("again", MemoryStore(clock), one.limits.list_totals())
        for _ in range(2):
            await again.ask(alias)
            await rest(again)
        assert (len(again.copies), again.step.bounds.counts["budget"]) == (1, 1)


async def test_where_nobody_can_count_only_free_copies_are_made(tmp_path: Path) -> None:
    async with Background() as background:
        with open_spool(tmp_path, segment_bytes=1 << 20, reserve_bytes=0, sync="none") as spool:
            rig = Rig(background, spool, AwayStore())
            await until(lambda: rig.limits.exchanger.is_away, "that it is known to be away")
            await rig.ask(make_shadowed())
            await rig.rest()
            assert (rig.copies, rig.step.bounds.counts["budget"]) == ([], 1)
            free = make_shadowed(daily_nano=0, rates=make_rates("0", "0"))
            await rig.ask(free, call_id="call_2")
            await rig.rest()
            assert len(rig.copies) == 1


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
    await until(lambda: not rig.step.bounds.running, "its place")
    assert rig.step.bounds.counts["closed"] == 1
    rig.is_draining = False
    await rig.ask(alias, call_id="call_2")
    await until(lambda: bool(rig.copies), "a copy")
    assert [copy.shadow_of for copy in rig.copies] == ["call_2"]


async def test_a_copy_ends_with_its_owner(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=1 << 20, reserve_bytes=0, sync="none")
    async with Background() as background:
        rig = Rig(background, spool)
        rig.go.clear()
        await rig.ask(make_shadowed())
        await until(lambda: bool(rig.copies), "the copy")
    spool.close()
    assert rig.running == set()
    assert rig.copies[0].outcome is Outcome.CANCELLED


def say(text: str) -> bytes:
    return b'{"choices":[{"message":{"content":%b}}]}' % json.dumps(text).encode()


async def rest_compared(rig: Rig) -> None:
    await rig.rest()
    counts = rig.comparisons.counts
    await until(lambda: sum(counts.values()) == len(rig.copies), "the answers to be compared")


async def test_both_answers_are_compared_and_no_word_of_them_is_kept(
    rig: Rig, tmp_path: Path
) -> None:
    rig.said, rig.copied = say("Paid on the third of May."), say("Paid on the fifth of May.")
    call = await rig.ask(make_shadowed(rollout="ro_1/0"))
    await rest_compared(rig)
    [found], [copy] = list_compared(tmp_path), rig.copies
    assert (found.call_id, found.copy_id, found.rollout) == (call.id, copy.id, "ro_1/0")
    assert (found.baseline, found.candidate) == ("dep_a", "dep_s")
    assert (found.is_exact, found.is_schema_kept) == (False, -1)
    assert (found.baseline_letters, found.candidate_letters) == (25, 25)
    assert (found.baseline_mark, found.candidate_mark) == (USABLE, USABLE)
    assert ALIKE // 2 < found.similarity < ALIKE
    assert found.candidate_nano == bill_call(copy).cost_nano > 0
    assert b"third" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_a_copy_that_says_the_same_is_exact_and_one_in_json_keeps_its_schema(
    rig: Rig, tmp_path: Path
) -> None:
    body = BODY[:-1] + b',"response_format":{"type":"json_object"}}'
    rig.said = rig.copied = say('{"total": 3}')
    await rig.ask(make_shadowed(), body=body)
    await rest_compared(rig)
    rig.copied = say("The total is 3.")
    await rig.ask(make_shadowed(), body=body)
    await rest_compared(rig)
    same, other = list_compared(tmp_path)
    assert (same.is_exact, same.is_schema_kept, same.candidate_mark) == (True, 1, USABLE)
    assert (other.is_exact, other.is_schema_kept, other.candidate_mark) == (False, 0, 0)


@pytest.mark.parametrize("code", ["upstream_error", "context_length_exceeded"])
async def test_a_copy_that_fails_or_is_refused_has_the_worst_mark(
    rig: Rig, tmp_path: Path, code: str
) -> None:
    rig.said = say("Paid.")
    rig.fails = PilotageError(code)
    await rig.ask(make_shadowed())
    await rest_compared(rig)
    [found] = list_compared(tmp_path)
    assert (found.baseline_mark, found.candidate_mark, found.similarity) == (USABLE, 0, -1)


async def test_a_cold_replica_says_nothing_of_its_model(rig: Rig, tmp_path: Path) -> None:
    rig.go.clear()
    await rig.ask(make_shadowed())
    await until(lambda: bool(rig.copies), "the copy to begin")
    rig.copies[0].flags.add(Flag.COLD)
    rig.go.set()
    await rest_compared(rig)
    assert list_compared(tmp_path) == []
    assert rig.comparisons.counts["untold"] == 1


async def test_a_full_disk_loses_comparisons_and_no_call(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SpoolWriter, payload: bytes) -> int:
        raise PilotageError("spool_full")

    monkeypatch.setattr(SpoolWriter, "append", refuse)
    call = await rig.ask(make_shadowed())
    await rest_compared(rig)
    assert (call.outcome, rig.comparisons.counts["dropped"]) == (Outcome.OK, 1)
