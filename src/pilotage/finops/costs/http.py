"""Control-plane routes of costs. Money is shown twice: decimal USD and integer nano-USD."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd, parse_usd
from pilotage.core.names import NO_TENANT
from pilotage.finops.costs.rules import MILLION
from pilotage.finops.costs.service import END_OF_DAYS, START_OF_DAYS, CostService, continue_after
from pilotage.finops.costs.types import (
    CostBy,
    CostEntry,
    CostKind,
    CostRow,
    EntrySpec,
    Resource,
    ResourcePrice,
    Span,
)
from pilotage.finops.http import CostedView, TrafficView, show_entry
from pilotage.finops.insights.http import READ, check_day
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.kit.clock import parse_time


class CostView(CostedView):
    """Costs of one group by kind; those of calls come from the ledger, all others are entries."""

    groups: dict[str, str]
    calls: int
    tokens: int
    estimated_usd: str
    estimated_nano: int
    by_kind: dict[str, str]


class EntryBody(Body):
    """A cost that is no call's, in decimal USD; below 0 for a credit.

    ``start`` and ``end`` are RFC 3339 or dates: it counts on all days between them. ``quantity`` is
    in ``unit``, with at most 6 decimals; without ``cost_usd`` it is in the unit of the resource's
    price (hours, GiB-months, GiB), which it is multiplied by. ``source`` says where it comes from,
    and is booked once.
    """

    kind: CostKind
    source: str
    cost_usd: str = ""
    start: str
    end: str
    quantity: str = "0"
    unit: str = ""
    tenant: str = ""
    alias: str = ""
    model: str = ""
    provider: str = ""
    note: str = ""


class EntryView(CostedView):
    """A booked cost; ``quantity`` is in millionths of ``unit``.

    It counts on the days from ``first_day`` to ``last_day``, and ``corrects`` the closed months.
    """

    id: str
    project_id: str
    kind: CostKind
    source: str
    first_day: str
    last_day: str
    start: datetime
    end: datetime
    quantity: int
    unit: str
    unit_price: str
    tenant_id: str
    alias: str
    release: str
    version_id: str
    model: str
    provider: str
    note: str
    is_spot: bool
    reverses: str
    corrects: list[str]
    created_at: datetime
    created_by: str


class ResourcePriceBody(Body):
    """A price to set: USD per hour of a replica, GiB-month stored, or GiB sent.

    The subject of compute is an endpoint's name, or ``*`` for all; of the others it is ``*``.
    """

    kind: Resource
    price: str
    subject: str = "*"
    spot_price: str = ""
    valid_from: str | None = None


class ResourcePriceView(View):
    """A price of a resource from a time on."""

    id: str
    project_id: str
    kind: Resource
    subject: str
    price: str
    spot_price: str
    valid_from: datetime
    created_at: datetime
    created_by: str


def cost_routes(
    costs: CostService, finops: FinopsService, identity: IdentityService
) -> list[Route]:
    """List the routes of costs."""
    return [
        *_sum_routes(costs, identity),
        *_entry_routes(costs, finops, identity),
        *_price_routes(costs),
    ]


def _sum_routes(costs: CostService, identity: IdentityService) -> list[Route]:
    async def sum_costs(  # noqa: PLR0913, PLR0917 - the server passes them by name
        call: ApiCall,
        by: str = "",
        since: str = "",
        until: str = "",
        tenant: str = "",
        alias: str = "",
        model: str = "",
        limit: int = 50,
        after: str = "",
    ) -> Page[CostView]:
        """Sum up what was spent on days from ``since`` to before ``until`` (UTC).

        ``by`` lists tenant, user, key, feature, alias, model, version, release, upstream, day,
        month, kind, with commas. The tenant ``shadow`` has copies of calls, ``none`` what belongs
        to no tenant.
        """
        groups = _groups(by)
        async with call.read() as tx:
            only = [(CostBy.ALIAS, alias), (CostBy.MODEL, model)]
            only = [(name, value) for name, value in only if value]
            if tenant:
                only.append((CostBy.TENANT, await identity.find_payer_id(tx, tenant)))
            span = Span(
                since=check_day(since, "since", START_OF_DAYS),
                until=check_day(until, "until", END_OF_DAYS),
                only=tuple(only),
            )
            rows = await costs.sum_costs(tx, groups, span)
        return make_page(continue_after(rows, after, limit + 1), limit, _show_row, "key")

    return [Route(method="GET", path="/costs", permission=READ, handler=sum_costs)]


def _entry_routes(
    costs: CostService, finops: FinopsService, identity: IdentityService
) -> list[Route]:
    async def add_entry(call: ApiCall, body: EntryBody) -> EntryView:
        """Book a cost that is no call's: network, a licence, usage that no gateway saw."""
        cost_nano, quantity = _amounts(body)
        start_us, end_us = _time(body.start, "start"), _time(body.end, "end")
        async with call.write() as tx:
            spec = EntrySpec(
                kind=body.kind,
                source=f"booked/{_source(body.source)}",
                start_us=start_us,
                end_us=end_us,
                cost_nano=cost_nano,
                quantity=quantity,
                unit=body.unit,
                tenant_id=await identity.find_payer_id(tx, body.tenant or NO_TENANT),
                alias=body.alias,
                model=body.model,
                provider=body.provider,
                note=body.note,
            )
            if not body.cost_usd:
                spec = await costs.price_quantity(tx, spec)
            return _show_booked(await costs.add_entry(tx, spec))

    async def list_cost_entries(
        call: ApiCall, kind: CostKind | None = None, limit: int = 50, after: str = ""
    ) -> Page[EntryView]:
        """List what is booked beside calls, the oldest first."""
        async with call.read() as tx:
            found = await costs.list_entries(tx, after, limit + 1, kind)
            return make_page(found, limit, _show_booked, "id")

    async def reverse_entry(call: ApiCall, entry: str) -> EntryView:
        """Take a booked cost back by an entry of its own; again it changes nothing."""
        async with call.write() as tx:
            return _show_booked(await costs.reverse_entry(tx, entry))

    async def reverse_charge(call: ApiCall, call_id: str) -> TrafficView:
        """Take a call's charge back by a reversal in the ledger; again it changes nothing."""
        async with call.write() as tx:
            return show_entry(await finops.reverse_charge(tx, call_id))

    return [
        Route(
            method="POST",
            path="/cost-entries",
            permission="finops.cost.book",
            handler=add_entry,
            status=201,
        ),
        Route(method="GET", path="/cost-entries", permission=READ, handler=list_cost_entries),
        Route(
            method="POST",
            path="/cost-entries/{entry}:reverse",
            permission="finops.cost.reverse",
            handler=reverse_entry,
        ),
        Route(
            method="POST",
            path="/charges/{call_id}:reverse",
            permission="finops.charge.reverse",
            handler=reverse_charge,
        ),
    ]


def _price_routes(costs: CostService) -> list[Route]:
    async def set_resource_price(call: ApiCall, body: ResourcePriceBody) -> ResourcePriceView:
        """Set what a unit of a resource costs from a time on; what is booked stays as it is."""
        valid_from_us = None if body.valid_from is None else _time(body.valid_from, "valid_from")
        async with call.write() as tx:
            made = await costs.set_price(
                tx,
                body.kind,
                body.subject,
                body.price,
                spot_price=body.spot_price,
                valid_from_us=valid_from_us,
            )
        return ResourcePriceView.of(made)

    async def list_resource_prices(
        call: ApiCall,
        current: bool = False,  # noqa: FBT001, FBT002 - the server passes it by name
        limit: int = 50,
        after: str = "",
    ) -> Page[ResourcePriceView]:
        """List prices in the order in which they were set; ``current`` only those in force now."""
        listed = costs.list_current_prices if current else costs.list_prices
        async with call.read() as tx:
            found: Sequence[ResourcePrice] = await listed(tx, after, limit + 1)
            return make_page(found, limit, ResourcePriceView.of, "id")

    return [
        Route(
            method="POST",
            path="/resource-prices",
            permission="finops.resource_price.set",
            handler=set_resource_price,
            status=201,
        ),
        Route(
            method="GET",
            path="/resource-prices",
            permission="finops.resource_price.read",
            handler=list_resource_prices,
        ),
    ]


def _show_row(row: Any) -> CostView:  # noqa: ANN401 - make_page hands over anything
    found: CostRow = row
    return CostView.of(
        found,
        estimated_usd=format_usd(found.estimated_nano),
        by_kind={kind: format_usd(nano) for kind, nano in sorted(found.by_kind.items())},
    )


def _show_booked(entry: Any) -> EntryView:  # noqa: ANN401 - make_page hands over anything
    found: CostEntry = entry
    return EntryView.of(
        found,
        source=found.source.removeprefix("booked/"),
        first_day=found.shares[0].day,
        last_day=found.shares[-1].day,
        corrects=sorted({share.corrects for share in found.shares} - {""}),
    )


def _groups(text: str) -> list[CostBy]:
    try:
        return [CostBy(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"by: costs cannot be summed up by {text[:80]!r}.",
            hint=f"There are: {', '.join(CostBy)}.",
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


def _amounts(body: EntryBody) -> tuple[int, int]:
    """Return the cost in nano-USD and the quantity in millionths of its unit."""
    try:
        cost_nano, quantity = parse_usd(body.cost_usd or "0"), parse_usd(body.quantity)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{wrong}.", param="cost_usd") from None
    if not body.cost_usd and not quantity:
        raise PilotageError(
            "invalid_request",
            "Neither says what it cost nor how much it was.",
            hint="Send cost_usd, or a quantity of what has a price.",
            param="cost_usd",
        )
    if not body.cost_usd and body.unit:
        raise PilotageError(
            "invalid_request",
            "A quantity that is priced is in the unit of its price.",
            hint="Leave unit out, or send cost_usd.",
            param="unit",
        )
    if quantity % 1000:
        raise PilotageError(
            "invalid_request", "A quantity has at most 6 decimals.", param="quantity"
        )
    return cost_nano, quantity * MILLION // 10**9


def _source(text: str) -> str:
    if not text or len(text) > 200 or not text.isprintable():
        raise PilotageError(
            "invalid_request",
            "That is no source.",
            hint="Write where the cost comes from, such as invoice/2026-03/line-7.",
            param="source",
        )
    return text
