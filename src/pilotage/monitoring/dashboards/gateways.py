"""Rows about the gateways themselves and the targets that they ask."""

from pilotage.monitoring.dashboards.series import LEDGER_LAG, RATE
from pilotage.monitoring.dashboards.types import Kind, Panel, Query, Row, Unit

TARGETS = Row(
    title="Targets",
    panels=(
        Panel(
            title="Attempts that failed, by arm and code",
            kind=Kind.LINES,
            unit=Unit.PER_SECOND,
            queries=(
                Query(
                    expr=f"sum by (arm, code) (rate(pilotage_failed_attempts_total[{RATE}]))",
                    legend="{{arm}} {{code}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Attempts after the first",
            kind=Kind.LINES,
            unit=Unit.PER_SECOND,
            queries=(
                Query(expr=f"sum(rate(pilotage_further_attempts_total[{RATE}]))", legend="all"),
            ),
            width=6,
        ),
        Panel(
            title="Targets at rest",
            kind=Kind.LINES,
            queries=(Query(expr="sum by (target) (pilotage_breaker_open)", legend="{{target}}"),),
            width=6,
            help="After failures a target is asked nothing for a while; counted in processes.",
        ),
        Panel(
            title="Flagged calls",
            kind=Kind.LINES,
            unit=Unit.PER_SECOND,
            queries=(
                Query(
                    expr=f"sum by (flag) (rate(pilotage_flagged_calls_total[{RATE}]))",
                    legend="{{flag}}",
                ),
            ),
            width=6,
        ),
    ),
)
GATEWAYS = Row(
    title="Gateways",
    panels=(
        Panel(
            title="Age of the Snapshot",
            kind=Kind.LINES,
            unit=Unit.SECONDS,
            queries=(Query(expr="pilotage_snapshot_age_seconds", legend="{{instance}} {{slot}}"),),
            width=6,
        ),
        Panel(
            title="Call frames that wait",
            kind=Kind.LINES,
            queries=(
                Query(expr="pilotage_spool_pending", legend="{{slot}} for the disk"),
                LEDGER_LAG,
            ),
            width=6,
            help="Frames are read within a second; a line that climbs is a reader that stands.",
        ),
        Panel(
            title="Disk of the spool",
            kind=Kind.LINES,
            unit=Unit.SHARE,
            queries=(Query(expr="pilotage_disk_used_ratio", legend="{{instance}} {{slot}}"),),
            width=6,
            warn=0.8,
            bad=0.9,
            most=1,
        ),
        Panel(
            title="Memory of processes",
            kind=Kind.LINES,
            unit=Unit.BYTES,
            queries=(
                Query(
                    expr='process_resident_memory_bytes{job=~"pilotage.*"}',
                    legend="{{job}} {{slot}}",
                ),
            ),
            width=6,
        ),
    ),
)
