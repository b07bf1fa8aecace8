"""What very many calls add up to: once, in any order, whatever is killed, and nearly exactly."""

import asyncio
import json
import random
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import pytest

import spool_counter
from pilotage.core.frames import Ended
from pilotage.core.sketch import Sketch
from pilotage.kit.clock import SystemClock
from pilotage.kit.db import SYSTEM
from pilotage.monitoring.calls import store as call_store
from pilotage.monitoring.calls.parquet import read_files
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import Cells, Stretch, add_up
from pilotage.monitoring.rollups.types import Cell, Level
from random_calls import make_chunks, write_spool

PROGRAM = Path(spool_counter.__file__)
BENCH = Path(__file__).parents[1] / "bench" / "rollups.py"
SEED = 20
WORST = 0.01
KILLS = {  # how often, within how many seconds, reading how many frames at once
    6_000: (1, 0.1, 2_000),
    1_000_000: (5, 5.0, 20_000),
    10_000_000: (50, 20.0, 20_000),
}
COUNTS = [
    pytest.param(6_000, id="6000"),
    pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)], id="10^6"),
    pytest.param(10_000_000, marks=[pytest.mark.nightly, pytest.mark.timeout(5400)], id="10^7"),
]


@pytest.mark.parametrize("count", COUNTS)
def test_any_order_gives_the_same_cells_and_quantiles_are_nearly_exact(count: int) -> None:
    """Merge chunk by chunk, and in heaps that are merged in an order of chance."""
    dice = random.Random(SEED)
    in_order: Cells = {}
    heaps: list[Cells] = [{} for _ in range(7)]
    took = array("q")
    for chunk in make_chunks(SEED, count, 10**15):
        took.extend(call.duration_us for call in chunk if call.outcome != "refused")
        cells = add_up(chunk)
        merge_into(in_order, cells)
        dice.shuffle(chunk)
        for part in (chunk[::2], chunk[1::2]):
            merge_into(dice.choice(heaps), add_up(part))
    dice.shuffle(heaps)
    any_order: Cells = {}
    for heap in heaps:
        merge_into(any_order, heap)

    assert any_order == in_order
    assert sum(cell.calls for cell in in_order.values()) == count
    worst = find_worst(in_order, took)
    assert worst <= WORST
    print(f"{count:,} calls, {len(in_order)} cells: quantiles are off by {worst:.3%} at most")


def merge_into(cells: Cells, more: Cells) -> None:
    for place, cell in more.items():
        cells.setdefault(place, Cell()).merge(cell)


def find_worst(cells: Cells, values: "array[int]") -> float:
    """Return by how much quantiles of a sketch differ from the exact ones, at the most."""
    sketch = Sketch()
    for cell in cells.values():
        sketch.merge(cell.duration)
    exact = sorted(values)
    assert sketch.count == len(exact)
    worst = 0.0
    for share in (0.5, 0.9, 0.95, 0.99, 0.999):
        nearest = exact[max(0, -(-len(exact) * round(share * 1000) // 1000) - 1)]
        found = sketch.quantile(share)
        assert found is not None
        worst = max(worst, abs(found - nearest) / nearest)
    return worst


@pytest.mark.parametrize("count", COUNTS)
async def test_killed_anywhere_calls_are_counted_and_kept_once(tmp_path: Path, count: int) -> None:
    start_us = SystemClock().now_us() - 3_600_000_000
    once: Cells = {}
    for number in range(2):
        chunks = count_as_they_come(make_chunks(SEED + number, count // 2, start_us), once)
        write_spool(tmp_path / "spool", f"gateway-{number}", chunks, begins=False)

    killed = await asyncio.to_thread(count_and_kill, tmp_path, *KILLS[count])

    assert killed
    assert await read_cells(tmp_path) == once
    rows, places, cost = await ask_rows(tmp_path)
    assert (rows, places) == (count, count)
    assert cost == sum(cell.cost_nano for cell in once.values())
    print(f"{count:,} calls, killed {killed} times: the same cells and rows as in one pass")


def count_as_they_come(chunks: Iterable[list[Ended]], cells: Cells) -> Iterator[list[Ended]]:
    """Yield calls and count them in one pass."""
    for chunk in chunks:
        merge_into(cells, add_up(chunk))
        yield chunk


def count_and_kill(folder: Path, kills: int, within_s: float, batch: int) -> int:
    """Count until all is counted, killing the process at moments of chance; say how often."""
    dice = random.Random(SEED)
    killed = 0
    while True:
        command = [sys.executable, str(PROGRAM), str(folder), str(batch)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            if killed < kills:
                child.stdout.readline()  # it has begun
                killer = threading.Timer(dice.random() * within_s, child.kill)
                killer.start()
            child.stdout.read()
            child.wait()
            if killed < kills:
                killer.cancel()
        if child.returncode == 0:
            return killed
        assert child.returncode == -9
        killed += 1


async def read_cells(folder: Path) -> Cells:
    """Return the cells of every minute."""
    db = await spool_counter.open_counted(folder)
    try:
        async with db.read(SYSTEM) as tx:
            pages = store.stream_cells(tx, Stretch(Level.MINUTE, 0, 2**62), None)
            found = [cell async for page in pages for cell in page]
    finally:
        await db.close()
    return {(at_us, key): cell for at_us, key, cell in found}


async def ask_rows(folder: Path) -> tuple[int, ...]:
    """Return how many rows of calls there are, of how many places in spools, and their cost."""
    db = await spool_counter.open_counted(folder)
    try:
        async with db.read(SYSTEM) as tx:
            names = [segment.name for segment in await call_store.list_living(tx)]
    finally:
        await db.close()
    files = read_files([str(folder / "calls" / name) for name in names])
    with duckdb.connect() as connection:
        sums = "count(*), count(DISTINCT (spool, epoch, seq)), CAST(sum(cost_nano) AS BIGINT)"
        (found,) = connection.execute(f"SELECT {sums} FROM {files}").fetchall()
    return tuple(found)


@pytest.mark.parametrize(
    ("frames", "month"),
    [
        pytest.param(20_000, 1_000_000, marks=pytest.mark.slow, id="10^6"),
        pytest.param(
            1_000_000,
            10_000_000,
            marks=[pytest.mark.nightly, pytest.mark.timeout(1800)],
            id="10^7",
        ),
    ],
)
def test_a_month_is_summed_up_by_tenant_and_model(tmp_path: Path, frames: int, month: int) -> None:
    """Measure; at night a month may take a second of two cores. People judge the rest."""
    report = tmp_path / "found.json"
    command = [sys.executable, str(BENCH), "--folder", str(tmp_path), "--json", str(report)]
    asked = ["--frames", str(frames), "--month", str(month)]
    print(subprocess.run([*command, *asked], capture_output=True, text=True, check=True).stdout)
    found = json.loads(report.read_text())
    assert (found["month_groups"], found["month_calls"]) == (51 * 8, month)
    if month == 10_000_000:
        assert found["month_cpu_s"] <= 2.0
