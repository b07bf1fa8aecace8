"""The files for Prometheus are what Prometheus takes, and each rule fires when it should."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.monitoring.dashboards.watch import WATCHES, Watch, write_rules

ROOT = Path(__file__).parents[2]
PROGRAM = shutil.which("promtool")
FILES = ROOT / "deploy" / "prometheus"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="promtool (Debian's prometheus) is not installed"),
]
SLOT = 'instance="a",job="pilotage-gateway",slot="s0"'
# By rule: the series that make it fire, and what they are when all is well.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "GatewayAway": (
        {'up{job="pilotage-gateway"}': "0x80"},
        {'up{job="pilotage-gateway"}': "1x80"},
    ),
    "GatewayTakesNoCalls": (
        {f"pilotage_ready{{{SLOT}}}": "0x80"},
        {f"pilotage_ready{{{SLOT}}}": "1x80"},
    ),
    "ControlPlaneAway": (
        {'up{job="pilotage-control"}': "0x80"},
        {'up{job="pilotage-control"}': "1x80"},
    ),
    "SnapshotExpires": (
        {f"pilotage_snapshot_expires_seconds{{{SLOT}}}": "600x80"},
        {f"pilotage_snapshot_expires_seconds{{{SLOT}}}": "80000x80"},
    ),
    "SpoolFull": (
        {f"pilotage_spool_full{{{SLOT}}}": "1x80"},
        {f"pilotage_spool_full{{{SLOT}}}": "0x80"},
    ),
    "FramesDropped": (
        {f"pilotage_spool_dropped_total{{{SLOT}}}": "0+1x80"},
        {f"pilotage_spool_dropped_total{{{SLOT}}}": "5x80"},
    ),
    "DiskFills": (
        {f"pilotage_disk_used_ratio{{{SLOT}}}": "0.9x80"},
        {f"pilotage_disk_used_ratio{{{SLOT}}}": "0.8x80"},
    ),
    "LedgerBehind": (
        {
            f"pilotage_spool_sequence{{{SLOT}}}": "20000x80",
            'pilotage_ledger_position{job="pilotage-control",slot="s0"}': "5000x80",
        },
        {
            f"pilotage_spool_sequence{{{SLOT}}}": "20000x80",
            'pilotage_ledger_position{job="pilotage-control",slot="s0"}': "19990x80",
        },
    ),
    "SpoolHeldUp": (
        {'pilotage_spools_held_up{reader="rollups"}': "1x80"},
        {'pilotage_spools_held_up{reader="rollups"}': "0x80"},
    ),
    "RecordsPassedOver": (
        {'pilotage_spool_passed_over_total{reader="ledger"}': "3x40 5x40"},
        {'pilotage_spool_passed_over_total{reader="ledger"}': "3x80"},
    ),
    "WorkerFails": (
        {'pilotage_worker_failures{worker="ledger"}': "9x80"},
        {'pilotage_worker_failures{worker="ledger"}': "1x80"},
    ),
    "AlertsNotLookedAt": (
        {"pilotage_alerts_looked_at_seconds": "0+15x40 600x40"},
        {"pilotage_alerts_looked_at_seconds": "0+15x80"},
    ),
    "AlertRulesUnknown": (
        {"pilotage_alert_rules_unknown": "3x80"},
        {"pilotage_alert_rules_unknown": "0x80"},
    ),
    "NoticesWait": (
        {'pilotage_notices{channel="mail",project="a",state="waiting"}': "3x80"},
        {
            'pilotage_notices{channel="mail",project="a",state="waiting"}': "0x80",
            'pilotage_notices{channel="mail",project="a",state="delivered"}': "9x80",
        },
    ),
    "NoticesGivenUp": (
        {'pilotage_notices{channel="mail",project="a",state="failed"}': "_x40 1x300"},
        {'pilotage_notices{channel="mail",project="a",state="failed"}': "1x80"},
    ),
    "CounterStoreAway": (
        {f"pilotage_counter_store_away{{{SLOT}}}": "1x80"},
        {f"pilotage_counter_store_away{{{SLOT}}}": "0x80"},
    ),
}


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(
        [str(PROGRAM), *command], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_valid(tmp_path: Path) -> None:
    copy = shutil.copytree(FILES, tmp_path / "prometheus")
    (copy / "pilotage.credential").write_text("secret")

    run("check", "config", "prometheus.yml", cwd=copy)


@pytest.mark.parametrize("watch", WATCHES, ids=lambda watch: watch.name)
def test_a_rule_fires_when_it_should_and_only_then(watch: Watch, tmp_path: Path) -> None:
    ill, well = CASES[watch.name]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(write_rules()))
    tests = [make_test(watch, ill, fires=True), make_test(watch, well, fires=False)]
    cases = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))

    run("test", "rules", "cases.yml", cwd=tmp_path)


def make_test(watch: Watch, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    """Return a unit test of promtool: how many alerts of the rule fire after 18 minutes."""
    count = f'count(ALERTS{{alertname="{watch.name}",alertstate="firing"}}) or vector(0)'
    expected = {"expr": count, "eval_time": "18m", "exp_samples": [{"labels": "{}", "value": 1.0}]}
    if not fires:
        expected["exp_samples"] = [{"labels": "{}", "value": 0.0}]
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [expected],
    }
