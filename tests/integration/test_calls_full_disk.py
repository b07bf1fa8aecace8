"""Rows of calls on a disk that is really full: counting stands still and goes on."""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import spool_counter
from calls import make_call, open_writer, put_calls
from pilotage.kit.clock import ManualClock, SystemClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.monitoring.calls import store as call_store
from pilotage.monitoring.calls.service import CallSegments
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import Stretch
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Level
from pilotage.monitoring.rollups.worker import RollupReader

DISK_BYTES = 1 << 20
CALLS = 2_000
BATCH = 100


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "pilotage-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_stops_counting_until_there_is_room(
    tmp_path: Path, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filler = disk / "filler"
    filler.write_bytes(b"x" * (DISK_BYTES * 7 // 8))
    clock = ManualClock(SystemClock().now_us())
    with open_writer(tmp_path / "spool") as spool:
        put_calls(spool, [make_call(at_us=clock.now_us()) for _ in range(CALLS)])
    db = await spool_counter.open_counted(tmp_path)
    segments = CallSegments(db, disk / "calls", clock, label_users=spool_counter.label_nobody)
    reader = RollupReader(
        db, tmp_path / "spool", RollupService(), clock, sinks=[segments], batch=BATCH
    )
    try:
        with caplog.at_level(logging.ERROR):
            for _ in range(2 * CALLS // BATCH):
                await reader.step()
                clock.advance(1)
        assert len([line for line in caplog.messages if "gateway-0" in line]) == 1
        assert "No space left" in caplog.text
        assert not reader.is_current
        counted, kept = await look(db)
        assert counted == kept < CALLS
        assert not list(disk.glob("calls/*/.*"))

        filler.unlink()
        clock.advance(30)
        for _ in range(CALLS // BATCH + 1):
            await reader.step()
        assert await look(db) == (CALLS, CALLS)
        assert reader.is_current
    finally:
        await reader.close()
        await segments.close()
        await db.close()


async def look(db: Database) -> tuple[int, int]:
    """Return how many calls are counted, and how many are rows of files that are listed."""
    async with db.read(SYSTEM) as tx:
        pages = store.stream_cells(tx, Stretch(Level.MINUTE, 0, 2**62), None)
        cells = [cell async for page in pages for cell in page]
        rows = sum(segment.rows for segment in await call_store.list_living(tx))
    return sum(cell.calls for _, _, cell in cells), rows
