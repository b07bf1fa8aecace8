"""The board of cost: what is spent, on what, and how much of the budgets that is."""

from pilotage.monitoring.dashboards.series import ALIAS, PROJECT, WINDOW, ask, ask_rate
from pilotage.monitoring.dashboards.types import Board, Kind, Panel, Query, Row, Unit


def make_cost() -> Board:
    """Describe the board on which a finance partner sees what is spent."""
    return Board(
        name="cost",
        uid="pilotage-cost",
        title="Pilotage / Cost",
        help="What calls and replicas cost, and how much of the budgets is used.",
        variables=(PROJECT, ALIAS, WINDOW),
        rows=(_BUDGETS, make_spending(), _TENANTS),
        since="now-7d",
    )


def make_spending() -> Row:
    """Describe what each alias costs."""
    return Row(
        title="Spending",
        panels=(
            Panel(
                title="Cost of calls by alias, an hour",
                kind=Kind.LINES,
                unit=Unit.USD,
                queries=(
                    Query(
                        expr=f"3600 * ({ask_rate('pilotage_cost_usd_total', 'alias').expr})",
                        legend="{{alias}}",
                    ),
                ),
                is_stacked=True,
                help="As the gateways count it while it is spent.",
            ),
            Panel(
                title="Cost of a call",
                kind=Kind.LINES,
                unit=Unit.USD,
                queries=(ask("cost_per_request"),),
            ),
            Panel(
                title="Tokens by class",
                kind=Kind.LINES,
                unit=Unit.TOKENS_PER_SECOND,
                queries=(ask_rate("pilotage_tokens_total", "class"),),
                is_stacked=True,
            ),
        ),
    )


_BUDGETS = Row(
    title="Budgets",
    panels=(
        Panel(
            title="Today",
            kind=Kind.NUMBER,
            unit=Unit.USD,
            queries=(ask("daily_cost"),),
            width=6,
            height=5,
            help="Since midnight UTC.",
        ),
        Panel(
            title="This month",
            kind=Kind.NUMBER,
            unit=Unit.USD,
            queries=(ask("monthly_cost"),),
            width=6,
            height=5,
        ),
        Panel(
            title="Used of the budgets",
            kind=Kind.BARS,
            unit=Unit.SHARE,
            queries=(ask("budget_used"),),
            width=12,
            height=5,
            warn=0.5,
            bad=0.9,
            most=1,
        ),
        Panel(
            title="Cost and budget of a day",
            kind=Kind.LINES,
            unit=Unit.USD,
            queries=(
                ask("daily_cost", "{{project}} spent"),
                ask("budget", "{{project}} budget"),
            ),
            width=12,
        ),
        Panel(
            title="Cost of the last hour",
            kind=Kind.LINES,
            unit=Unit.USD,
            queries=(ask("hourly_cost"),),
            width=12,
        ),
    ),
)
_TENANTS = Row(
    title="Tenants",
    panels=(
        Panel(
            title="Cost by tenant, the last day",
            kind=Kind.BARS,
            unit=Unit.USD,
            queries=(
                Query(
                    expr="topk(20, sum by (tenant) (increase(pilotage_tenant_cost_usd_total[1d])))",
                    legend="{{tenant}}",
                ),
            ),
            width=8,
        ),
        Panel(
            title="Calls by tenant, the last day",
            kind=Kind.BARS,
            queries=(
                Query(
                    expr="topk(20, sum by (tenant) (increase(pilotage_tenant_calls_total[1d])))",
                    legend="{{tenant}}",
                ),
            ),
            width=8,
        ),
        Panel(
            title="Spent beyond the worst case, the last day",
            kind=Kind.NUMBER,
            unit=Unit.USD,
            queries=(Query(expr="sum(increase(pilotage_budget_overrun_usd_total[1d]))"),),
            width=8,
            help="What providers billed beyond what a call could cost by its limits.",
        ),
    ),
)
