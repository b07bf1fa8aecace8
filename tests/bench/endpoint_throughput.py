"""What an endpoint leaves of the tokens per second of the engine behind it.

    python tests/bench/endpoint_throughput.py [--pairs 15] [--requests 2] [--weights FILE]

``pilotage up`` with one replica of the real model. Each pair asks the same replica the same number
of streamed answers twice: straight at the address that Targets names, and through gateway and
endpoint, with everything that a call there has (key, record, ledger). Which one comes first
alternates. Prints the medians of the pairs at 1, 4 and 8 streams at once, and how low the median
ratio may be (90 %, by order statistics: no shape of the noise is assumed).
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from medians import bound_median
from pilotage.gateway.targets import TargetsFile
from pilotage.registry.backends.packages import fetch, get_weights
from system import System, add_model, running, serve

STREAMS = (1, 4, 8)
TOKENS = 48
ENDPOINT = "story"
PATIENCE_S = 120.0
SETTINGS = {"PILOTAGE_ENGINE_SLOTS": str(max(STREAMS)), "PILOTAGE_ENGINE_CONTEXT_TOKENS": "512"}
_WRITTEN = re.compile(rb'"completion_tokens":\s*(\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where answers are asked for, under which name and with which key."""

    host: str
    port: int
    key: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Tokens per second of one pair."""

    engine: float
    endpoint: float

    @property
    def ratio(self) -> float:
        """What the endpoint leaves."""
        return self.endpoint / self.engine


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--requests", type=int, default=2, help="answers of each stream")
    parser.add_argument("--weights", type=Path, help="a GGUF file instead of the packaged model")
    parser.add_argument("--json", type=Path, help="write all numbers there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), options.pairs, options.requests, options.weights))
    show(found)
    if options.json:
        options.json.write_text(json.dumps({n: tell(pairs) for n, pairs in found.items()}))
    return 0


async def measure(
    folder: Path, pairs: int, requests: int, weights: Path | None = None
) -> dict[int, list[Pair]]:
    """Return the pairs by how many streams there were at once."""
    if weights is None:
        weights = await fetch(get_weights("smollm2"), folder / "weights", lambda *_: None)
    async with running(folder / "data", **SETTINGS) as system:
        async with system.control() as control:
            version = await add_model(control, weights, "storyteller", "1.0.0")
            await serve(control, ENDPOINT, version)
        await system.wait_served(ENDPOINT)
        return await _measure_pairs(system, pairs, requests)


async def _measure_pairs(system: System, pairs: int, requests: int) -> dict[int, list[Pair]]:
    (replica,) = TargetsFile(system.folder.targets).read().replicas
    engine = Door(host=replica.host, port=replica.port, key=replica.key, model="storyteller")
    gateway = urlsplit(system.server.gateway_url)
    key = system.credentials.api_key
    endpoint = Door(host=str(gateway.hostname), port=gateway.port or 0, key=key, model=ENDPOINT)
    numbers = count()
    found: dict[int, list[Pair]] = {}
    for streams in STREAMS:
        for door in (engine, endpoint):
            await run_round(door, streams, 1, numbers)
        found[streams] = []
        for number in range(pairs):
            speeds: dict[Door, float] = {}
            for door in (engine, endpoint) if number % 2 else (endpoint, engine):
                speeds[door] = await run_round(door, streams, requests, numbers)
            pair = Pair(engine=speeds[engine], endpoint=speeds[endpoint])
            found[streams].append(pair)
            print(
                f"{streams} streams, pair {number + 1} of {pairs}: {pair.ratio:.3f}",
                file=sys.stderr,
            )
    return found


async def run_round(door: Door, streams: int, requests: int, numbers: "count[int]") -> float:
    """Ask for answers, so many streams at once and one after the other; return tokens a second."""

    async def talk() -> int:
        return sum([await ask(door, next(numbers)) for _ in range(requests)])

    began = time.perf_counter()
    tokens = await asyncio.gather(*(talk() for _ in range(streams)))
    return sum(tokens) / (time.perf_counter() - began)


async def ask(door: Door, number: int) -> int:
    """Read one streamed answer to its end; return its tokens. No two questions are the same."""
    body: dict[str, Any] = {
        "model": door.model,
        "messages": [{"role": "user", "content": f"Number {number}: tell me a very long story."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n"
        f"authorization: Bearer {door.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        try:
            writer.write(head.encode() + payload)
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    written = _WRITTEN.findall(answer)
    if not answer.startswith(b"HTTP/1.1 200 ") or not written:
        raise RuntimeError(f"no answer: {answer[:500]!r}")
    return int(written[-1])


def show(found: dict[int, list[Pair]]) -> None:
    """Print tokens per second and ratios."""
    print(f"{'streams':>7}{'engine tok/s':>14}{'endpoint tok/s':>16}{'ratio':>8}{'at least':>10}")
    for streams, pairs in found.items():
        print(
            f"{streams:>7}{statistics.median(p.engine for p in pairs):>14.1f}"
            f"{statistics.median(p.endpoint for p in pairs):>16.1f}"
            f"{get_ratio(pairs):>8.3f}{find_least(pairs):>10.3f}"
        )


def tell(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what was found of so many streams, as it is written."""
    return {
        "tokens_per_s": [[pair.engine, pair.endpoint] for pair in pairs],
        "ratio": get_ratio(pairs),
        "at_least": find_least(pairs),
    }


def get_ratio(pairs: Sequence[Pair]) -> float:
    """Return the median of the pairs' ratios."""
    return statistics.median(pair.ratio for pair in pairs)


def find_least(pairs: Sequence[Pair]) -> float:
    """Return what the true median of the ratios is below with a probability of 10 % at most."""
    return bound_median([pair.ratio for pair in pairs])[0]


if __name__ == "__main__":
    sys.exit(main())
