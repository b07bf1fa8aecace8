"""The verbs of chargeback: the statement of a month, and an invoice beside it. Read-only."""

import re
from collections.abc import Awaitable, Callable, Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.core.names import SHADOW_TENANT
from pilotage.finops.chargeback.invoice_rules import read_invoice, reconcile
from pilotage.finops.chargeback.rules import PROVIDERS, make_rows, sum_rows, to_usd
from pilotage.finops.chargeback.types import FocusRow, Names, Reconciliation, Statement
from pilotage.finops.costs.service import END_OF_DAYS, CostService
from pilotage.finops.costs.types import CostBy, CostEntry, CostLine, Span
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.months.service import Months
from pilotage.finops.months.types import ClosedMonth
from pilotage.finops.periods import find_month
from pilotage.identity.service import IdentityService
from pilotage.kit.db import Tx

_MONTH = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])")


class ChargebackService:
    """Statements of a project.

    ``name_upstreams`` returns the name and the provider of upstreams by id: those belong to a slice
    above this one.
    """

    def __init__(
        self,
        costs: CostService,
        insights: CostInsights,
        months: Months,
        identity: IdentityService,
        name_upstreams: Callable[[Tx], Awaitable[dict[str, tuple[str, str]]]],
    ) -> None:
        self._costs = costs
        self._insights = insights
        self._months = months
        self._identity = identity
        self._name_upstreams = name_upstreams

    async def make_statement(self, tx: Tx, month: str, tenant: str = "") -> Statement:
        """Return a month's rows, of all together, or of what ``find_payer_id`` finds for a tenant.

        Those of a closed month are priced at the rates that were known when it was closed. Raises
        ``invalid_request`` for what is no month, ``internal_error`` rather than rows that do not
        add up to the ledger, or to what they did when the month was closed. Run it in a transaction
        that sees one moment.
        """
        first, after = _find_days(month)
        only: tuple[tuple[CostBy, str], ...] = ()
        if tenant:
            only = ((CostBy.TENANT, await self._identity.find_payer_id(tx, tenant)),)
        span = Span(since=first, until=after, only=only)
        closing = await self._months.find_closing(tx, month)
        lines, entries, rows = await self._make_rows(tx, span, closing)
        statement = Statement(
            month=month,
            rows=rows,
            calls_nano=sum(line.cost_nano for line in lines),
            entries_nano=sum(entry.counted_nano for entry in entries),
        )
        amounts = (statement.calls_nano, statement.entries_nano)
        recalled = [] if tenant else await self._recall(tx, span, statement, closing)
        wrong = next((known for known in recalled if known != amounts), None)
        if wrong is not None or sum_rows(rows) != to_usd(statement.total_nano * 1_000_000):
            raise PilotageError(
                "internal_error",
                f"The rows of {month} do not add up to its ledger: "
                f"{format_usd(sum(amounts))} and {format_usd(sum(wrong or amounts))} USD.",
                hint="Do not bill by them. Keep the database as it is and report this.",
            )
        return statement

    async def list_months(self, tx: Tx, after: str, limit: int) -> Sequence[ClosedMonth]:
        """Return closed months in order; one in which nothing cost anything may be left out."""
        return await self._months.list_months(tx, after, limit)

    async def reconcile(self, tx: Tx, month: str, provider: str, invoice: str) -> Reconciliation:
        """Return where a provider's invoice (CSV) and the ledger differ, line by line.

        ``provider`` is openai, anthropic or vertex; calls of its models alone are compared. What
        corrects the month counts to it, whenever it was booked, and what corrects another does not.
        """
        if provider not in PROVIDERS:
            raise PilotageError(
                "invalid_request",
                f"{provider[:40]!r} is no provider.",
                hint=f"There are: {', '.join(PROVIDERS)}.",
                param="provider",
            )
        lines = read_invoice(invoice)
        statement = await self.make_statement(tx, month)
        own = [row for row in statement.rows if not row["x_CorrectsPeriod"]]
        first, _ = _find_days(month)
        later = Span(since=first, until=END_OF_DAYS, corrects=month)
        _, _, corrections = await self._make_rows(tx, later, None)
        theirs = [row for row in (*own, *corrections) if row["ProviderName"] == PROVIDERS[provider]]
        return reconcile(lines, theirs, month)

    async def _recall(
        self, tx: Tx, span: Span, statement: Statement, closing: ClosedMonth | None
    ) -> list[tuple[int, int]]:
        """Return what calls and entries of a month must cost: by the ledger, and as it closed."""
        by_ledger = (await self._costs.sum_ledger(tx, span), statement.entries_nano)
        if closing is None:
            return [by_ledger]
        if closing.month != statement.month:
            return [by_ledger, (0, 0)]  # nothing had cost anything when a later one was closed
        return [by_ledger, (closing.calls_nano, closing.entries_nano)]

    async def _make_rows(
        self, tx: Tx, span: Span, closing: ClosedMonth | None
    ) -> tuple[Sequence[CostLine], Sequence[CostEntry], list[FocusRow]]:
        lines = await self._costs.list_lines(tx, span)
        entries = await self._costs.list_shares(tx, span)
        if closing is None:
            rates = await self._insights.find_rates(tx, lines)
        else:
            rates = await self._months.list_rates(tx, closing.month)
        names = await self._name(tx, is_closed=closing is not None)
        return lines, entries, list(make_rows(lines, entries, rates, names))

    async def _name(self, tx: Tx, *, is_closed: bool) -> Names:
        project = await self._identity.get_project(tx, tx.project_id)
        tenants = await self._identity.list_tenants(tx)
        return Names(
            account=project.name,
            tenants={tenant.id: tenant.name for tenant in tenants} | {SHADOW_TENANT: SHADOW_TENANT},
            upstreams=await self._name_upstreams(tx),
            is_closed=is_closed,
        )


def _find_days(month: str) -> tuple[str, str]:
    if not _MONTH.fullmatch(month) or not "0001-01" <= month < "9999-12":
        raise PilotageError(
            "invalid_request",
            f"{month[:40]!r} is not a month.",
            hint="Write it as 2026-03.",
            param="month",
        )
    _, first, after = find_month(f"{month}-01")
    return first, after
