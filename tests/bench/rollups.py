"""What counting calls costs, and how soon a month of them is summed up.

    python tests/bench/rollups.py [--frames 1000000] [--month 10000000] [--json FILE]

Counting reads spools of calls that begin and end, adds them to cells in SQLite and keeps each as a
row, as the control process does; frames per second of one core, threads included. The month is as
many calls in a segment for each day, asked for by tenant and model as ``pilotage query`` does.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import spool_counter
from pilotage.kit.clock import SystemClock
from pilotage.monitoring.calls.columns import STORED, CallColumn
from pilotage.monitoring.calls.queries import Asked, CallQueries
from pilotage.monitoring.calls.types import QueryLimits, Scope, Segment
from random_calls import make_chunks, write_spool

DAYS = 30
RUNS = 7
START_US = 1_760_000_000_000_000
MONTH = """
SELECT tenant_id, model, count(*), sum(cost_nano), sum(input_tokens), sum(output_tokens)
FROM calls GROUP BY ALL ORDER BY ALL
"""
VALUES = {  # of the n-th call
    "ended_at": f"make_timestamp({START_US} + n * 259000)",
    "call_id": "printf('call_%026d', n)",
    "tenant_id": "printf('ten_%d', CAST(50 * random() ^ 3 AS INT))",
    "model": "printf('model_%d', n % 8)",
    "cost_nano": "CAST(1e7 * random() AS BIGINT)",
    "input_tokens": "CAST(3000 * random() AS BIGINT)",
    "output_tokens": "CAST(800 * random() AS BIGINT)",
    "duration_us": "CAST(1e7 * random() AS BIGINT)",
    "ttft_us": "CAST(1e6 * random() AS BIGINT)",
    "seq": "n",
}


class Found(NamedTuple):
    """What a run found; a query's time is a median, its processor time a mean, with its process."""

    cores: int
    load: float
    frames: int
    frames_per_core_s: int
    calls: int
    bytes_per_call: float
    month_s: float
    month_cpu_s: float
    month_groups: int
    month_calls: int
    tenant_s: float


def main() -> None:
    """Measure, print, and write to a file if asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--month", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(Path(folder), asked.frames, asked.month)
    for name, value in found._asdict().items():
        print(f"{name:20} {value}")
    if asked.json:
        asked.json.write_text(json.dumps(found._asdict(), indent=2))


def measure(folder: Path, frames: int, month: int) -> Found:
    """Count calls, then ask for a month of them."""
    per_core_s = count_frames(folder, frames)
    segments = make_month(folder / "month", month)
    before_s = read_children_s()
    month_s, groups, summed_up = asyncio.run(ask(folder / "month", segments, ""))
    month_cpu_s = (read_children_s() - before_s) / RUNS
    tenant_s, _, _ = asyncio.run(ask(folder / "month", segments, "ten_7"))
    return Found(
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 1),
        frames=frames,
        frames_per_core_s=per_core_s,
        calls=month,
        bytes_per_call=round(sum(segment.size_bytes for segment in segments) / month, 1),
        month_s=round(month_s, 3),
        month_cpu_s=round(month_cpu_s, 3),
        month_groups=groups,
        month_calls=summed_up,
        tenant_s=round(tenant_s, 3),
    )


def read_children_s() -> float:
    """Return the processor time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def count_frames(folder: Path, frames: int) -> int:
    """Return how many frames a second of one core takes."""
    start_us = SystemClock().now_us() - 3_600_000_000
    write_spool(folder / "spool", "gateway-0", make_chunks(1, frames // 2, start_us), begins=True)
    command = [sys.executable, spool_counter.__file__, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return round(frames / float(said.split()[-1]))


def make_month(folder: Path, calls: int) -> list[Segment]:
    """Make a segment of calls for each day of a month."""
    (folder / "prj").mkdir(parents=True)
    chosen = ", ".join(f"{write_value(column)} AS {column.name}" for column in STORED)
    segments = []
    with duckdb.connect() as connection:
        for day in range(DAYS):
            span = range(day * calls // DAYS, (day + 1) * calls // DAYS)
            name = f"prj/{day:02d}.parquet"
            connection.execute(
                f"COPY (SELECT {chosen} FROM range({span.start}, {span.stop}) t(n)) "
                f"TO '{folder / name}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchall()
            segments.append(
                Segment(
                    name=name,
                    project_id="prj",
                    level=1,
                    rows=len(span),
                    size_bytes=(folder / name).stat().st_size,
                    first_at_us=START_US,
                    last_at_us=START_US,
                    created_at_us=START_US,
                )
            )
    return segments


def write_value(column: CallColumn) -> str:
    """Return the SQL of a column of the n-th call."""
    plain = f"CAST(printf('{column.name}_%d', n % 3) AS VARCHAR)"
    if column.type.endswith("[]"):
        plain = "[]"
    elif column.type != "VARCHAR":
        plain = "n % 3"
    return f"CAST({VALUES.get(column.name, plain)} AS {column.type})"


async def ask(folder: Path, segments: list[Segment], tenant_id: str) -> tuple[float, int, int]:
    """Return the median time of the month's sums, and how many groups and calls there are."""
    clock = SystemClock()
    queries = CallQueries(
        folder, clock, QueryLimits(), clock.now_us(), is_held=spool_counter.hold_nothing
    )
    took = []
    for _ in range(RUNS):
        started_s = time.monotonic()
        found = await queries.run(Asked(sql=MONTH, tenant_id=tenant_id), Scope(segments=segments))
        took.append(time.monotonic() - started_s)
    calls = sum(json.loads(bytes(row))[2] for row in found.answer.rows)
    return statistics.median(took), len(found.answer.rows), calls


if __name__ == "__main__":
    main()
