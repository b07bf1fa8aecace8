"""Costs as rows of FOCUS 1.2, the FinOps Open Cost and Usage Specification (focus.finops.org).

A row of calls is one class of tokens of a day, tenant, model and so on: its cost is quantity times
unit price, exactly, as the specification asks, which takes 15 decimals. What a group of calls cost
beyond that (each call is rounded to the nano-dollar, an abandoned attempt may have had another
price, a lost call is an estimate) is a row of its own, an Adjustment, so that the rows of a month
add up to its ledger exactly.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from pilotage.core.money import parse_usd
from pilotage.core.usage import Rates
from pilotage.finops.chargeback.types import FocusRow, FocusValue, Names
from pilotage.finops.costs.types import CostEntry, CostKind, CostLine, Share
from pilotage.finops.periods import find_month

# In the order of the specification, which is that of letters; own columns begin with x_.
TIMES = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
AMOUNTS = (
    *COSTS,
    "ConsumedQuantity",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingQuantity",
    "x_Quantity",
)
COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_Alias",
    "x_Calls",
    "x_CorrectsPeriod",
    "x_Feature",
    "x_Kind",
    "x_ModelVersionId",
    "x_PeriodClosed",
    "x_PriceId",
    "x_Quantity",
    "x_Release",
    "x_TokenClass",
)
ISSUER = "Pilotage"
CURRENCY = "USD"
METERS = {
    "input": "Input Tokens",
    "cache_read": "Cached Input Tokens",
    "cache_write": "Cache Write Tokens",
    "output": "Output Tokens",
    "reasoning": "Reasoning Tokens",
}
PROVIDERS = {"openai": "OpenAI", "anthropic": "Anthropic", "vertex": "Google Cloud"}
_SECOND_US = 1_000_000
_DAY = timedelta(days=1)
_FINER = 1_000_000  # parts of a nano-dollar: token counts times nano-dollars per 10^6 tokens
_SERVICES = {
    CostKind.COMPUTE: ("Compute", "Other (Compute)", "Model replicas"),
    CostKind.IDLE: ("Compute", "Other (Compute)", "Model replicas"),
    CostKind.STORAGE: ("Storage", "Other (Storage)", "Artifacts"),
    CostKind.NETWORK: ("Networking", "Data Transfer", "Network"),
    CostKind.USAGE: ("AI and Machine Learning", "Generative AI", "Model calls"),
    CostKind.OTHER: ("Other", "Other (Other)", "Other costs"),
}
_REST = "Rounding of each call to the nano-dollar, attempts at other prices, and estimates"


def make_rows(
    lines: Iterable[CostLine],
    entries: Iterable[CostEntry],
    rates: Mapping[str, Rates],
    names: Names,
) -> Iterator[FocusRow]:
    """Yield the rows of calls and of entries; ``rates`` are by price id, unknown ones left out."""
    for line in lines:
        yield from _make_line_rows(line, rates.get(line.price_id), names)
    for entry in entries:
        for shares in _split_shares(entry.shares):
            yield from _make_entry_rows(entry, shares, names)


def sum_rows(rows: Iterable[FocusRow]) -> Decimal:
    """Return what rows cost together, in USD."""
    return sum((Decimal(str(row["BilledCost"])) for row in rows), start=Decimal(0))


def to_usd(finer: int) -> Decimal:
    """Return an amount in 10^-15 USD as USD, without zeros that say nothing."""
    whole, rest = divmod(abs(finer), 10**15)
    text = f"{'-' if finer < 0 else ''}{whole}.{rest:015d}".rstrip("0").rstrip(".")
    return Decimal(text)


def _make_line_rows(line: CostLine, rates: Rates | None, names: Names) -> Iterator[FocusRow]:
    shared = _share_line(line, names)
    rest = line.cost_nano * _FINER
    due = rates.for_prompt(line.band + 1) if rates else None
    for name in METERS if due else ():
        tokens, rate = getattr(line, f"{name}_tokens"), getattr(due, name)
        if tokens:
            rest -= tokens * rate
            yield shared | _price_tokens(line, name, tokens, rate)
    if rest or not due:
        about = _REST if due else "Calls whose unit price nobody knows any more"
        yield shared | _adjust(rest, about) | {"x_Calls": line.calls}


def _price_tokens(line: CostLine, name: str, tokens: int, rate: int) -> FocusRow:
    above = f"/above-{line.band}" if line.band else ""
    sku = f"{line.model}/{name}"
    details = {"x_TokenClass": name, "x_PromptAboveTokens": line.band}
    return _cost(tokens * rate) | {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{METERS[name]} of {line.model}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedUnitPrice": to_usd(rate * _FINER),
        "ListUnitPrice": to_usd(rate * _FINER),
        "PricingCategory": "Standard",
        "PricingQuantity": to_usd(tokens * 10**9),
        "PricingUnit": "1000000 Tokens",
        "SkuId": sku,
        "SkuMeter": METERS[name],
        "SkuPriceDetails": _json(details),
        "SkuPriceId": f"{sku}{above}",
        "x_Calls": line.calls,
        "x_TokenClass": name,
    }


def _share_line(line: CostLine, names: Names) -> FocusRow:
    upstream, provider = names.upstreams.get(line.upstream_id, ("", ""))
    tags = {"feature": line.feature, "alias": line.alias, "upstream": upstream}
    return _begin(line.project_id, line.day, line.corrects, line.tenant_id, names) | {
        "ProviderName": PROVIDERS.get(provider, ISSUER),
        "PublisherName": PROVIDERS.get(provider, ISSUER),
        "ResourceId": line.arm or None,
        "ResourceName": line.model or None,
        "ResourceType": "Deployment" if line.arm else None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model calls",
        "ServiceSubcategory": "Generative AI",
        "Tags": _json({name: value for name, value in tags.items() if value}),
        "x_Alias": line.alias or None,
        "x_Feature": line.feature or None,
        "x_Kind": CostKind.CALLS.value,
        "x_ModelVersionId": line.version_id or None,
        "x_PriceId": line.price_id or None,
        "x_Release": line.arm or None,
    }


def _split_shares(shares: Iterable[Share]) -> Iterator[Sequence[Share]]:
    """Yield the shares that are of one month and correct the same one, in the order of days."""
    parts: dict[tuple[str, str], list[Share]] = defaultdict(list)
    for share in shares:
        parts[share.day[:7], share.corrects].append(share)
    yield from parts.values()


def _make_entry_rows(entry: CostEntry, shares: Sequence[Share], names: Names) -> Iterator[FocusRow]:
    shared = _share_entry(entry, shares, names)
    rest = sum(share.cost_nano for share in shares) * _FINER
    used = sum(share.quantity for share in shares)
    quantity = to_usd(used * 10**9)
    if used and entry.unit_price:
        rate = parse_usd(entry.unit_price)
        rest -= used * rate
        sku = f"{entry.kind.value}/{entry.alias or 'all'}"
        yield (
            shared
            | _cost(used * rate)
            | {
                "ChargeCategory": "Usage",
                "ChargeDescription": entry.note or entry.kind.value,
                "ChargeFrequency": "Usage-Based",
                "ConsumedQuantity": quantity,
                "ConsumedUnit": entry.unit,
                "ContractedUnitPrice": to_usd(rate * _FINER),
                "ListUnitPrice": to_usd(rate * _FINER),
                "PricingCategory": "Dynamic" if entry.is_spot else "Standard",
                "PricingQuantity": quantity,
                "PricingUnit": entry.unit,
                "SkuId": sku,
                "SkuMeter": entry.kind.value,
                "SkuPriceId": f"{sku}/spot" if entry.is_spot else sku,
            }
        )
        if not rest:
            return
    about = entry.note or f"{entry.kind.value}, booked as a sum"
    yield shared | _adjust(rest, about) | {"x_Quantity": quantity if not entry.unit_price else None}


def _share_entry(entry: CostEntry, shares: Sequence[Share], names: Names) -> FocusRow:
    category, subcategory, service = _SERVICES[entry.kind]
    provider = PROVIDERS.get(entry.provider, entry.provider) or ISSUER
    first, last = shares[0].day, shares[-1].day
    begun = _begin(entry.project_id, first, shares[0].corrects, entry.tenant_id, names)
    start, end = _time(entry.start_us // _SECOND_US), _time(-(-entry.end_us // _SECOND_US))
    period: FocusRow = {
        "ChargePeriodStart": max(start, _midnight(first)),
        "ChargePeriodEnd": min(end, _midnight(last) + _DAY),  # which is exclusive
    }
    if end <= _midnight(first) or start >= _midnight(last) + _DAY:  # of other days than it counts
        period["ChargePeriodEnd"] = _midnight(last) + _DAY
        period["ChargePeriodStart"] = _midnight(first)
    return (
        begun
        | period
        | {
            "ProviderName": provider,
            "PublisherName": provider,
            "ResourceId": entry.release or None,
            "ResourceName": entry.model or None,
            "ResourceType": "Deployment" if entry.release else None,
            "ServiceCategory": category,
            "ServiceName": service,
            "ServiceSubcategory": subcategory,
            "Tags": _json({"alias": entry.alias} if entry.alias else {}),
            "x_Alias": entry.alias or None,
            "x_Kind": entry.kind.value,
            "x_ModelVersionId": entry.version_id or None,
            "x_Release": entry.release or None,
        }
    )


def _begin(project_id: str, day: str, corrects: str, tenant_id: str, names: Names) -> FocusRow:
    """Return what every row has: whose it is, of when, and columns that stay empty."""
    _, first, after = find_month(day)
    start = _midnight(day)
    empty: FocusRow = dict.fromkeys(COLUMNS)
    return empty | {
        "BillingAccountId": project_id,
        "BillingAccountName": names.account,
        "BillingAccountType": "Project",
        "BillingCurrency": CURRENCY,
        "BillingPeriodStart": _midnight(first),
        "BillingPeriodEnd": _midnight(after),
        "ChargeClass": "Correction" if corrects else None,
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + _DAY,
        "InvoiceIssuerName": ISSUER,
        "SubAccountId": tenant_id or None,
        "SubAccountName": names.tenants.get(tenant_id),
        "SubAccountType": "Tenant" if tenant_id else None,
        "x_CorrectsPeriod": corrects or None,
        "x_PeriodClosed": "true" if names.is_closed else "false",
    }


def _adjust(finer: int, about: str) -> FocusRow:
    return _cost(finer) | {
        "ChargeCategory": "Adjustment",
        "ChargeDescription": about,
        "ChargeFrequency": "Usage-Based",
    }


def _cost(finer: int) -> FocusRow:
    amount: FocusValue = to_usd(finer)
    return dict.fromkeys(COSTS, amount)


def _midnight(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def _time(at_s: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)


def _json(value: Mapping[str, object]) -> str | None:
    return msgspec.json.encode(value, order="sorted").decode() if value else None
