"""A gateway that has answered a great many calls is as fast and as small as it was at first."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOAK = Path(__file__).parents[1] / "bench" / "soak.py"
MISSING = [tool for tool in ("wrk", "cc", "taskset") if shutil.which(tool) is None]
GROWTH_MB = 5.0
SLOWER = 1.1

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


def soak(calls: int, folder: Path) -> dict[str, Any]:
    output = folder / "soak.json"
    command = [sys.executable, str(SOAK), "--calls", str(calls), "--json", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    found: dict[str, Any] = json.loads(output.read_text())
    assert found["calls"] >= calls
    assert found["failed"] == 0
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_calls_stay_in_no_memory(tmp_path: Path) -> None:
    assert soak(100_000, tmp_path)["grown_mb"] < GROWTH_MB


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_million_calls_leave_the_gateway_as_it_was(tmp_path: Path) -> None:
    found = soak(1_000_000, tmp_path)
    assert found["grown_mb"] < GROWTH_MB
    assert found["last_p99_ms"] <= SLOWER * found["first_p99_ms"]
