"""Control-plane routes of finops. Money is shown twice: decimal USD and integer nano-USD."""

from datetime import datetime
from typing import Any, Self

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.core.usage import Rates, Tier
from pilotage.finops.service import END_OF_TIME_US, FinopsService
from pilotage.finops.types import EntryKind, FoundPrice, GroupBy, PriceSource
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.kit.clock import parse_time
from pilotage.kit.db import Tx


class PriceBody(Body):
    """A price to add: decimal text in USD per 1,000,000 tokens of each class.

    ``subject`` is MODEL or MODEL@VERSION; ``valid_from`` is RFC 3339 (absent: now).
    """

    subject: str
    input: str
    output: str
    cache_read: str | None = None
    cache_write: str | None = None
    reasoning: str | None = None
    is_free: bool = False
    valid_from: str | None = None


class PriceView(View):
    """A price: decimal text in USD per 1,000,000 tokens of each class."""

    id: str
    project_id: str
    subject: str
    valid_from: datetime
    input: str
    output: str
    cache_read: str
    cache_write: str
    reasoning: str
    is_free: bool
    created_at: datetime
    created_by: str


class RatesView(View):
    """Decimal text in USD per 1,000,000 tokens of each class, for prompts above ``over`` tokens."""

    over: int
    input: str
    output: str
    cache_read: str
    cache_write: str
    reasoning: str


class FoundPriceView(View):
    """What a model costs now and where that is written, or ``why`` nobody knows.

    ``source`` is book (a price that was set), list (the offline price list) or unknown. The first
    of the ``rates`` holds for short prompts, each other one for whole prompts that are longer.
    ``apart`` names what the provider charges for besides, and no call's cost has in it.
    """

    model: str
    provider: str
    source: PriceSource
    price_id: str
    is_free: bool
    rates: list[RatesView]
    apart: list[str]
    why: str


class CostedView(View):
    """Anything that costs something."""

    cost_usd: str
    cost_nano: int

    @classmethod
    def of(cls, item: object, **more: object) -> Self:
        """Make the view of a dataclass that has ``cost_nano``."""
        more.setdefault("cost_usd", format_usd(int(getattr(item, "cost_nano", 0))))
        return super().of(item, **more)


class UsageView(CostedView):
    """Sums over the calls of one group."""

    groups: dict[str, str]
    calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated_usd: str
    estimated_nano: int


class TrafficView(CostedView):
    """One ledger entry: a call's charge, or the reversal of one. Durations: -1 where unknown."""

    seq: int
    call_id: str
    kind: EntryKind
    at: datetime
    project_id: str
    tenant_id: str
    key_id: str
    alias: str
    arm: str
    version_id: str
    model: str
    outcome: str
    status: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    is_estimated: bool
    duration_us: int
    ttft_us: int
    price_id: str
    gateway: str
    user: str
    feature: str
    upstream_id: str
    flags: list[str]
    prompt: str


def finops_routes(service: FinopsService, identity: IdentityService) -> list[Route]:
    """List the routes of finops."""
    return [*_price_routes(service), *_ledger_routes(service, identity)]


def show_entry(entry: Any) -> TrafficView:  # noqa: ANN401 - make_page hands over anything
    """Return the view of a ledger entry."""
    return TrafficView.of(entry, flags=entry.flags.split(",") if entry.flags else [])


def _price_routes(service: FinopsService) -> list[Route]:
    async def set_price(call: ApiCall, body: PriceBody) -> PriceView:
        """Set a price from a time on; earlier prices stay, and so do the costs made at them."""
        valid_from_us = None if body.valid_from is None else _time(body.valid_from, "valid_from")
        async with call.write() as tx:
            price = await service.set_price(
                tx,
                body.subject,
                body.input,
                body.output,
                cache_read=body.cache_read,
                cache_write=body.cache_write,
                reasoning=body.reasoning,
                is_free=body.is_free,
                valid_from_us=valid_from_us,
            )
        return PriceView.of(price)

    async def list_prices(
        call: ApiCall,
        subject: str | None = None,
        current: bool = False,  # noqa: FBT001, FBT002 - the server passes it by name
        limit: int = 50,
        after: str = "",
    ) -> Page[PriceView]:
        """List prices in the order in which they were set; ``current`` only those in force now."""
        listed = service.list_current_prices if current else service.list_prices
        async with call.read() as tx:
            found = await listed(tx, subject, after, limit + 1)
            return make_page(found, limit, PriceView.of, "id")

    async def find_price(call: ApiCall, model: str = "", provider: str = "") -> FoundPriceView:
        """Say what a model costs now and where that is written.

        ``provider`` (openai, anthropic, vertex) is whose model it is; without one it is MODEL or
        MODEL@VERSION of this installation.
        """
        name, _, version = ("", "", "") if provider else model.partition("@")
        async with call.read() as tx:
            found = await service.find_price(
                tx, name or model, version, tx.now_us, provider=provider
            )
        return _show_price(model, provider, found)

    return [
        Route(
            method="POST",
            path="/prices",
            permission="finops.prices.set",
            handler=set_price,
            status=201,
        ),
        Route(method="GET", path="/prices", permission="finops.prices.read", handler=list_prices),
        Route(
            method="GET",
            path="/prices:find",
            permission="finops.prices.read",
            handler=find_price,
        ),
    ]


def _ledger_routes(service: FinopsService, identity: IdentityService) -> list[Route]:
    async def find_tenant_id(tx: Tx, tenant: str | None) -> str | None:
        return None if tenant is None else await identity.find_payer_id(tx, tenant)

    async def usage(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        by: str = "",
        since: str | None = None,
        until: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> Page[UsageView]:
        """Sum up calls from ``since`` to before ``until`` (RFC 3339, or dates in UTC).

        ``by`` lists tenant, project, key, alias, model, version, day, outcome, user, feature,
        upstream, prompt, with commas.
        """
        groups = _groups(by)
        since_us = 0 if since is None else _time(since, "since")
        until_us = END_OF_TIME_US if until is None else _time(until, "until")
        async with call.read() as tx:
            tenant_id = await find_tenant_id(tx, tenant)
            found = await service.usage(
                tx, groups, since_us, until_us, tenant_id, after=after, limit=limit + 1
            )
            return make_page(found, limit, _show_usage, "key")

    async def list_traffic(
        call: ApiCall, tenant: str | None = None, limit: int = 50, after: int | None = None
    ) -> Page[TrafficView]:
        """List ledger entries behind ``after`` (a ``seq``); without it the newest."""
        async with call.read() as tx:
            tenant_id = await find_tenant_id(tx, tenant)
            wanted = limit if after is None else limit + 1
            found = await service.list_traffic(tx, after, wanted, tenant_id)
            return make_page(found, limit, show_entry, "seq")

    return [
        Route(method="GET", path="/usage", permission="finops.usage.read", handler=usage),
        Route(
            method="GET", path="/traffic", permission="finops.traffic.read", handler=list_traffic
        ),
    ]


def _show_price(model: str, provider: str, found: FoundPrice) -> FoundPriceView:
    return FoundPriceView(
        model=model,
        provider=provider,
        source=found.source,
        price_id=found.rates.price_id if found.rates else "",
        is_free=found.is_free,
        rates=[
            _show_rates(over, rates)
            for over, rates in [(0, found.rates), *((t.over, t) for t in found.tiers)]
            if rates is not None
        ],
        apart=list(found.apart),
        why=found.why,
    )


def _show_rates(over: int, rates: Rates | Tier) -> RatesView:
    return RatesView(
        over=over,
        input=format_usd(rates.input),
        output=format_usd(rates.output),
        cache_read=format_usd(rates.cache_read),
        cache_write=format_usd(rates.cache_write),
        reasoning=format_usd(rates.reasoning),
    )


def _show_usage(row: Any) -> UsageView:  # noqa: ANN401 - make_page hands over anything
    return UsageView.of(row, estimated_usd=format_usd(row.estimated_nano))


def _groups(text: str) -> list[GroupBy]:
    try:
        return [GroupBy(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError:
        known = ", ".join(GroupBy)
        raise PilotageError(
            "invalid_request",
            f"by: usage cannot be summed up by {text[:80]!r}.",
            hint=f"There are: {known}.",
            param="by",
        ) from None


def _time(text: str, param: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:40]!r} is not a time.",
            hint="Write 2026-01-31 or 2026-01-31T12:00:00Z.",
            param=param,
        ) from None
