"""The offline price list: our rates charge what the list's own arithmetic does, to the nano-USD."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from pilotage.core.money import divide_half_even
from pilotage.core.usage import Rates, Tier, Usage, cost_nano
from pilotage.finops.catalogue import PROVIDERS, PriceList, Steps, check_calendar, make_listed_price

NOW_US = 1_795_000_000_000_000  # November 2026
TOKENS = (0, 1, 7, 999, 100_000, 128_001, 200_000, 200_001, 272_001, 1_000_000)


@pytest.fixture(scope="module")
def price_list() -> PriceList:
    loaded = PriceList()
    loaded.load()
    return loaded


def list_models(price_list: PriceList) -> list[tuple[str, str, Rates]]:
    """Return every model of our providers that has a price: provider, name, rates."""
    priced = []
    for provider, listed in PROVIDERS.items():
        there = next(item for item in get_snapshot().providers if item.id == listed)
        for info in there.models:
            try:
                found = price_list.find(provider, info.id, NOW_US)
            except LookupError:
                continue
            priced.append((provider, info.id, found.rates))
    return priced


def ask_the_list(provider: str, model: str, usage: Usage) -> int:
    """Return what the package itself computes, as nano-USD rounded half to even."""
    calculated = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            output_tokens=usage.completion_tokens,
            output_reasoning_tokens=usage.reasoning,
        ),
        model,
        provider_id=PROVIDERS[provider],
        genai_request_timestamp=datetime.fromtimestamp(NOW_US / 1e6, UTC),
    )
    numerator, denominator = calculated.total_price.as_integer_ratio()
    return divide_half_even(numerator * 1_000_000_000, denominator)


def test_a_call_costs_what_the_list_says(price_list: PriceList) -> None:
    dice = random.Random(20261121)
    models = list_models(price_list)
    for provider, model, rates in models:
        for number in range(8):
            classes = dice.sample(TOKENS, 5) if number % 2 else [dice.randrange(300_000)] * 5
            usage = Usage(*classes) if rates.output else Usage(*classes[:1])
            wanted = ask_the_list(provider, model, usage)
            assert cost_nano(usage, rates) == wanted, (provider, model, usage)
    assert all(sum(p == name for p, _, _ in models) >= 25 for name in PROVIDERS)
    assert sum(bool(rates.tiers) for _, _, rates in models) >= 20


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("openai", "gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openai", "GPT-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5"),
        ("vertex", "gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("vertex", "google/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("vertex", "publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("vertex", "anthropic/claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    ],
)
def test_names_are_found_as_providers_write_them(
    price_list: PriceList, provider: str, model: str, listed: str
) -> None:
    rates = price_list.find(provider, model, NOW_US).rates

    assert rates.price_id == f"genai-prices-{genai_prices.__version__}:{listed}"


@pytest.mark.parametrize(
    ("provider", "model", "why"),
    [
        ("openai", "gpt-4o-mini-of-ours", "does not know"),
        ("openai", "", "does not know"),
        ("vertex", "meta/llama-3.3-70b-instruct-maas", "does not know"),
        ("vertex", "projects/1/locations/global/endpoints/2", "does not know"),
        ("vertex", "gemma-3-27b-it", "has no price for input"),
        ("vertex", "gemini-2.5-flash-image", "not priced by text"),
        ("vertex", "gemini-omni-flash-preview", "priced by output_video_mtok"),
        ("openai", "gpt-4o-audio-preview", "not priced by text"),
        ("ollama", "gpt-4o-mini", "is not asked"),
    ],
)
def test_what_is_not_known_has_no_price(
    price_list: PriceList, provider: str, model: str, why: str
) -> None:
    with pytest.raises(LookupError, match=why):
        price_list.find(provider, model, NOW_US)


def test_what_is_charged_for_besides_is_told(price_list: PriceList) -> None:
    assert price_list.find("vertex", "gemini-2.5-flash", NOW_US).apart == (
        "audio sent",
        "web searches",
    )


def test_a_price_that_changes_is_the_one_of_its_day(price_list: PriceList) -> None:
    change_us = price_list.find_next_change(NOW_US)

    assert change_us == 1_796_083_200_000_000  # 2026-12-01
    before = price_list.find("vertex", "gemini-4-argon", change_us - 1).rates
    after = price_list.find("vertex", "gemini-4-argon", change_us).rates
    assert before.input != after.input
    assert price_list.find_next_change(4_000_000_000_000_000) is None


def test_nothing_changes_before_the_list_is_read() -> None:
    unread = PriceList()

    assert not unread.is_loaded
    assert unread.find_next_change(NOW_US) is None
    unread.find("openai", "gpt-4o-mini", NOW_US)
    assert unread.is_loaded


# units


def steps(*rates: str) -> Steps:
    """Return a rate and, for prompts above 100, 200 ... tokens, others."""
    return [(100 * number, Decimal(rate)) for number, rate in enumerate(rates)]


def test_classes_without_a_price_cost_what_holds_them() -> None:
    made = make_listed_price("x", {"input_mtok": steps("1"), "output_mtok": steps("2.5")})

    assert made.rates == Rates(
        price_id="x",
        input=10**9,
        output=2_500_000_000,
        cache_read=10**9,
        cache_write=10**9,
        reasoning=2_500_000_000,
    )
    assert made.apart == ()


def test_each_size_of_prompt_at_which_a_class_changes_is_a_tier() -> None:
    made = make_listed_price(
        "x",
        {
            "input_mtok": steps("1", "2"),
            "output_mtok": [(0, Decimal(3)), (150, Decimal(4))],
            "cache_read_mtok": steps("0"),
            "output_reasoning_mtok": steps("5"),
        },
    )
    low = {"input": 2 * 10**9, "cache_read": 0, "cache_write": 2 * 10**9, "reasoning": 5 * 10**9}

    assert made.rates.tiers == [
        Tier(over=100, output=3 * 10**9, **low),
        Tier(over=150, output=4 * 10**9, **low),
    ]


@pytest.mark.parametrize(
    ("units", "why"),
    [
        ({"output_mtok": steps("1")}, "no price for input"),
        ({"input_mtok": steps("1")}, "no price for output"),
        ({"input_mtok": steps("1"), "output_mtok": steps("0")}, "no price for output"),
        ({"input_mtok": steps("0"), "output_mtok": steps("1")}, "no price for input"),
        ({"input_mtok": steps("1e-10"), "output_mtok": steps("1")}, "finer than a nano-USD"),
        (
            {"input_mtok": steps("1"), "output_mtok": steps("1"), "requests_kcount": steps("1")},
            "priced by requests_kcount",
        ),
    ],
)
def test_prices_that_cannot_be_charged_exactly_are_none(units: dict[str, Steps], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make_listed_price("x", units)


def test_an_embedding_has_no_output() -> None:
    made = make_listed_price("list:openai/an-embedding", {"input_mtok": steps("0.1")})

    assert (made.rates.input, made.rates.output) == (100_000_000, 0)


def test_prices_by_the_time_of_the_day_are_none() -> None:
    deepseek = next(item for item in get_snapshot().providers if item.id == "deepseek")
    by_hour = [m for m in deepseek.models if isinstance(m.prices, list) and len(m.prices) > 1]
    assert by_hour
    with pytest.raises(ValueError, match="time of the day"):
        check_calendar(by_hour[0])
