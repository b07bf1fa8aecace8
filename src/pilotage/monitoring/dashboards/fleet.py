"""The board of the fleet: traffic, latency, machines and gateways."""

from pilotage.monitoring.dashboards.gateways import GATEWAYS, TARGETS
from pilotage.monitoring.dashboards.series import (
    ALIAS,
    PROJECT,
    RATE,
    WINDOW,
    ask,
    ask_quantile,
    ask_rate,
)
from pilotage.monitoring.dashboards.types import Board, Kind, Panel, Query, Row, Unit


def make_fleet() -> Board:
    """Describe the board on which an operator sees whether all is well."""
    return Board(
        name="fleet",
        uid="pilotage-fleet",
        title="Pilotage / Fleet",
        help="Traffic, latency and errors of every alias, and the gateways that carry them.",
        variables=(PROJECT, ALIAS, WINDOW),
        rows=(
            _NOW,
            make_traffic(),
            make_latency(),
            _TOKENS,
            make_machines(),
            TARGETS,
            GATEWAYS,
        ),
    )


def make_traffic() -> Row:
    """Describe how many calls there are and what becomes of them."""
    return Row(
        title="Traffic",
        panels=(
            Panel(
                title="Calls by alias",
                kind=Kind.LINES,
                unit=Unit.PER_SECOND,
                queries=(ask("request_rate"),),
                is_stacked=True,
            ),
            Panel(
                title="Share of errors by alias",
                kind=Kind.LINES,
                unit=Unit.SHARE,
                queries=(ask("error_rate"),),
                warn=0.01,
                bad=0.05,
                help="Of calls that were not refused. A client that left is no error.",
            ),
            Panel(
                title="Calls by outcome",
                kind=Kind.LINES,
                unit=Unit.PER_SECOND,
                queries=(ask_rate("pilotage_calls_total", "outcome"),),
                is_stacked=True,
            ),
            Panel(
                title="Refusals by code",
                kind=Kind.LINES,
                unit=Unit.PER_SECOND,
                queries=(
                    Query(
                        expr=f"sum by (code) (rate(pilotage_refusals_total[{RATE}]))",
                        legend="{{code}}",
                    ),
                ),
                help="By a limit, a budget or a rule, or for what a call asked.",
            ),
            Panel(
                title="Calls by arm",
                kind=Kind.LINES,
                unit=Unit.PER_SECOND,
                queries=(ask_rate("pilotage_calls_total", "alias, arm", "{{alias}} {{arm}}"),),
                help="Which part of an alias's traffic each of its arms answers.",
            ),
            Panel(
                title="Time in queues, 95th percentile",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p95_queue"),),
            ),
        ),
    )


def make_latency() -> Row:
    """Describe how long calls take, from the sketches of the rollups."""
    return Row(
        title="Latency",
        panels=(
            Panel(
                title="Median",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p50_latency"),),
                help="Half of the calls took at most so long.",
            ),
            Panel(
                title="95th percentile",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p95_latency"),),
            ),
            Panel(
                title="99th percentile",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p99_latency"),),
            ),
            Panel(
                title="Time to first token, 95th percentile",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p95_ttft"),),
                help="Of streams: from the call's beginning to the first content.",
            ),
            Panel(
                title="Time per output chunk, 95th percentile",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(ask("p95_time_per_chunk"),),
            ),
            Panel(
                title="Time inside the gateway",
                kind=Kind.LINES,
                unit=Unit.SECONDS,
                queries=(
                    ask_quantile("pilotage_overhead_seconds", 0.5, 'reply="plain"'),
                    ask_quantile("pilotage_overhead_seconds", 0.99, 'reply="plain"'),
                ),
                help="Of a call that is no stream: what was not spent waiting for a model.",
            ),
        ),
    )


def make_machines() -> Row:
    """Describe the replicas and what they take of their machines."""
    return Row(
        title="Replicas and machines",
        panels=(
            Panel(
                title="Replicas",
                kind=Kind.LINES,
                queries=(
                    ask("replica_count", "{{alias}} wanted"),
                    ask("ready_replicas", "{{alias}} ready"),
                ),
                width=6,
            ),
            Panel(
                title="Processor",
                kind=Kind.LINES,
                unit=Unit.SHARE,
                queries=(ask("cpu_usage"),),
                width=6,
                warn=0.8,
                bad=0.95,
            ),
            Panel(
                title="Memory",
                kind=Kind.LINES,
                unit=Unit.SHARE,
                queries=(ask("memory_usage"),),
                width=6,
                warn=0.8,
                bad=0.95,
            ),
            Panel(
                title="GPU",
                kind=Kind.LINES,
                unit=Unit.SHARE,
                queries=(ask("gpu_usage"),),
                width=6,
                help="Empty where no GPU is seen.",
            ),
        ),
    )


_NOW = Row(
    title="Now",
    panels=(
        Panel(
            title="Calls",
            kind=Kind.NUMBER,
            unit=Unit.PER_SECOND,
            queries=(Query(expr=f"sum({ask('request_rate').expr})"),),
            width=4,
            height=4,
        ),
        Panel(
            title="Errors",
            kind=Kind.NUMBER,
            unit=Unit.SHARE,
            queries=(
                Query(expr=f"sum({ask('error_count').expr}) / sum({ask('request_count').expr})"),
            ),
            width=4,
            height=4,
            warn=0.01,
            bad=0.05,
        ),
        Panel(
            title="Slowest alias, 95th percentile",
            kind=Kind.NUMBER,
            unit=Unit.SECONDS,
            queries=(Query(expr=f"max({ask('p95_latency').expr})"),),
            width=4,
            height=4,
        ),
        Panel(
            title="Calls that run",
            kind=Kind.NUMBER,
            queries=(Query(expr="sum(pilotage_open_calls)"),),
            width=4,
            height=4,
        ),
        Panel(
            title="Gateways that take calls",
            kind=Kind.NUMBER,
            queries=(Query(expr="sum(pilotage_ready)"),),
            width=4,
            height=4,
            warn=1,
            bad=1,
            is_low_bad=True,
        ),
        Panel(
            title="Alerts that fire",
            kind=Kind.NUMBER,
            queries=(Query(expr='count(pilotage_alert{state="firing"}) or vector(0)'),),
            width=4,
            height=4,
            bad=1,
        ),
    ),
)
_TOKENS = Row(
    title="Tokens",
    panels=(
        Panel(
            title="Tokens by alias",
            kind=Kind.LINES,
            unit=Unit.TOKENS_PER_SECOND,
            queries=(ask("throughput"),),
            width=12,
        ),
        Panel(
            title="Tokens by class",
            kind=Kind.LINES,
            unit=Unit.TOKENS_PER_SECOND,
            queries=(ask_rate("pilotage_tokens_total", "class"),),
            width=12,
            is_stacked=True,
        ),
    ),
)
