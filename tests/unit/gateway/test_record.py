"""What a call costs when nobody, or a liar, says what it used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_harness import make_rates
from made_calls import BODY, make_call
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import FULL_WEIGHT, AliasEntry, ArmEntry
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.bill import settle_usage
from pilotage.gateway.snapshots import AliasView


async def test_what_the_model_said_counts() -> None:
    call = make_call()
    call.is_sent, call.usage, call.outcome = True, Usage(7, 0, 0, 3), Outcome.UPSTREAM_CUT
    assert settle_usage(call) == (Usage(7, 0, 0, 3), False)


@pytest.mark.parametrize(
    ("is_sent", "outcome", "chunks", "is_free"),
    [
        (False, Outcome.REFUSED, 0, True),
        (False, Outcome.CLIENT_GONE, 0, True),
        (False, Outcome.DEADLINE, 0, True),
        (True, Outcome.REFUSED, 0, True),
        (True, Outcome.UPSTREAM_ERROR, 0, True),
        (True, Outcome.UPSTREAM_ERROR, 1, False),
        (True, Outcome.UPSTREAM_CUT, 0, False),
        (True, Outcome.CLIENT_GONE, 0, False),
        (True, Outcome.DEADLINE, 0, False),
        (True, Outcome.OK, 0, False),
    ],
)
async def test_only_a_call_that_no_model_worked_on_is_free(
    is_sent: bool, outcome: Outcome, chunks: int, is_free: bool
) -> None:
    call = make_call()
    call.is_sent, call.outcome, call.chunks = is_sent, outcome, chunks
    expected = Usage() if is_free else Usage(input=len(BODY) // 4, output=chunks)
    assert settle_usage(call) == (expected, not is_free)


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
