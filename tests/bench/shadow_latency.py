"""What callers notice of shadows and replays: the p99 of calls while some, or all, are copied.

    python tests/bench/shadow_latency.py [--pairs 20] [--seconds 6] [--rate 40] [--answer-ms 200]

``pilotage up`` with one endpoint for each share, all in front of the same two model servers on this
machine, which answer after a set time: one has the calls, the other one the copies. Windows follow
each other: without anything, with copies, and while kept calls are replayed; which one comes first
goes round. Prints the p99 of the calls, the median of its ratios to those of the bare window of the
same round, how high that median may be (90 %, by order statistics), and how many copies were
compared.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from medians import bound_median
from pilotage.sdk.control import ControlClient
from stub_upstream import free_port, wait_port
from system import System, ask, poll, running

BARE, REPLAY = "bare", "replay"
WINDOWS = {BARE: 0, "10 %": 10, "100 %": 100, REPLAY: 0}  # percent of the calls that are copied
CALLS_HZ = 2  # of one connection
MOST_COPIES = 256
TOKENS = 400
PATIENCE_S = 60.0
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_TEXT = " ".join(f"Canary {number} is watched." for number in range(70))  # 1,500 letters
_SAID = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "steady",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS},
    }
).encode()
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_SAID),
    _SAID,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How often calls are made, and for how many seconds at a time."""

    rate_hz: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The p99 of every window in milliseconds, by its name, and how many copies were compared."""

    p99_ms: Mapping[str, Sequence[float]]
    copies: Mapping[str, int]

    def list_ratios(self, name: str) -> list[float]:
        """Return the p99s of windows by those of the bare ones."""
        pairs = zip(self.p99_ms[name], self.p99_ms[BARE], strict=True)
        return [took / bare for took, bare in pairs]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rate", type=float, default=40, help="calls a second")
    parser.add_argument("--answer-ms", type=float, default=200, help="what a model takes")
    parser.add_argument("--json", type=Path, help="write all numbers there, too")
    options = parser.parse_args()
    load = Load(rate_hz=options.rate, seconds=options.seconds)
    with tempfile.TemporaryDirectory() as folder, models(options.answer_ms / 1e3) as ports:
        found = asyncio.run(measure(Path(folder), ports, options.pairs, load))
    show(found)
    if options.json:
        options.json.write_text(json.dumps(tell(found)))
    return 0


async def measure(folder: Path, ports: Sequence[int], pairs: int, load: Load) -> Found:
    """Return what so many windows of each kind found."""
    allowed = ", ".join(f"127.0.0.1:{port}" for port in ports)
    async with (
        running(folder / "data", PILOTAGE_EGRESS_ALLOW=allowed) as system,
        system.control() as control,
    ):
        await make_endpoints(control, ports)
        warm = Load(rate_hz=load.rate_hz, seconds=min(2.0, load.seconds))
        await keep_calls(system, control, warm)
        made = {name: len(await run_window(system, share, warm)) for name, share in WINDOWS.items()}
        p99_ms: dict[str, list[float]] = {name: [] for name in WINDOWS}
        names = list(WINDOWS)
        for number in range(pairs):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                async with replaying(control) if name == REPLAY else nullcontext():
                    took = await run_window(system, WINDOWS[name], load)
                p99_ms[name].append(find_p99(took) * 1e3)
                made[name] += len(took)
            last = ", ".join(f"{name}: {p99_ms[name][-1]:.2f} ms" for name in names)
            print(f"round {number + 1} of {pairs}: {last}", file=sys.stderr)
        copies = await count_copies(control, made["100 %"])
        return Found(p99_ms=p99_ms, copies=copies)


async def make_endpoints(control: ControlClient, ports: Sequence[int]) -> None:
    """Make an endpoint for each share, and the two models behind them."""
    for name, model, port in zip(("old", "new"), ("steady", "fresh"), ports, strict=True):
        address = {"provider": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
        await control.post("/upstreams", {"name": name, **address})
        await control.post("/prices", {"subject": model, "input": "1", "output": "4"})
    for share in sorted(set(WINDOWS.values())):
        endpoint = f"copied-{share}"
        await control.post("/endpoints", {"name": endpoint})
        for name, model in (("old", "steady"), ("new", "fresh")):
            deployed = {"model": model, "upstream": name}
            path = f"/endpoints/{endpoint}/deployments"
            await control.finish(await control.post(path, deployed))
        if share:
            money = {"daily_usd": 1000, "concurrency": MOST_COPIES}
            shadow = {"deployment": "new/fresh", "percent": share, **money}
            await control.put(f"/endpoints/{endpoint}/routing", {"shadow": shadow})


async def keep_calls(system: System, control: ControlClient, load: Load) -> None:
    """Make calls of which some are kept, and none of the later ones."""
    for percent in (100, 0):
        tenant = await control.get("/tenants/default")
        settings = {"data_class": tenant["data_class"], "sample_percent": percent}
        await control.put("/tenants/default", settings, rev=tenant["rev"])
        while percent and not (await control.get("/samples"))["items"]:
            await run_window(system, 0, load)


@asynccontextmanager
async def replaying(control: ControlClient) -> AsyncIterator[None]:
    """Replay kept calls while the block runs."""
    body = {"endpoint": "copied-0", "candidate": "new/fresh", "max_cost": "1000"}
    path = f"/operations/{(await control.post('/replays', body))['id']}"
    await poll(lambda: control.get(path), lambda found: found["phase"] == "replaying", PATIENCE_S)
    yield
    if (await control.get(path))["state"] == "running":
        await control.post(f"{path}:cancel")
    else:
        print("the replay ended early", file=sys.stderr)


async def count_copies(control: ControlClient, least: int) -> dict[str, int]:
    """Return how many copies of each share were compared; of 100 % there are ``least``."""

    async def read() -> dict[str, int]:
        items = (await control.get("/comparisons"))["items"]
        found = {one["endpoint"]: one["pairs"] for one in items}
        return {name: found.get(f"copied-{share}", 0) for name, share in WINDOWS.items()}

    return await poll(read, lambda found: found["100 %"] >= least, PATIENCE_S)


async def run_window(system: System, share: int, load: Load) -> list[float]:
    """Make calls at a steady rate over as many connections; return the seconds that each took."""
    connections = max(round(load.rate_hz / CALLS_HZ), 1)
    apart_s = connections / load.rate_hz
    calls = max(round(load.seconds / apart_s), 1)
    start = time.perf_counter()
    found = await asyncio.gather(
        *(
            call_again_and_again(system, share, start + n / load.rate_hz, apart_s, calls)
            for n in range(connections)
        )
    )
    return [took for each in found for took in each]


async def call_again_and_again(
    system: System, share: int, start: float, apart_s: float, calls: int
) -> list[float]:
    """Make calls at set times over one connection."""
    gateway = urlsplit(system.server.gateway_url)
    body = json.dumps(ask(f"copied-{share}", "What is a canary?", max_tokens=TOKENS)).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    ) % (system.credentials.api_key.encode(), len(body), body)
    reader, writer = await asyncio.open_connection(gateway.hostname, gateway.port)
    took = []
    try:
        for number in range(calls):
            await asyncio.sleep(max(start + number * apart_s - time.perf_counter(), 0.0))
            began = time.perf_counter()
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                    raise RuntimeError(f"no answer: {head!r}")
                await reader.readexactly(int(length[1]))
            took.append(time.perf_counter() - began)
    finally:
        writer.close()
        await writer.wait_closed()
    return took


def find_p99(took: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(took)[round(len(took) * 0.99) - 1]


def show(found: Found) -> None:
    """Print the p99s, their ratios and the number of copies."""
    print(f"{'window':>8}{'p99 ms':>10}{'ratio':>9}{'at most':>9}{'copies':>8}")
    for name, one in tell(found).items():
        p99_ms = statistics.median(one["p99_ms"])
        ratios = f"{one['ratio']:>9.4f}{one['at_most']:>9.4f}{one['copies']:>8}"
        print(f"{name:>8}{p99_ms:>10.2f}{ratios if name != BARE else ''}")


def tell(found: Found) -> dict[str, dict[str, Any]]:
    """Return what was found, as it is written."""
    return {
        name: {
            "p99_ms": found.p99_ms[name],
            "ratio": statistics.median(found.list_ratios(name)),
            "at_most": bound_median(found.list_ratios(name))[1],
            "copies": found.copies[name],
        }
        for name in WINDOWS
    }


@contextmanager
def models(answer_s: float) -> Iterator[list[int]]:
    """Run two model servers in processes of their own; yield their ports."""
    context = multiprocessing.get_context("spawn")
    ports = [free_port(), free_port()]
    servers = [context.Process(target=serve, args=(port, answer_s), daemon=True) for port in ports]
    for server in servers:
        server.start()
    try:
        for port in ports:
            asyncio.run(wait_port(port))
        yield ports
    finally:
        for server in servers:
            server.terminate()
            server.join()


def serve(port: int, answer_s: float) -> None:
    """Answer every request after a set time, until the process ends."""

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Peer(answer_s), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(listen())


class _Peer(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, answer_s: float) -> None:
        self._answer_s = answer_s
        self._heard = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]):
            self._heard = b""
            asyncio.get_running_loop().call_later(self._answer_s, self._answer)

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_REPLY)


if __name__ == "__main__":
    sys.exit(main())
