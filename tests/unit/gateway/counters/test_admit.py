"""Admission: who is let through, what it takes, and what a refusal says."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from counted_limits import FaultyStore, drive, make_limit, open_limits
from gateway_harness import make_rates
from made_calls import make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.matching import Subject
from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.counters.slices import Slice
from pilotage.gateway.steps.admit import Admit, write_span
from pilotage.gateway.steps.record import bound_call
from pilotage.kit.clock import ManualClock

DEAR = make_alias(make_arm(rates=make_rates("1000", "1000")))  # a token is 1,000,000 nano-USD
CHEAP = make_alias(make_arm("dep_b", rates=make_rates("1", "1")), name="cheap")
TOKEN = 1_000_000
SHORT = '{"model":"chat","messages":[{"role":"user","content":"a"}],"max_tokens":10}'
LONG = SHORT.replace("10}", "200}")


class Gate:
    """The step and all that is behind it, for a set of limits."""

    def __init__(self, clock: ManualClock, folder: Path, *limits: LimitEntry) -> None:
        self.clock = clock
        self.store = FaultyStore(MemoryStore(clock))
        self.limits: Limits = open_limits(self.store, clock, folder)
        self.view = make_view(DEAR, CHEAP, limits=limits)
        self.passed: list[Call] = []
        self.during: Callable[[Call], None] = lambda call: None

    async def _follow(self, call: Call) -> Reply:
        call.seq = 1
        self.passed.append(call)
        self.during(call)
        return Reply(body=b"{}")

    def make(self, call_id: str = "call_1", body: str = "") -> Call:
        said = (body or SHORT).encode()
        call = make_call(DEAR, view=self.view, body=said, call_id=call_id)
        bound_call(call, DEAR)
        return call

    def run(self, work: Awaitable[Reply]) -> Awaitable[Reply]:
        return drive(work, self.clock, self.limits)

    async def admit(self, call: Call) -> None:
        """Let a call in and leave it open."""
        await self.run(Admit(self._follow, self.limits, self.clock)(call))

    async def spend(self, call: Call, usage: Usage) -> None:
        """Let a call in and have it end with a usage."""
        await self.admit(call)
        end(call, usage)

    def slice_of(self, limit_id: str) -> Slice:
        """Return the only slice of a limit."""
        (one,) = [one for one in self.limits.exchanger.slices.values() if one.limit.id == limit_id]
        return one


def end(call: Call, usage: Usage | None) -> None:
    call.is_sent = usage is not None
    call.usage = usage
    call.arm = DEAR.entry.arms[0]
    call.outcome = Outcome.OK if usage else Outcome.REFUSED
    call.undo(0)


@pytest.fixture
def make_gate(clock: ManualClock, tmp_path: Path) -> Callable[..., Gate]:
    return lambda *limits: Gate(clock, tmp_path / "spool", *limits)


async def refusal(work: Awaitable[None]) -> PilotageError:
    with pytest.raises(PilotageError) as caught:
        await work
    return caught.value


async def test_a_call_without_limits_takes_nothing(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(tenant_id="ten_other"))
    call = gate.make()
    await gate.admit(call)
    assert (call.counters, call.endings, call.head_lines) == ([], [], b"")
    assert gate.store.asked == []


async def test_the_worst_case_is_taken_and_the_truth_settled(
    make_gate: Callable[..., Gate],
) -> None:
    gate = make_gate(
        make_limit("lim_c", amount=10**9), make_limit("lim_t", measure="tokens", amount=10**6)
    )
    call = gate.make()
    await gate.admit(call)
    cost, tokens = gate.slice_of("lim_c"), gate.slice_of("lim_t")
    assert (cost.reserved, tokens.reserved) == (call.worst_nano, call.worst_tokens)
    assert call.counters == ["lim_c|cost|total", "lim_t|tokens|total"]
    usage = Usage(input=3, output=4)
    end(call, usage)
    assert (cost.reserved, tokens.reserved) == (0, 0)
    assert (cost.used, tokens.used) == (cost_nano(usage, DEAR.entry.arms[0].rates), 7)
    assert gate.limits.list_totals() == {"lim_c|cost|total": 7 * TOKEN, "lim_t|tokens|total": 7}


async def test_a_call_that_never_began_used_not_even_a_request(
    make_gate: Callable[..., Gate],
) -> None:
    gate = make_gate(make_limit(measure="requests", amount=5))
    call = gate.make()
    await gate.admit(call)
    call.seq = 0
    end(call, None)
    assert gate.slice_of("lim_1").used == 0


async def test_a_call_that_comes_to_more_than_it_took_closes_the_budget(
    make_gate: Callable[..., Gate],
) -> None:
    gate = make_gate(make_limit(amount=400 * TOKEN))
    await gate.spend(gate.make(), Usage(input=450))
    refused = await refusal(gate.admit(gate.make("call_2")))
    assert refused.code == "insufficient_quota"
    assert gate.slice_of("lim_1").used == 450 * TOKEN
    assert gate.store.store.books.counters["lim_1|cost|total"].used == 450 * TOKEN  # type: ignore[attr-defined]


async def test_a_budget_that_cannot_pay_shortens_the_answer(make_gate: Callable[..., Gate]) -> None:
    bound = make_call(DEAR, body=LONG.encode()).input_bound
    gate = make_gate(make_limit(amount=(bound + 100) * TOKEN))
    call = gate.make(body=LONG)
    await gate.admit(call)
    assert Flag.OUTPUT_CUT in call.flags
    assert call.output_limit == 100
    assert call.worst_nano == (bound + 100) * TOKEN == gate.slice_of("lim_1").reserved


@pytest.mark.parametrize(("left", "passes"), [(15, False), (16, True)])
async def test_less_than_a_short_answer_is_refused(
    make_gate: Callable[..., Gate], left: int, passes: bool
) -> None:
    bound = make_call(DEAR, body=LONG.encode()).input_bound
    gate = make_gate(make_limit(amount=(bound + left) * TOKEN, user="*"))
    call = gate.make(body=LONG)
    if passes:
        await gate.admit(call)
        assert call.output_limit == 16
    else:
        refused = await refusal(gate.admit(call))
        assert refused.code == "insufficient_quota"
        assert (call.counters, call.endings) == ([], [])
        assert gate.slice_of("lim_1").reserved == 0


async def test_all_or_none(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(
        make_limit("lim_a", amount=10**12),
        make_limit("lim_b", measure="requests", amount=1),
        make_limit("lim_c", measure="concurrency", amount=10),
    )
    await gate.admit(gate.make())
    refused = await refusal(gate.admit(gate.make("call_2")))
    assert refused.code == "insufficient_quota"
    assert "quota of 1 requests in all for the project" in refused.detail
    assert gate.slice_of("lim_c").reserved == 1
    assert gate.slice_of("lim_a").reserved == gate.passed[0].worst_nano


async def test_rates_say_when_to_come_again(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(measure="requests", amount=6, per="minute", key_id="*"))
    for number in range(6):
        await gate.admit(gate.make(f"call_{number}"))
    refused = await refusal(gate.admit(gate.make("call_7")))
    assert refused.code == "rate_limit_exceeded"
    assert refused.retry_after_s == pytest.approx(10, abs=0.5)
    assert "6 requests a minute for the API key" in refused.detail
    gate.clock.advance(refused.retry_after_s or 0)
    await gate.admit(gate.make("call_8"))


async def test_a_call_larger_than_its_rate_is_told_so(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(measure="tokens", amount=40, per="minute"))
    refused = await refusal(gate.admit(gate.make()))
    assert refused.code == "rate_limit_exceeded"
    assert refused.retry_after_s is None
    assert "more than the rate limit of 40 tokens a minute" in refused.detail


async def test_a_rate_gets_back_what_a_call_did_not_use(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(measure="tokens", amount=400, per="minute"))
    await gate.spend(gate.make(), Usage(input=5))
    await gate.spend(gate.make("call_2"), Usage(input=5))


async def test_calls_at_once(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(measure="concurrency", amount=2))
    first, second = gate.make("call_1"), gate.make("call_2")
    await gate.admit(first)
    await gate.admit(second)
    refused = await refusal(gate.admit(gate.make("call_3")))
    assert (refused.code, "2 calls at once" in refused.detail) == ("rate_limit_exceeded", True)
    assert refused.retry_after_s
    end(first, Usage(input=1))
    await gate.admit(gate.make("call_4"))
    assert gate.passed[-1].counters == []


async def test_a_limit_that_warns_lets_pass_and_counts_on(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(amount=60 * TOKEN, action="warn"))
    await gate.spend(gate.make(), Usage(input=60))
    over = gate.make("call_2")
    await gate.spend(over, Usage(input=60))
    assert over.flags == {Flag.LIMIT_WARNED}
    assert over.counters == ["lim_1|cost|total"]
    assert gate.slice_of("lim_1").used == 120 * TOKEN


async def test_a_budget_moves_calls_to_a_cheaper_model(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(make_limit(amount=TOKEN, action="downgrade", downgrade_to="cheap"))
    call = gate.make()
    await gate.admit(call)
    assert (call.alias, call.alias_name, call.flags) == (CHEAP, "cheap", {Flag.DOWNGRADED})
    assert call.worst_nano == gate.slice_of("lim_1").reserved < TOKEN


@pytest.mark.parametrize("target", ["cheap", "gone"])
async def test_a_downgrade_that_cannot_pay_either_is_a_refusal(
    make_gate: Callable[..., Gate], target: str
) -> None:
    gate = make_gate(make_limit(amount=10, action="downgrade", downgrade_to=target))
    refused = await refusal(gate.admit(gate.make()))
    assert refused.code == "insufficient_quota"


@pytest.mark.parametrize("declared", ["closed", "open"])
async def test_a_store_that_is_away(make_gate: Callable[..., Gate], declared: str) -> None:
    gate = make_gate(make_limit(amount=10**9, on_store_loss=declared))
    gate.store.is_down = True
    call = gate.make()
    if declared == "open":
        await gate.spend(call, Usage(input=2))
        assert call.flags == {Flag.LIMIT_UNKNOWN}
        assert gate.slice_of("lim_1").used == 2 * TOKEN
    else:
        refused = await refusal(gate.admit(call))
        assert (refused.code, refused.retry_after_s) == ("limits_unavailable", 1.0)
        asked = len(gate.store.asked)
        with pytest.raises(PilotageError):
            await Admit(gate._follow, gate.limits, gate.clock)(gate.make("call_2"))
        assert len(gate.store.asked) == asked  # known to be away: nobody waits


async def test_what_was_leased_serves_while_the_store_is_away(
    make_gate: Callable[..., Gate],
) -> None:
    gate = make_gate(make_limit(amount=10**12))
    await gate.spend(gate.make(), Usage(input=2))
    gate.clock.advance(0.2)
    await gate.limits.exchanger.turn()  # a stock for a few calls more
    await gate.limits.exchanger.turn()
    gate.store.is_down = True
    served = 0
    with pytest.raises(PilotageError, match="cannot be checked"):
        while served < 100:
            await gate.spend(gate.make(f"call_{served}"), Usage(input=340, output=9))
            served += 1
    assert 3 <= served <= 8
    gate.store.is_down = False
    gate.clock.advance(2)
    await gate.limits.exchanger.turn()
    await gate.admit(gate.make("call_back"))


async def test_a_second_attempt_takes_more_or_is_not_made(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(
        make_limit("lim_c", amount=10**12), make_limit("lim_t", measure="tokens", amount=10**6)
    )
    await gate.spend(gate.make("call_0"), Usage(input=1))
    gate.clock.advance(0.2)
    await gate.limits.exchanger.turn()
    call = gate.make()
    await gate.admit(call)
    assert call.widen(5, 7)
    assert gate.slice_of("lim_c").reserved == call.worst_nano + 5
    assert gate.slice_of("lim_t").reserved == call.worst_tokens + 7
    assert not call.widen(10**11, 7)
    assert gate.slice_of("lim_t").reserved == call.worst_tokens + 7
    end(call, Usage(input=1))
    assert gate.slice_of("lim_c").reserved == gate.slice_of("lim_t").reserved == 0
    assert gate.slice_of("lim_c").calls == 0


async def test_replies_tell_of_the_tightest_limits(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(
        make_limit("lim_1", measure="requests", amount=100, per="minute"),
        make_limit("lim_2", measure="requests", amount=10, per="day"),
        make_limit("lim_3", measure="tokens", amount=600, per="minute"),
        make_limit("lim_4", amount=10**12),
    )
    call = gate.make()
    await gate.admit(call)
    lines = dict(line.split(b": ") for line in call.head_lines.split(b"\r\n") if line)
    assert lines[b"x-ratelimit-limit-requests"] == b"10"
    assert lines[b"x-ratelimit-remaining-requests"] == b"9"
    assert lines[b"x-ratelimit-reset-requests"].endswith(b"s")
    assert lines[b"x-ratelimit-limit-tokens"] == b"600"
    assert lines[b"x-ratelimit-remaining-tokens"] == b"%d" % (600 - call.worst_tokens)
    assert lines[b"x-ratelimit-reset-tokens"] == write_span(call.worst_tokens / 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.012, b"12ms"), (1, b"1s"), (59.6, b"1m0s"), (360, b"6m0s"), (7325, b"2h2m5s")],
)
def test_spans_are_written_as_openai_does(seconds: float, text: bytes) -> None:
    assert write_span(seconds) == text


async def test_how_far_limits_are_used(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate(
        make_limit("lim_c", amount=10**9),
        make_limit("lim_r", measure="requests", amount=10, per="day"),
    )
    await gate.spend(gate.make("call_0"), Usage(input=3))
    call = gate.make()
    await gate.admit(call)
    subject = Subject("prj_1", "ten_1", "key_1", "chat", "")
    uses = await drive(gate.limits.list_uses(gate.view, subject, "UTC"), gate.clock, gate.limits)
    by_id = {use.limit_id: use for use in uses}
    cost, requests = by_id["lim_c"], by_id["lim_r"]
    assert (cost.used, cost.reserved) == (3 * TOKEN, call.worst_nano)
    assert cost.remaining == 10**9 - 3 * TOKEN - call.worst_nano
    assert (requests.used, requests.reserved, requests.remaining) == (1, 1, 8)
    assert (cost.ends_at_us, cost.is_current) == (0, True)
    assert requests.ends_at_us == 1_700_006_400_000_000
