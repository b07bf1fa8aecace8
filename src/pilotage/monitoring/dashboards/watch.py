"""Rules with which a Prometheus watches over Pilotage itself, and what it is to scrape.

An installation tells of its models' alerts itself. Whether it still does, only somebody else can
say: a process that is gone, a disk that is full, a reader that stands.
"""

from typing import Any, NamedTuple

Json = dict[str, Any]
GATEWAYS, CONTROL = "pilotage-gateway", "pilotage-control"
_GIVEN_UP = 'pilotage_notices{state="failed"}'
_BEHIND = "pilotage_spool_sequence - on (slot) group_left () pilotage_ledger_position"


class Watch(NamedTuple):
    """One rule: what is wrong, for how long before somebody is told, and what to say."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    advice: str


WATCHES = (
    Watch(
        "GatewayAway",
        f'up{{job="{GATEWAYS}"}} == 0',
        "1m",
        "critical",
        "The gateway {{ $labels.instance }} does not answer.",
        "Look at its log; `pilotage doctor` says what it cannot reach.",
    ),
    Watch(
        "GatewayTakesNoCalls",
        "pilotage_ready == 0",
        "1m",
        "critical",
        "The gateway process {{ $labels.slot }} takes no calls.",
        "Its door says why: GET /readyz.",
    ),
    Watch(
        "ControlPlaneAway",
        f'up{{job="{CONTROL}"}} == 0',
        "2m",
        "error",
        "The control plane does not answer: nothing can be changed, alerts are not evaluated.",
        "Gateways go on with what they have until their Snapshot expires.",
    ),
    Watch(
        "SnapshotExpires",
        "pilotage_snapshot_expires_seconds < 4 * 3600",
        "5m",
        "error",
        "The gateway process {{ $labels.slot }} stops taking calls when its Snapshot expires.",
        "See why it gets no newer one: pilotage gateways list",
    ),
    Watch(
        "SpoolFull",
        "pilotage_spool_full == 1",
        "0s",
        "critical",
        "The disk of {{ $labels.slot }} is full: calls are refused.",
        "Free room on the disk of the data folder, or lower spool.retention.",
    ),
    Watch(
        "FramesDropped",
        "increase(pilotage_spool_dropped_total[5m]) > 0",
        "0s",
        "critical",
        "Call frames of {{ $labels.slot }} found no room: the ledger lacks them.",
        "What they cost is in the provider's invoice; free room on the disk.",
    ),
    Watch(
        "DiskFills",
        "pilotage_disk_used_ratio > 0.85",
        "10m",
        "warning",
        "The spool's disk at {{ $labels.instance }} is {{ $value | humanizePercentage }} full.",
        "At 90 % the request log and traces stop; when it is full, calls are refused.",
    ),
    Watch(
        "LedgerBehind",
        f"{_BEHIND} > 10000",
        "5m",
        "error",
        "The ledger has {{ $value | humanize }} frames of {{ $labels.slot }} still to read.",
        "See whether a worker fails: pilotage_worker_failures",
    ),
    Watch(
        "SpoolHeldUp",
        "pilotage_spools_held_up > 0",
        "5m",
        "error",
        "The {{ $labels.reader }} cannot take the records of {{ $value }} spools.",
        "The control plane's log says why, once; often a disk is full.",
    ),
    Watch(
        "RecordsPassedOver",
        "increase(pilotage_spool_passed_over_total[15m]) > 0",
        "0s",
        "warning",
        "The {{ $labels.reader }} could make nothing of records of calls.",
        "The control plane's log names the first. Is a gateway newer than the control plane?",
    ),
    Watch(
        "WorkerFails",
        "pilotage_worker_failures > 3",
        "5m",
        "error",
        "The worker {{ $labels.worker }} has failed {{ $value }} times in a row.",
        "The control plane's log says why, once.",
    ),
    Watch(
        "AlertsNotLookedAt",
        "time() - pilotage_alerts_looked_at_seconds > 60",
        "1m",
        "critical",
        "Alert rules were last looked at {{ $value | humanizeDuration }} ago: nobody is told.",
        "See whether the worker alerts fails: pilotage_worker_failures",
    ),
    Watch(
        "AlertRulesUnknown",
        "pilotage_alert_rules_unknown > 0",
        "10m",
        "error",
        "Nobody can say whether {{ $value }} alert rules hold.",
        "Each says why: pilotage alerts rules. See also whether the worker rollups fails.",
    ),
    Watch(
        "NoticesWait",
        'pilotage_notices{state="waiting"} > 0',
        "15m",
        "error",
        "Nobody is told through {{ $labels.channel }}: {{ $value }} notices wait.",
        "Ask it: pilotage channels test {{ $labels.channel }}",
    ),
    Watch(
        "NoticesGivenUp",
        f"{_GIVEN_UP} > ({_GIVEN_UP} offset 15m or 0 * {_GIVEN_UP})",
        "0s",
        "error",
        "Notices through {{ $labels.channel }} were given up: people were not told.",
        "See which and why: pilotage notices list --state failed",
    ),
    Watch(
        "CounterStoreAway",
        "pilotage_counter_store_away == 1",
        "1m",
        "error",
        "{{ $labels.slot }} shares no limits: it grants its own slices only.",
        "See whether the store answers: counters.url",
    ),
)


def write_rules() -> Json:
    """Return the rules as a rule file of Prometheus."""
    return {
        "groups": [
            {
                "name": "pilotage-itself",
                "rules": [
                    {
                        "alert": watch.name,
                        "expr": watch.expr,
                        "for": watch.lasting,
                        "labels": {"severity": watch.severity, "team": "platform"},
                        "annotations": {"summary": watch.summary, "description": watch.advice},
                    }
                    for watch in WATCHES
                ],
            }
        ]
    }


def write_scrapes(
    gateways: tuple[str, ...] = ("127.0.0.1:8080",),
    control: str = "127.0.0.1:8081",
    alertmanager: str = "127.0.0.1:9093",
) -> Json:
    """Return a configuration of Prometheus; relative paths are below its own folder."""
    credential = {"type": "Bearer", "credentials_file": "pilotage.credential"}
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": GATEWAYS, "static_configs": [{"targets": list(gateways)}]},
            {
                "job_name": CONTROL,
                "authorization": credential,
                "static_configs": [{"targets": [control]}],
            },
        ],
    }


def write_datasource(prometheus: str = "http://127.0.0.1:9090") -> Json:
    """Return how Grafana is told of Prometheus when it starts."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": prometheus,
                "isDefault": True,
                "jsonData": {"timeInterval": "15s"},
            }
        ],
    }


def write_provider() -> Json:
    """Return how Grafana is told of the dashboards when it starts."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "pilotage",
                "folder": "Pilotage",
                "type": "file",
                "options": {"path": "/etc/grafana/dashboards/pilotage"},
            }
        ],
    }
