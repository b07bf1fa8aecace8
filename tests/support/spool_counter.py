"""A process that counts the calls of spools and keeps each as a row, until it is killed or done.

    python tests/support/spool_counter.py FOLDER [FRAMES_AT_ONCE]

In FOLDER are ``spool``, and the database and the segments of calls that it makes or goes on with.
Writes a line when it begins, and the CPU seconds that it took.
"""

import asyncio
import sys
import time
from collections.abc import Collection
from pathlib import Path

from pilotage.kit.clock import SystemClock
from pilotage.kit.db import Database, Tx, open_sqlite
from pilotage.migrations.tables import get_metadata
from pilotage.monitoring.calls.service import CallSegments
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.worker import BATCH, RollupReader


async def open_counted(folder: Path) -> Database:
    """Open the database of a folder, with every table."""
    db = open_sqlite(folder / "counted.db", SystemClock())
    async with db.engine.begin() as conn:
        await conn.run_sync(get_metadata().create_all)
    return db


async def count(folder: Path, batch: int = BATCH) -> float:
    """Count what is not counted; return the CPU seconds of the counting."""
    clock = SystemClock()
    db = await open_counted(folder)
    segments = CallSegments(db, folder / "calls", clock, label_users=label_nobody)
    reader = RollupReader(
        db, folder / "spool", RollupService(), clock, sinks=[segments], batch=batch
    )
    print("counting", flush=True)
    started_s = time.process_time()
    try:
        while await reader.step():
            pass
        return time.process_time() - started_s
    finally:
        await reader.close()
        await segments.close()
        await db.close()


async def label_nobody(_: Tx, __: Collection[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """Give no user a token."""
    return {}


async def hold_nothing(_: Tx) -> bool:
    """Keep nothing for longer than it is kept."""
    return False


if __name__ == "__main__":
    print(asyncio.run(count(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
