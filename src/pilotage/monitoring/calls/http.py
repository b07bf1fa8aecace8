"""Control-plane routes of single calls: questions in SQL."""

from typing import Any

import msgspec

from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Body, Route, View
from pilotage.monitoring.calls.queries import Asked, CallQueries
from pilotage.monitoring.calls.types import QueryResult
from pilotage.monitoring.rollups.asking import read_time


class QueryBody(Body):
    """One SELECT about ``calls``, at most as many rows and as many seconds as the settings allow.

    ``tenant``, ``since`` and ``until`` leave only that tenant's calls to be seen, and those that
    ended from one time to before another (``2026-01-31``, ``2026-01-31T12:00:00Z``).
    """

    sql: str
    tenant: str = ""
    since: str = ""
    until: str = ""
    limit: int | None = None
    timeout_s: float | None = None


class ColumnView(View):
    """A column and its type."""

    name: str
    type: str


class QueryView(View):
    """What a query found; ``is_cut`` says that there were more rows than asked for.

    Decimals, and whole numbers of more than 64 bits, are texts; times are UTC. ``missing`` counts
    the files of calls that are not there or damaged: without any the answer is whole.
    """

    columns: list[ColumnView]
    rows: list[list[Any]]
    is_cut: bool
    segments: int
    missing: int
    elapsed_ms: float


def query_routes(queries: CallQueries, identity: IdentityService) -> list[Route]:
    """List the routes of queries."""

    async def run_query(call: ApiCall, body: QueryBody) -> QueryView:
        """Ask for calls in SQL. Nothing of the answer is kept; hanging up ends the query."""
        async with call.read() as tx:
            tenant_id = body.tenant
            if tenant_id and not tenant_id.startswith("ten_"):  # calls keep deleted tenants' ids
                tenant_id = (await identity.get_tenant(tx, tenant_id)).id
            scope = await queries.find_scope(
                tx,
                read_time(body.since, "since") if body.since else 0,
                read_time(body.until, "until") if body.until else None,
            )
        asked = Asked(
            sql=body.sql,
            tenant_id=tenant_id,
            most_rows=body.limit,
            timeout_s=body.timeout_s,
        )
        return _show(await queries.run(asked, scope, call.wait_gone))

    return [
        Route(
            method="POST",
            path="/queries",
            permission="monitoring.queries.run",
            handler=run_query,
            secrets=("rows",),
        )
    ]


def _show(result: QueryResult) -> QueryView:
    return QueryView(
        columns=[ColumnView.of(column) for column in result.answer.columns],
        rows=[msgspec.json.decode(row) for row in result.answer.rows],
        is_cut=result.answer.is_cut,
        segments=result.segments,
        missing=result.answer.missing,
        elapsed_ms=result.elapsed_us / 1e3,
    )
