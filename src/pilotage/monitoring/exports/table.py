"""What the control process shows beside the metrics of the catalogue.

The page is made of this table, and so is its reference.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.monitoring.exports.types import Family, FamilyKind, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A metric, and the labels of its series in their order."""

    name: str
    kind: FamilyKind = FamilyKind.GAUGE
    help: str
    labels: tuple[str, ...] = ()

    def fill(self, rows: Iterable[tuple[tuple[str, ...], float]]) -> Family:
        """Return the metric with its numbers: the values of its labels and a number each."""
        samples = tuple(
            Sample(tuple(zip(self.labels, values, strict=True)), number) for values, number in rows
        )
        return Family(name=self.name, kind=self.kind, help=self.help, samples=samples)


ALERT = Shown(
    name="pilotage_alert",
    help="1 for an alert that is pending or fires.",
    labels=("project", "rule", "severity", "team", "state", "alias", "tenant"),
)
ALERTS_LOOKED_AT = Shown(
    name="pilotage_alerts_looked_at_seconds",
    help="When all alert rules were last looked at, in seconds since 1970.",
)
ALERT_RULES_UNKNOWN = Shown(
    name="pilotage_alert_rules_unknown",
    help="Alert rules of which nobody can say whether they hold: their numbers cannot be read.",
)
LEDGER_POSITION = Shown(
    name="pilotage_ledger_position",
    help="The number of the last call frame that the ledger has read.",
    labels=("slot",),
)
SPOOLS_HELD_UP = Shown(
    name="pilotage_spools_held_up",
    help="Spools whose records a reader cannot keep now: a full disk, a file that cannot be read.",
    labels=("reader",),
)
RECORDS_PASSED_OVER = Shown(
    name="pilotage_spool_passed_over_total",
    kind=FamilyKind.COUNTER,
    help="Records of spools that a reader could make nothing of.",
    labels=("reader",),
)
SPOOL_LOSSES = Shown(
    name="pilotage_spool_losses_total",
    kind=FamilyKind.COUNTER,
    help="Places in spools where a reader found that records are missing.",
    labels=("reader",),
)
NOTICES = Shown(
    name="pilotage_notices",
    help="Notices that wait for a channel, and those that arrived or were given up in a month.",
    labels=("project", "channel", "state"),
)
WORKER_FAILURES = Shown(
    name="pilotage_worker_failures",
    help="Failures in a row of a worker of the control process.",
    labels=("worker",),
)
BUILD = Shown(
    name="pilotage_control_build_info",
    help="1, with the version that runs.",
    labels=("version", "python"),
)
CPU = Shown(
    name="process_cpu_seconds_total",
    kind=FamilyKind.COUNTER,
    help="Processor time of the process.",
)
MEMORY = Shown(name="process_resident_memory_bytes", help="Memory of the process.")
FILES = Shown(name="process_open_fds", help="Open files and sockets of the process.")
CONTROL = (
    ALERT,
    ALERTS_LOOKED_AT,
    ALERT_RULES_UNKNOWN,
    NOTICES,
    LEDGER_POSITION,
    SPOOLS_HELD_UP,
    RECORDS_PASSED_OVER,
    SPOOL_LOSSES,
    WORKER_FAILURES,
    BUILD,
    CPU,
    MEMORY,
    FILES,
)
