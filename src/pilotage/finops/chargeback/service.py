"""The verbs of chargeback: the statement of a month, and an invoice beside it. Read-only."""

import re
from collections.abc import Awaitable, Callable, Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.core.names import SHADOW_TENANT
from pilotage.finops.budgets.rules import find_period
from pilotage.finops.budgets.types import BudgetPer
from pilotage.finops.chargeback.invoice_rules import read_invoice, reconcile
from pilotage.finops.chargeback.rules import PROVIDERS, make_rows, sum_rows, to_usd
from pilotage.finops.chargeback.types import FocusRow, Names, Reconciliation, Statement
from pilotage.finops.costs.insights import CostInsights
from pilotage.finops.costs.service import END_OF_DAYS, CostService
from pilotage.finops.costs.types import CostBy, CostEntry, CostLine, Span
from pilotage.finops.rules import get_day
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
        identity: IdentityService,
        name_upstreams: Callable[[Tx], Awaitable[dict[str, tuple[str, str]]]],
    ) -> None:
        self._costs = costs
        self._insights = insights
        self._identity = identity
        self._name_upstreams = name_upstreams

    async def make_statement(self, tx: Tx, month: str, tenant: str = "") -> Statement:
        """Return a month's rows, of all together, or of what ``find_payer_id`` finds for a tenant.

        Raises ``invalid_request`` for what is no month, ``internal_error`` rather than rows that do
        not add up to the ledger. Run it in a transaction that sees one moment.
        """
        first, after = _find_days(month)
        only: tuple[tuple[CostBy, str], ...] = ()
        if tenant:
            only = ((CostBy.TENANT, await self._identity.find_payer_id(tx, tenant)),)
        span = Span(since=first, until=after, only=only)
        lines, entries, rows = await self._make_rows(tx, span)
        statement = Statement(
            month=month,
            rows=rows,
            calls_nano=sum(line.cost_nano for line in lines),
            entries_nano=sum(entry.cost_nano for entry in entries),
            is_closed=after <= get_day(tx.now_us),
        )
        recorded = statement.calls_nano if tenant else await self._costs.sum_ledger(tx, span)
        if recorded != statement.calls_nano or sum_rows(rows) != to_usd(
            statement.total_nano * 1_000_000
        ):
            raise PilotageError(
                "internal_error",
                f"The rows of {month} do not add up to its ledger: "
                f"{format_usd(statement.calls_nano)} and {format_usd(recorded)} USD.",
                hint="Do not bill by them. Keep the database as it is and report this.",
            )
        return statement

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
        _, _, corrections = await self._make_rows(tx, later)
        theirs = [row for row in (*own, *corrections) if row["ProviderName"] == PROVIDERS[provider]]
        return reconcile(lines, theirs, month)

    async def _make_rows(
        self, tx: Tx, span: Span
    ) -> tuple[Sequence[CostLine], Sequence[CostEntry], list[FocusRow]]:
        lines = await self._costs.list_lines(tx, span)
        entries = await self._costs.list_entries_of(tx, span)
        rates = await self._insights.find_rates(tx, lines)
        return lines, entries, list(make_rows(lines, entries, rates, await self._name(tx)))

    async def _name(self, tx: Tx) -> Names:
        project = await self._identity.get_project(tx, tx.project_id)
        tenants = await self._identity.list_tenants(tx)
        return Names(
            account=project.name,
            tenants={tenant.id: tenant.name for tenant in tenants} | {SHADOW_TENANT: SHADOW_TENANT},
            upstreams=await self._name_upstreams(tx),
        )


def _find_days(month: str) -> tuple[str, str]:
    if not _MONTH.fullmatch(month) or not "0001-01" <= month < "9999-12":
        raise PilotageError(
            "invalid_request",
            f"{month[:40]!r} is not a month.",
            hint="Write it as 2026-03.",
            param="month",
        )
    _, first, after = find_period(BudgetPer.MONTH, f"{month}-01")
    return first, after
