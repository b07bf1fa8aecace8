"""How the boards ask for numbers: metrics by the filters that their variables stand for.

A metric may have more series than those by its own labels (a tenant's, an arm's, the whole
project's), so each query says which of them it means.
"""

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.duration import UNITS_US, format_duration
from pilotage.monitoring.dashboards.types import Query, Variable

PROJECT = Variable(name="project", label="Project", source="pilotage_request_count")
ALIAS = Variable(name="alias", label="Alias", source="pilotage_request_count")
WINDOW = Variable(name="window", label="Window", values=("5m", "1m", "1h"), is_single=True)
RATE = "$__rate_interval"
LEDGER_LAG = Query(
    expr="pilotage_spool_sequence - on (slot) group_left () pilotage_ledger_position",
    legend="{{slot}} for the ledger",
)


def ask(metric: str, legend: str = "") -> Query:
    """Ask for a metric of the catalogue, by the labels that it has by itself."""
    known = METRICS[metric]
    filters = ['project=~"$project"']
    if known.window_us:
        filters.append(f'window="{_choose_window(known.window_us)}"')
    for label in known.labels:
        if label not in known.split_by:
            filters.append(f'{label}=""')
        elif label == ALIAS.name:
            filters += ['alias=~"$alias"', 'alias!=""']
    name = legend or ("{{alias}}" if ALIAS.name in known.split_by else "{{project}}")
    return Query(expr=f"{known.gauge}{{{','.join(filters)}}}", legend=name)


def ask_rate(counter: str, by: str, legend: str = "") -> Query:
    """Ask how fast a counter of the gateways grows, by labels; of the aliases that are chosen."""
    return Query(
        expr=f'sum by ({by}) (rate({counter}{{alias=~"$alias"}}[{RATE}]))',
        legend=legend or f"{{{{{by}}}}}",
    )


def ask_quantile(histogram: str, share: float, labels: str = "") -> Query:
    """Ask for a quantile of a histogram of the gateways."""
    rate = f"sum by (le) (rate({histogram}_bucket{{{labels}}}[{RATE}]))"
    return Query(expr=f"histogram_quantile({share}, {rate})", legend=f"p{share * 100:g}")


def _choose_window(usual_us: int) -> str:
    """Return the window that is chosen, or the one that a slower metric is always of."""
    return "$window" if usual_us == UNITS_US["m"] else format_duration(usual_us)
