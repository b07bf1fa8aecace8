"""The bench runs and measures; what it measures is judged by people, on a quiet machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "bench.py"
MISSING = [tool for tool in ("wrk", "nginx", "cc", "taskset") if shutil.which(tool) is None]

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_the_bench_measures_the_gateway_beside_nginx(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, str(BENCH), "--seconds", "1", "--rounds", "1", "--no-peers"]
    done = subprocess.run(
        [*command, "--json", str(output)], capture_output=True, text=True, check=True
    )
    print(done.stdout)
    results = json.loads(output.read_text())
    assert list(results["pairs"]) == ["nginx"]
    for pair in results["pairs"]["nginx"].values():
        for row in pair.values():
            assert row["failed"] == 0
            assert row["cpu_us"] > 0
    assert results["latency"]["gateway"]["plain"]["failed"] == 0
    assert results["start_s"] <= 2.0
    assert results["rss_mb"] <= 80
    assert results["many_keys"]["switch_cpu_ms"] <= 20
