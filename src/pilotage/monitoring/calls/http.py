"""Control-plane routes of single calls: ask in SQL, see what runs, end it."""

from datetime import datetime
from typing import Any

import msgspec

from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Body, Route, View
from pilotage.monitoring.calls.queries import Asked, CallQueries
from pilotage.monitoring.calls.types import QueryResult


class QueryBody(Body):
    """One SELECT about ``calls``, at most as many rows and as many seconds as the settings allow.

    ``tenant`` leaves only that tenant's calls to be seen. ``id`` is a name of one's own, by which
    the query can be cancelled.
    """

    sql: str
    tenant: str = ""
    id: str = ""
    limit: int | None = None
    timeout_s: float | None = None


class ColumnView(View):
    """A column and its type."""

    name: str
    type: str


class QueryView(View):
    """What a query found; ``is_cut`` says that there were more rows than asked for.

    Decimals, and whole numbers of more than 64 bits, are texts; times are UTC. ``missing`` counts
    the files of calls that should be there and are not: without any the answer is whole.
    """

    id: str
    columns: list[ColumnView]
    rows: list[list[Any]]
    is_cut: bool
    segments: int
    missing: int
    elapsed_ms: float


class RunningQueryView(View):
    """A query that somebody waits for."""

    id: str
    principal_id: str
    tenant_id: str
    sql: str
    started_at: datetime


class RunningQueriesView(View):
    """The queries that run, oldest first; there are never more than a few."""

    items: list[RunningQueryView]


def query_routes(queries: CallQueries, identity: IdentityService) -> list[Route]:
    """List the routes of queries."""

    async def run_query(call: ApiCall, body: QueryBody) -> QueryView:
        """Ask for calls in SQL. The answer waits for the query; nothing of it is kept."""
        async with call.read() as tx:
            tenant_id = body.tenant
            if tenant_id and not tenant_id.startswith("ten_"):  # calls keep deleted tenants' ids
                tenant_id = (await identity.get_tenant(tx, tenant_id)).id
            project_id = tx.project_id
            segments = await queries.list_segments(tx)
        asked = Asked(
            sql=body.sql,
            project_id=project_id,
            principal_id=call.actor.principal_id,
            tenant_id=tenant_id,
            id=body.id,
            most_rows=body.limit,
            timeout_s=body.timeout_s,
        )
        return _show(await queries.run(asked, segments))

    async def list_queries(call: ApiCall) -> RunningQueriesView:
        """List the queries that run."""
        async with call.read() as tx:
            running = queries.list_running(tx.project_id)
        return RunningQueriesView(items=[RunningQueryView.of(item) for item in running])

    async def cancel_query(call: ApiCall, query: str) -> None:
        """End a query that runs; somebody else's with a permission of its own."""
        async with call.read() as tx:
            found = queries.find_running(tx.project_id, query)
        if found.principal_id != call.actor.principal_id:
            await call.require("monitoring.queries.cancel")
        queries.cancel(found)

    run = "monitoring.queries.run"
    return [
        Route(method="POST", path="/queries", permission=run, handler=run_query, secrets=("rows",)),
        Route(method="GET", path="/queries", permission=run, handler=list_queries),
        Route(
            method="DELETE",
            path="/queries/{query}",
            permission=run,
            handler=cancel_query,
            status=204,
        ),
    ]


def _show(result: QueryResult) -> QueryView:
    return QueryView(
        id=result.id,
        columns=[ColumnView.of(column) for column in result.answer.columns],
        rows=[msgspec.json.decode(row) for row in result.answer.rows],
        is_cut=result.answer.is_cut,
        segments=result.segments,
        missing=result.missing,
        elapsed_ms=result.elapsed_us / 1e3,
    )
