"""The board of alerts: what fires, and whether the parts that would say so work."""

from pilotage.monitoring.dashboards.series import LEDGER_LAG, PROJECT
from pilotage.monitoring.dashboards.types import Board, Kind, Panel, Query, Row, Unit

_MINE = 'project=~"$project"'


def make_alerts() -> Board:
    """Describe the board that whoever is on call opens first."""
    return Board(
        name="alerts",
        uid="pilotage-alerts",
        title="Pilotage / Alerts",
        help="Alerts by rule and severity, and the workers that find them.",
        variables=(PROJECT,),
        rows=(_ALERTS, _WORKERS),
    )


_ALERTS = Row(
    title="Alerts",
    panels=(
        Panel(
            title="Firing now",
            kind=Kind.TABLE,
            queries=(Query(expr=f'pilotage_alert{{{_MINE},state="firing"}}'),),
            columns=(
                ("severity", "Severity"),
                ("rule", "Rule"),
                ("project", "Project"),
                ("alias", "Alias"),
                ("team", "Team"),
            ),
            width=16,
        ),
        Panel(
            title="By severity",
            kind=Kind.BARS,
            queries=(
                Query(
                    expr=f'sum by (severity) (pilotage_alert{{{_MINE},state="firing"}})',
                    legend="{{severity}}",
                ),
            ),
            bad=1,
        ),
        Panel(
            title="Alerts over time",
            kind=Kind.LINES,
            queries=(
                Query(
                    expr=f"sum by (rule, state) (pilotage_alert{{{_MINE}}})",
                    legend="{{rule}} {{state}}",
                ),
            ),
            width=24,
            is_stacked=True,
        ),
    ),
)
_WORKERS = Row(
    title="What finds them",
    panels=(
        Panel(
            title="Workers that fail",
            kind=Kind.LINES,
            queries=(Query(expr="pilotage_worker_failures > 0", legend="{{worker}}"),),
            width=6,
            help="Failures in a row since a worker last did its work.",
        ),
        Panel(
            title="Frames that the ledger has not read",
            kind=Kind.LINES,
            queries=(LEDGER_LAG,),
            width=6,
        ),
        Panel(
            title="Notices",
            kind=Kind.LINES,
            queries=(
                Query(
                    expr=f"sum by (channel, state) (pilotage_notices{{{_MINE}}})",
                    legend="{{channel}} {{state}}",
                ),
            ),
            width=6,
            help="Those that wait for a channel; those that arrived or were given up in a month.",
        ),
        Panel(
            title="Memory of the control process",
            kind=Kind.LINES,
            unit=Unit.BYTES,
            queries=(
                Query(expr='process_resident_memory_bytes{job="pilotage-control"}', legend="all"),
            ),
            width=6,
        ),
    ),
)
