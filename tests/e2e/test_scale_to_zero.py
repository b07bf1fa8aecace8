"""The real model goes from no replica to several and back under bursts, and no call is lost."""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from gateway_harness import until
from pilotage.gateway.targets import TargetsFile
from system import System, ask

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]

ROUNDS = 6
BURST = 12
ENGINE = "llamacpp.child"
SETTINGS = {
    "PILOTAGE_ENGINE_CONTEXT_TOKENS": "512",
    "PILOTAGE_ENGINE_THREADS": "1",
    "PILOTAGE_ENGINE_SLOTS": "4",
}
SLEEPER = {
    "min_replicas": 0,
    "max_replicas": 2,
    "target_in_flight": 4,
    "scale_down_delay_s": 1,
    "idle_after_s": 1,
}


class Cold(NamedTuple):
    """A call that found nobody awake: how long it took, and how long until a replica was ready.

    ``warm_s`` is how long the same call took right after it.
    """

    call_s: float
    wake_s: float
    warm_s: float


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Run ``pilotage up`` as its users do, and let the model sleep when nobody calls."""
    found = System(tmp_path / "data", **SETTINGS)
    found.process = await found.run("up")
    log = tmp_path / "data.up.log"
    await until(lambda: log.exists() and "Ctrl-C stops." in log.read_text(), "pilotage up", 120)
    async with found.control() as control:
        shown = await control.get("/endpoints/smollm2")
        (deployment,) = shown["deployments"]
        await control.put(f"/endpoints/smollm2/deployments/{deployment['id']}/scaling", SLEEPER)
    yield found
    assert await found.stop() == 0


async def fall_asleep(system: System) -> None:
    targets = TargetsFile(system.folder.targets)
    await until(lambda: not (targets.read().replicas or system.children(ENGINE)), "sleep", 60)


def sum_memory(system: System) -> int:
    """Return the bytes that the supervisor and its children hold, but for what files back.

    Pages of libraries are the kernel's cache: whose they are depends on who else uses them.
    """
    assert system.process is not None
    up = psutil.Process(system.process.pid)
    total = 0
    for process in (up, *up.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            memory = process.memory_info()
            total += memory.rss - memory.shared
    return int(total)


async def call(http: httpx.AsyncClient, number: int) -> int:
    body: dict[str, Any] = ask("smollm2", f"Count from {number}.") | {"max_tokens": 4}
    return (await http.post("/v1/chat/completions", json=body)).status_code


async def call_cold(system: System, http: httpx.AsyncClient, number: int) -> Cold:
    """Call a model that sleeps."""
    targets = TargetsFile(system.folder.targets)
    assert not targets.read().replicas
    began_s = time.time()
    assert await call(http, number) == 200
    call_s = time.time() - began_s
    (target, *_) = targets.read().replicas
    wake_s = target.ready_at_us / 1e6 - began_s
    began_s = time.time()
    assert await call(http, number) == 200
    return Cold(call_s, wake_s, time.time() - began_s)


async def test_from_nothing_to_several_and_back_under_bursts(system: System) -> None:
    is_quiet = os.getloadavg()[0] <= (os.cpu_count() or 1)
    async with system.http() as http:
        await fall_asleep(system)
        await call_cold(system, http, 0)
        await fall_asleep(system)
        # What processes load once, for their first calls, they have when those are written.
        await until(lambda: any(system.folder.path.rglob("*.parquet")), "its record", 60)
        idle_bytes = sum_memory(system)
        colds, most, answered = [], 0, []
        for number in range(ROUNDS):
            colds.append(await call_cold(system, http, number))
            burst = asyncio.gather(*(call(http, i) for i in range(BURST)))
            while not burst.done():
                most = max(most, len(TargetsFile(system.folder.targets).read().replicas))
                await asyncio.wait([burst], timeout=0.05)
            answered += await burst
            await fall_asleep(system)
        after_bytes = sum_memory(system)

    assert answered == [200] * BURST * ROUNDS
    assert most == 2, "a burst has two replicas"
    late = sorted(cold.call_s - cold.wake_s for cold in colds)
    wakes = [cold.wake_s for cold in colds]
    warm = statistics.median(cold.warm_s for cold in colds)
    print(
        f"{len(answered) + 2 * ROUNDS + 2} calls, none lost; wake-up "
        f"{statistics.median(wakes):.2f} s (best {min(wakes):.2f}), a cold call beyond it "
        f"median {statistics.median(late):.2f} s, worst {late[-1]:.2f} s "
        f"(the same call warm {warm:.2f} s); memory idle "
        f"{idle_bytes / 2**20:.0f} MiB, after {after_bytes / 2**20:.0f} MiB; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    assert after_bytes <= idle_bytes * 1.1
    if is_quiet:  # else the numbers above say more of the neighbours
        assert late[-1] <= 0.5
        assert statistics.median(wakes) <= 1.5
