"""What a process writes of itself beside its spool: its page for the others, the log's key."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from exposition import Page
from pilotage.kit.clock import ManualClock
from pilotage.kit.config import TelemetrySettings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.spool import open_spool
from pilotage.runtime.telemetry import Telemetry, open_secret, open_telemetry


def open_slot(stack: AsyncExitStack, folder: DataFolder, slot: str) -> Telemetry:
    """Open the telemetry of a slot whose spool is held, as that of a living process is."""
    spool = open_spool(folder.spool / slot, segment_bytes=1 << 20, reserve_bytes=0, sync="none")
    stack.callback(spool.close)
    telemetry = open_telemetry(stack, TelemetrySettings(), folder, slot, ManualClock())
    telemetry.metrics.read_gauges = lambda: [("pilotage_open_calls", (), 3)]
    return telemetry


async def test_a_page_holds_only_what_living_processes_said(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path).prepare()
    page = folder.run / "gateway-1.metrics"
    async with AsyncExitStack() as stack:
        first = open_slot(stack, folder, "gateway-0")
        async with AsyncExitStack() as life:
            second = open_slot(life, folder, "gateway-1")
            await second.tick()
            assert Page((await first.show()).decode()).total("pilotage_open_calls") == 6
            assert page.stat().st_mode & 0o777 == 0o600
        assert Page((await first.show()).decode()).total("pilotage_open_calls") == 3
        async with AsyncExitStack() as life:
            open_slot(life, folder, "gateway-1")
            assert not page.exists()  # it was the dead one's
            assert Page((await first.show()).decode()).total("pilotage_open_calls") == 3


async def test_a_page_that_cannot_be_written_hurts_nobody(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path).prepare()
    async with AsyncExitStack() as stack:
        telemetry = open_slot(stack, folder, "gateway-0")
        (folder.run / "gateway-0.metrics").mkdir()
        await telemetry.tick()
        assert Page((await telemetry.show()).decode()).total("pilotage_open_calls") == 3


async def test_processes_that_start_at_once_agree_on_a_key(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.key"
        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            found = await asyncio.gather(
                *(loop.run_in_executor(pool, open_secret, path) for _ in range(8))
            )
        assert len(set(found)) == 1
        assert len(found[0]) == 32
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 20
