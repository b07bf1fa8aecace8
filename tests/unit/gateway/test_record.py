"""What a call costs when nobody, or a liar, says what it used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_harness import make_rates
from made_calls import BODY, make_arm, make_call
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import FULL_WEIGHT, AliasEntry, ArmEntry
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.bill import abandon_attempt, settle_usage
from pilotage.gateway.snapshots import AliasView


async def test_what_the_model_said_counts() -> None:
    call = make_call()
    call.is_sent, call.usage, call.outcome = True, Usage(7, 0, 0, 3), Outcome.UPSTREAM_CUT
    assert settle_usage(call) == (Usage(7, 0, 0, 3), False)


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize(
    ("is_sent", "status", "chunks", "is_free"),
    [
        (False, 0, 0, True),
        (True, 301, 0, True),
        (True, 400, 0, True),
        (True, 429, 0, True),
        (True, 503, 0, True),
        (True, 503, 1, False),
        (True, 0, 0, False),  # no answer: it may work on it still
        (True, 200, 0, False),  # garbage, or an answer that broke off before its content
        (True, 200, 3, False),
        (True, 204, 0, False),
    ],
)
async def test_only_an_attempt_that_no_model_can_have_worked_on_is_free(
    is_sent: bool, status: int, chunks: int, is_free: bool, outcome: Outcome
) -> None:
    call = make_call()
    call.is_sent, call.status, call.chunks, call.outcome = is_sent, status, chunks, outcome
    call.arm = make_arm()
    usage = Usage() if is_free else Usage(input=len(BODY) // 4, output=chunks)
    assert settle_usage(call) == (usage, not is_free)
    abandon_attempt(call)
    assert (call.spent_usage, call.spent_nano) == (usage, cost_nano(usage, call.arm.rates))
    assert settle_usage(call) == (Usage(), False)


async def test_an_answer_without_usage_is_estimated_by_its_size() -> None:
    call = make_call()
    call.is_sent, call.answer_bytes = True, 4000
    assert settle_usage(call) == (Usage(input=len(BODY) // 4, output=1000), True)
    call.chunks, call.answer_bytes = 5, 0
    assert settle_usage(call) == (Usage(input=len(BODY) // 4, output=5), True)


amounts = st.integers(0, 10**7)


@given(st.lists(st.tuples(st.integers(0, FULL_WEIGHT), amounts, amounts), min_size=1, max_size=5))
def test_the_worst_case_is_at_least_every_cost_within_the_bounds(
    arms: list[tuple[int, int, int]],
) -> None:
    entries = [
        ArmEntry(
            id=f"dep_{n}",
            weight=weight,
            version_id="v",
            model="m",
            context_tokens=1,
            rates=make_rates(str(read / 1000), str(written / 1000)),
        )
        for n, (weight, read, written) in enumerate(arms)
    ]
    alias = AliasEntry(
        project_id="p", name="a", created_at_us=0, salt="s", max_output_tokens=9, arms=entries
    )
    worst_nano = AliasView(alias).worst_nano(1000, 50)
    reachable = [arm for arm in entries if arm.weight] or entries
    costs = [cost_nano(Usage(input=1000, output=50), arm.rates) for arm in reachable]
    assert (
        max(costs)
        <= worst_nano
        <= max(
            cost_nano(Usage(input=1000), a.rates) + cost_nano(Usage(output=50), b.rates)
            for a in reachable
            for b in reachable
        )
        + 1
    )
