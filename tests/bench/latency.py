"""Whether calls through the gateway notice an engine that works beside it.

    python tests/bench/latency.py [--seconds 3] [--rounds 5]

Plain calls at a steady rate through a gateway to a stub upstream, in alternating windows: the real
model idle, then generating for four callers on the same machine. Prints p50, p95, p99 and a ratio.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import httpx

from engine_process import RunningEngine, make_spec, run_engine
from gateway_harness import GatewayProcess, World, chat_body, make_http
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.registry.backends.packages import fetch, get_weights
from stub_upstream import free_port, run_stub

RATE_HZ = 200
TALKERS = 4


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.seconds, options.rounds))
    return 0


async def measure(folder: Path, seconds: float, rounds: int) -> None:
    """Run both kinds of window in turn and print what they took."""
    weights = await fetch(get_weights("smollm2"), folder / "weights", lambda *_: None)
    world, port = World(folder / "data"), free_port()
    world.publish()
    world.point({"dep_a": port})
    idle: list[list[float]] = []
    busy: list[list[float]] = []
    async with run_stub(folder, port), GatewayProcess(world) as gateway, make_http(gateway) as http:
        with run_engine(ENGINE, make_spec(weights, 1024, TALKERS)) as engine:
            await window(http, 1)
            for _ in range(rounds):
                idle.append(await window(http, seconds))
                with talking(engine):
                    busy.append(await window(http, seconds))
    show("idle", idle)
    show("engine at work", busy)
    ratio = statistics.median(map(p99, busy)) / statistics.median(map(p99, idle))
    print(f"p99 ratio {ratio:.2f}")


async def window(http: httpx.AsyncClient, seconds: float) -> list[float]:
    """Make calls at a steady rate; return the milliseconds that each took."""
    took: list[float] = []
    start = time.perf_counter()
    for number in range(round(seconds * RATE_HZ)):
        delay = start + number / RATE_HZ - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        began = time.perf_counter()
        reply = await http.post("/v1/chat/completions", json=chat_body())
        reply.raise_for_status()
        took.append((time.perf_counter() - began) * 1e3)
    return took


@contextmanager
def talking(engine: RunningEngine) -> Iterator[None]:
    """Keep the engine generating for several callers while the block runs."""
    is_over = threading.Event()

    def talk() -> None:
        story = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 64}
        while not is_over.is_set():
            engine.client.post("/v1/chat/completions", json=story, timeout=120)

    talkers = [threading.Thread(target=talk) for _ in range(TALKERS)]
    for talker in talkers:
        talker.start()
    try:
        yield
    finally:
        is_over.set()
        for talker in talkers:
            talker.join()


def p99(took: list[float]) -> float:
    """Return the 99th percentile."""
    return sorted(took)[round(len(took) * 0.99) - 1]


def show(name: str, windows: list[list[float]]) -> None:
    """Print the medians over the windows."""
    middle = [sorted(took) for took in windows]
    for label, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        value = statistics.median(took[round(len(took) * share) - 1] for took in middle)
        print(f"{name:16}{label} {value:6.2f} ms")


if __name__ == "__main__":
    sys.exit(main())
