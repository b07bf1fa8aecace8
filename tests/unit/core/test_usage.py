"""Usage and its cost against Decimal."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.usage import PER_TOKENS, Rates, Usage, cost_nano, worst_cost_nano

TOKENS = st.integers(0, 10**9)
RATE_NANO = st.integers(0, 10**15)
USAGES = st.builds(Usage, *[TOKENS] * 5)
RATES = st.builds(
    Rates,
    price_id=st.just("prc_1"),
    input=RATE_NANO,
    output=RATE_NANO,
    cache_read=RATE_NANO,
    cache_write=RATE_NANO,
    reasoning=RATE_NANO,
)


@given(USAGES, RATES)
def test_the_cost_is_the_exact_sum_rounded_once(usage: Usage, rates: Rates) -> None:
    with localcontext() as context:
        context.prec = 100
        exact = sum(
            Decimal(getattr(usage, name)) * Decimal(getattr(rates, name)) / PER_TOKENS
            for name in ("input", "cache_read", "cache_write", "output", "reasoning")
        )
        expected = int(Decimal(exact).quantize(Decimal(1), ROUND_HALF_EVEN))

    assert cost_nano(usage, rates) == expected


@given(USAGES, RATES)
def test_no_call_within_its_bounds_costs_more_than_its_worst_case(
    usage: Usage, rates: Rates
) -> None:
    worst = worst_cost_nano(
        usage.prompt_tokens, usage.completion_tokens, rates.dearest_input, rates.dearest_output
    )

    assert cost_nano(usage, rates) <= worst


@given(TOKENS, TOKENS, RATE_NANO, RATE_NANO)
def test_the_worst_case_is_rounded_up_by_less_than_one(
    read: int, written: int, input_rate: int, output_rate: int
) -> None:
    exact = read * input_rate + written * output_rate
    worst = worst_cost_nano(read, written, input_rate, output_rate)

    assert 0 <= worst * PER_TOKENS - exact < PER_TOKENS


@given(USAGES, USAGES)
def test_usages_add_class_by_class(one: Usage, other: Usage) -> None:
    total = one.plus(other)

    assert total.total == one.total + other.total
    assert total.prompt_tokens == total.input + total.cache_read + total.cache_write
    assert total.completion_tokens == total.output + total.reasoning
    assert total.plus(Usage()) == total
    assert other.plus(one) == total


def test_the_dearest_rates_are_those_of_any_class() -> None:
    rates = Rates(price_id="p", input=1, output=4, cache_read=3, cache_write=2, reasoning=5)

    assert (rates.dearest_input, rates.dearest_output) == (3, 5)
