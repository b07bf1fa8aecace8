"""Token usage in disjoint parts, and what it costs."""

from typing import Self

import msgspec

from pilotage.core.money import divide_half_even

PER_TOKENS = 1_000_000  # rates are quoted per 10^6 tokens


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of one call by class; the classes do not overlap, so their sum is the total."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Everything read: uncached input, cache reads and cache writes."""
        return self.input + self.cache_read + self.cache_write

    @property
    def completion_tokens(self) -> int:
        """Everything written: visible output and reasoning."""
        return self.output + self.reasoning

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Self) -> "Usage":
        """Add class by class."""
        return Usage(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of calls whose whole prompt has more than ``over`` tokens; units as in Rates."""

    over: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """A price: nano-USD per 10^6 tokens of each class, and the id of its row in the price book.

    ``tiers`` (ascending) replace the rates for long prompts.
    """

    price_id: str
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    tiers: list[Tier] = []

    @property
    def dearest_input(self) -> int:
        """The highest rate at which a prompt token can be billed."""
        longer = [max(tier.input, tier.cache_read, tier.cache_write) for tier in self.tiers]
        return max(self.input, self.cache_read, self.cache_write, *longer)

    @property
    def dearest_output(self) -> int:
        """The highest rate at which a completion token can be billed."""
        longer = [max(tier.output, tier.reasoning) for tier in self.tiers]
        return max(self.output, self.reasoning, *longer)

    def for_prompt(self, prompt_tokens: int) -> "Rates | Tier":
        """Return the rates of a prompt of this size."""
        found: Rates | Tier = self
        for tier in self.tiers:
            if prompt_tokens > tier.over:
                found = tier
        return found


def cost_nano(usage: Usage, rates: Rates) -> int:
    """Return the price of a usage in nano-USD, rounded once, half to even."""
    due = rates.for_prompt(usage.prompt_tokens) if rates.tiers else rates
    return divide_half_even(
        usage.input * due.input
        + usage.cache_read * due.cache_read
        + usage.cache_write * due.cache_write
        + usage.output * due.output
        + usage.reasoning * due.reasoning,
        PER_TOKENS,
    )


def worst_cost_nano(input_bound: int, output_limit: int, input_rate: int, output_rate: int) -> int:
    """Return the most a call can cost: both bounds at the given (dearest) rates, rounded up."""
    return -(-(input_bound * input_rate + output_limit * output_rate) // PER_TOKENS)
