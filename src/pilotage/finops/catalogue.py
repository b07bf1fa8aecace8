"""The offline price list of the package ``genai-prices``: what providers' models cost.

It is consulted for models of upstreams that have no price of their own. A model that it does not
know, gives away or charges for in units that calls are not counted in has no price here: an
unknown price is never zero. Nothing is fetched; a newer list comes with a newer package.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pilotage.core.usage import Rates, Tier
from pilotage.finops.types import ListedPrice

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

Steps = Sequence[tuple[int, Decimal]]  # USD per 10^6 tokens, each for prompts above so many tokens

PROVIDERS: Final[Mapping[str, str]] = {  # ours, and what the list calls them
    "openai": "openai",
    "anthropic": "anthropic",
    "vertex": "google",
}
_CLASSES = {  # the list's units that calls are counted in
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
}
_APART = {  # what a call may cause beside text, and is not in its cost
    "input_audio_mtok": "audio sent",
    "cache_audio_read_mtok": "audio sent",
    "cache_write_1h_mtok": "cache writes kept for an hour",
    "web_searches_kcount": "web searches",
    "storage_searches_kcount": "file searches",
}
_NOT_TEXT = re.compile(r"audio|image|live|moderation|realtime|transcribe|tts|whisper")
_VERTEX = re.compile(r"(?:publishers/)?[\w.-]+/(?:models/)?([\w.@-]+)", re.ASCII)
_NANO_PER_USD = 1_000_000_000


class PriceList:
    """The price list, read from the package when it is first asked."""

    def __init__(self) -> None:
        self._providers: Sequence[Provider] = ()
        self._version = ""

    @property
    def is_loaded(self) -> bool:
        """Whether asking is quick; loading takes a twentieth of a second or more."""
        return bool(self._providers)

    def load(self) -> None:
        """Read the list into memory."""
        if not self._providers:
            import genai_prices
            from genai_prices.data_snapshot import get_snapshot

            self._version = genai_prices.__version__
            self._providers = get_snapshot().providers

    @property
    def name(self) -> str:
        """The list and its version, with which every price id of it begins."""
        self.load()
        return f"genai-prices-{self._version}"

    def find(self, provider: str, model: str, at_us: int) -> ListedPrice:
        """Return what a provider's model costs at a time; raise LookupError that says why not."""
        self.load()
        listed = PROVIDERS.get(provider)
        there = next((item for item in self._providers if item.id == listed), None)
        if there is None:
            raise LookupError(f"{self.name} is not asked for provider {provider!r}")
        info = there.find_model(_plain_name(provider, model), all_providers=list(self._providers))
        if info is None:
            raise LookupError(f"{self.name} does not know {model!r} of provider {provider!r}")
        if _NOT_TEXT.search(f"{model} {info.id}".lower()):
            raise LookupError(f"{self.name}: {info.id} is not priced by text tokens alone")
        price_id = f"{self.name}:{there.id}/{info.id}"
        try:
            check_calendar(info)
            units = _read_units(info.get_prices(datetime.fromtimestamp(at_us / 1e6, UTC)))
            return make_listed_price(price_id, units)
        except ValueError as unusable:
            raise LookupError(f"{self.name}: {info.id} {unusable}") from None

    def find_by_id(self, price_id: str, at_us: int) -> Rates | None:
        """Return the rates of a price id of this list at a time; None if it has none such."""
        listed, _, model = price_id.removeprefix(f"{self.name}:").partition("/")
        provider = next((name for name, known in PROVIDERS.items() if known == listed), "")
        if not provider or not price_id.startswith(f"{self.name}:"):
            return None
        try:
            found = self.find(provider, model, at_us)
        except LookupError:
            return None
        return found.rates if found.rates.price_id == price_id else None

    def find_next_change(self, after_us: int) -> int | None:
        """Return the first time behind another at which a price changes, None if none does.

        The same before the list is loaded: nobody has been told a price of it then.
        """
        starts = [
            _start_us(price.constraint)
            for provider in self._providers
            if provider.id in PROVIDERS.values()
            for info in provider.models
            if isinstance(info.prices, list)
            for price in info.prices
        ]
        return min((start for start in starts if start > after_us), default=None)


def make_listed_price(price_id: str, units: Mapping[str, Steps]) -> ListedPrice:
    """Return the rates that the list's units stand for; raise ValueError that says why not.

    Reads and writes of a cache cost as much as other input unless they have a price, reasoning as
    much as other output. Classes whose rates change at different prompt sizes get a tier for each.
    """
    unknown = sorted(units.keys() - _CLASSES.keys() - _APART.keys())
    if unknown:
        raise ValueError(f"is priced by {', '.join(unknown)}, which calls are not counted in")
    steps = {name: _to_nano(units[unit]) for unit, name in _CLASSES.items() if unit in units}
    if "output" not in steps and "embedding" in price_id:
        steps["output"] = [(0, 0)]  # an embedding has no output
    for name in ("input", "output"):
        if name not in steps or (not steps[name][0][1] and "embedding" not in price_id):
            raise ValueError(f"has no price for {name}")
    filled = {
        "cache_read": steps["input"],
        "cache_write": steps["input"],
        "reasoning": steps["output"],
    } | steps
    overs = sorted({over for each in filled.values() for over, _ in each[1:]})
    tiers = [Tier(over=over, **_rates_above(filled, over)) for over in overs]
    apart = sorted({_APART[unit] for unit in units.keys() & _APART.keys()})
    return ListedPrice(
        rates=Rates(price_id=price_id, tiers=tiers, **{n: s[0][1] for n, s in filled.items()}),
        apart=tuple(apart),
    )


def check_calendar(info: "ModelInfo") -> None:
    """Raise ValueError for prices by the time of the day, which a Snapshot cannot follow."""
    if isinstance(info.prices, list) and any(
        price.constraint is not None and not hasattr(price.constraint, "start_date")
        for price in info.prices
    ):
        raise ValueError("has prices by the time of the day")


def _rates_above(steps: Mapping[str, Sequence[tuple[int, int]]], over: int) -> dict[str, int]:
    """Return every class's rate for prompts just above a size: that of its last step so far."""
    return {
        name: [rate for start, rate in each if start <= over][-1] for name, each in steps.items()
    }


def _to_nano(steps: Steps) -> list[tuple[int, int]]:
    exact = [(over, usd * _NANO_PER_USD) for over, usd in steps]
    for _, nano in exact:
        if nano != int(nano):
            raise ValueError(f"has a rate finer than a nano-USD: {nano / _NANO_PER_USD}")
    return [(over, int(nano)) for over, nano in exact]


def _read_units(price: "ModelPrice") -> dict[str, Steps]:
    """Return the units that are priced, each with its rate and where that changes."""
    given: dict[str, Any] = vars(price)
    return {unit: _read_steps(rate) for unit, rate in given.items() if rate is not None}


def _read_steps(rate: "Decimal | TieredPrices") -> Steps:
    if isinstance(rate, Decimal):
        return [(0, rate)]
    return [(0, rate.base), *((tier.start, tier.price) for tier in rate.tiers)]


def _start_us(constraint: object) -> int:
    start = getattr(constraint, "start_date", None)
    if start is None:
        return 0
    return int(datetime.combine(start, time(), UTC).timestamp()) * 1_000_000


def _plain_name(provider: str, model: str) -> str:
    """Return a model's name as the list has it: without the publisher that Vertex puts before."""
    if provider != "vertex":
        return model
    named = _VERTEX.fullmatch(model)
    return named[1] if named else model
