"""Who calls does not notice that calls are copied to a shadow, or replayed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "shadow_latency.py"
MOST = 1.01


def measure(folder: Path, *options: str) -> dict[str, Any]:
    output = folder / "latency.json"
    command = [sys.executable, str(BENCH), *options, "--json", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    found: dict[str, Any] = json.loads(output.read_text())
    assert list(found) == ["bare", "10 %", "100 %", "replay"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_bench_copies_what_it_says(tmp_path: Path) -> None:
    found = measure(tmp_path, "--pairs", "1", "--seconds", "2", "--rate", "20")
    assert found["bare"]["copies"] == found["replay"]["copies"] == 0
    assert 0 < found["10 %"]["copies"] < 30
    assert found["100 %"]["copies"] == 80
    assert all(p99_ms >= 200 for one in found.values() for p99_ms in one["p99_ms"])


@pytest.mark.nightly
@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_the_p99_of_calls_changes_by_less_than_1_percent(tmp_path: Path) -> None:
    found = measure(tmp_path, "--pairs", "20")
    assert max(one["ratio"] for one in found.values()) <= MOST
