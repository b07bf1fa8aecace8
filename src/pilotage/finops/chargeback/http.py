"""Control-plane routes of chargeback: a month as a file, and an invoice beside it."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.finops.chargeback.files import to_csv, to_parquet
from pilotage.finops.chargeback.service import ChargebackService
from pilotage.finops.chargeback.types import Difference, Match
from pilotage.finops.months.types import ClosedMonth
from pilotage.kit.api import ApiCall, Page, RawCall, RawReply, RawRoute, Route, View, make_page

PERMISSION = "finops.chargeback.read"
MOST_BYTES = 64 << 20
FORMATS = {
    "csv": ("text/csv; charset=utf-8", to_csv),
    "parquet": ("application/vnd.apache.parquet", to_parquet),
}


class ClosedMonthView(View):
    """A month that is closed, and what its calls and everything else cost, in decimal USD.

    It and all months before it do not change any more: what comes later is a correction.
    """

    month: str
    closed_at: datetime
    calls_usd: str
    entries_usd: str
    total_usd: str


class DifferenceView(View):
    """A line of an invoice beside what was recorded, in decimal USD; ``difference`` is the rest."""

    period: str
    model: str
    token_class: str
    invoiced: str
    recorded: str
    difference: str
    match: Match


class ReconciliationView(View):
    """An invoice beside the ledger, line by line, and their sums.

    Lines of other months are compared with nothing: ``outside_lines`` says how many there are and
    ``outside`` what they cost.
    """

    month: str
    provider: str
    invoiced: str
    recorded: str
    difference: str
    outside_lines: int
    outside: str
    items: list[DifferenceView]


def chargeback_routes(service: ChargebackService) -> list[Route]:
    """List the routes of people."""

    async def reconcile(call: ApiCall, month: str, provider: str = "") -> ReconciliationView:
        """Compare a ``provider``'s invoice, CSV in the body, with what was recorded."""
        invoice = await _read(call)
        async with call.read() as tx:
            await tx.see_one_moment()
            found = await service.reconcile(tx, month, provider, invoice)
        return ReconciliationView(
            month=month,
            provider=provider,
            invoiced=_text(found.invoiced),
            recorded=_text(found.recorded),
            difference=_text(found.invoiced - found.recorded),
            outside_lines=found.outside_lines,
            outside=_text(found.outside),
            items=[_show(item) for item in found.items],
        )

    async def list_closed_months(
        call: ApiCall, limit: int = 50, after: str = ""
    ) -> Page[ClosedMonthView]:
        """List the months that are closed; those in which nothing cost anything may be left out."""
        async with call.read() as tx:
            found = await service.list_months(tx, after, limit + 1)
        return make_page(found, limit, _show_month, "month")

    return [
        Route(method="GET", path="/chargeback", permission=PERMISSION, handler=list_closed_months),
        Route(
            method="POST",
            path="/chargeback/{month}:reconcile",
            permission=PERMISSION,
            handler=reconcile,
        ),
    ]


def chargeback_raw_routes(service: ChargebackService) -> list[RawRoute]:
    """List the routes that send files."""

    async def export_month(call: RawCall) -> RawReply:
        """Send a month's FOCUS rows as csv or parquet: with ``?tenant=`` those of one of them."""
        kind = call.query.get("format", "csv")
        if kind not in FORMATS:
            raise PilotageError(
                "invalid_request",
                f"{kind[:40]!r} is no format of chargeback.",
                hint=f"There are: {', '.join(FORMATS)}.",
                param="format",
            )
        async with call.read() as tx:
            await tx.see_one_moment()
            statement = await service.make_statement(
                tx, call.path["month"], call.query.get("tenant", "")
            )
        media_type, write = FORMATS[kind]
        return RawReply(body=await asyncio.to_thread(write, statement.rows), media_type=media_type)

    return [
        RawRoute(
            method="GET", path="/chargeback/{month}", permission=PERMISSION, handler=export_month
        )
    ]


async def _read(call: ApiCall) -> str:
    parts, size = [], 0
    async for part in call.body():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise PilotageError(
                "invalid_request",
                f"The invoice is larger than {MOST_BYTES >> 20} MiB.",
                hint="Sum it up by day and model first, or send it in parts.",
            )
    try:
        return b"".join(parts).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PilotageError(
            "invalid_request",
            "The invoice is not text in UTF-8.",
            hint="Save it as CSV in UTF-8.",
        ) from None


def _show_month(item: Any) -> ClosedMonthView:  # noqa: ANN401 - make_page hands over anything
    found: ClosedMonth = item
    return ClosedMonthView.of(
        found,
        calls_usd=format_usd(found.calls_nano),
        entries_usd=format_usd(found.entries_nano),
        total_usd=format_usd(found.calls_nano + found.entries_nano),
    )


def _show(item: Difference) -> DifferenceView:
    return DifferenceView.of(
        item,
        invoiced=_text(item.invoiced),
        recorded=_text(item.recorded),
        difference=_text(item.difference),
    )


def _text(amount: Decimal) -> str:
    return format(amount.normalize() + Decimal(0), "f")
