"""What a call costs: CPU microseconds of each gateway, beside its peers in the same run.

    python tests/bench/bench.py [--seconds 3] [--rounds 3] [--bare] [--no-peers] [--json FILE]

Load generator (wrk) and stub upstream run on core 0, what is measured on core 1, one process each,
in alternating rounds. CPU time is that of the process and its children from /proc (schedstat),
which is steadier than wall time on a shared machine; latency is that of one connection at a steady
rate, less what the stub takes when asked directly. Ours runs with everything on: keys, limits and
a budget counted in Valkey, frames, metrics, traces; ``--bare`` leaves limits and Valkey out. Peers
are those that ``make bench-peers`` installed. Needs Linux, a C compiler, and Debian's
wrk and nginx-light.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bench_peers import list_peers, run_peer
from gateway_harness import ALIAS, CLOCK, GatewayProcess, World
from otlp_receiver import OtlpReceiver
from pilotage.core.snapshot import LimitEntry
from pilotage.kit.crypto import make_secret
from stub_upstream import compile_c, free_port, run_stub, wait_port
from valkey_server import open_valkey_server

HERE = Path(__file__).parent
CHUNKS = 103  # of one stream: role, 100 tokens, finish, terminator
CONNECTIONS = 32
STREAMS = 64
MANY_KEYS = 100_000
RATE_HZ = 200
SLOW_RATE_HZ = 50
STREAM_S = 4  # several streams long, for what is cut at the end not to count
STREAM_RATE_HZ = 0.8  # a stream of the stub takes a second
QUESTION = "Our canary shows a p95 latency of 2.4 seconds against 1.9 seconds. "
PLENTY = 9_000_000 * 10**9  # nano-USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that is measured: where it listens, whose CPU time counts, how it is asked."""

    name: str
    port: int
    pid: int
    path: str = "/v1/chat/completions"
    model: str = ALIAS
    headers: dict[str, str] = field(default_factory=dict)
    rate_hz: int = RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured round."""

    cpu_us: float
    per_second: float
    failed: int


def main() -> int:
    """Measure and print; 0 if everything could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="no limits, no Valkey, no collector")
    parser.add_argument("--no-peers", action="store_true", help="nginx only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "nginx", "cc", "taskset") if shutil.which(tool) is None]
    if missing:
        print(
            f"NOT MEASURED: {', '.join(missing)} missing "
            "(Debian: apt-get install wrk nginx-light gcc util-linux)"
        )
        return 0
    os.sched_setaffinity(0, {0})  # the measured have core 1 to themselves
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder),
            options.seconds,
            options.rounds,
            is_bare=options.bare,
            has_peers=not options.no_peers,
        )
        results = asyncio.run(bench.run())
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


class Bench:
    """One run: the stub, nginx, the gateway and its peers."""

    def __init__(
        self, folder: Path, seconds: int, rounds: int, *, is_bare: bool, has_peers: bool
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._rounds = rounds
        self._is_bare = is_bare
        self._has_peers = has_peers
        self._world = World(folder / "data")
        self._latency = compile_c("latency.c", folder / "latency")

    async def run(self) -> dict[str, object]:
        """Measure everything."""
        port = free_port()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(run_stub(self._folder, port))
            settings = await self._open_counters(stack)
            self._world.point({"dep_a": port})
            self._world.publish(limits=[] if self._is_bare else self._make_limits())
            started = time.perf_counter()
            gateway = await stack.enter_async_context(GatewayProcess(self._world, settings))
            start_s = time.perf_counter() - started
            pin(gateway.pid)
            headers = {"authorization": f"Bearer {self._world.secret}"}
            ours = Subject(name="gateway", port=gateway.port, pid=gateway.pid, headers=headers)
            for _ in range(2):
                self._drive(ours, "plain", 1, CONNECTIONS)
            direct = Subject(name="stub alone", port=port, pid=os.getpid())
            latency = {"stub alone": self._time(direct), "gateway": self._time(ours)}
            pairs = {}
            async for peer in self._open_peers(port):
                self._drive(peer, "plain", 2, CONNECTIONS)
                pairs[peer.name] = self._compare(peer, ours)
                latency[peer.name] = self._time(peer)
            rss = rss_mb(gateway.pid)
            many = await self._with_many_keys(gateway, ours)
            print(gateway.log()[-300:] if "error" in gateway.log() else "", end="")
        results = {
            "pairs": pairs,
            "latency": latency,
            "start_s": start_s,
            "rss_mb": rss,
            "many_keys": many,
        }
        show(results)
        return results

    async def _open_peers(self, upstream: int) -> AsyncIterator[Subject]:
        async with run_nginx(self._folder, upstream) as (port, pid):
            yield Subject(name="nginx", port=port, pid=pid)
        for peer in list_peers(self._folder, upstream) if self._has_peers else []:
            async with run_peer(peer, self._folder) as running:
                yield Subject(
                    name=peer.name,
                    port=running.port,
                    pid=running.pid,
                    path=peer.path,
                    model=peer.model,
                    headers=peer.headers,
                    rate_hz=SLOW_RATE_HZ if "litellm" in peer.name else RATE_HZ,
                )

    async def _open_counters(self, stack: AsyncExitStack) -> dict[str, object]:
        if self._is_bare:
            return {}
        server = stack.enter_context(open_valkey_server())
        collector = stack.enter_context(OtlpReceiver())
        return {
            "counters": {"url": server.url},
            "telemetry": {"otlp_url": collector.url, "sample_percent": 5},
        }

    def _make_limits(self) -> list[LimitEntry]:
        """Return limits that apply to every call and stop none: four measures, four scopes."""
        world = self._world
        common = {"project_id": world.tenant.project_id, "tenant_id": world.tenant.id}
        return [
            LimitEntry(
                id="lim_rate", measure="requests", per="minute", amount=10**9, key_id="*", **common
            ),
            LimitEntry(id="lim_tokens", measure="tokens", per="minute", amount=10**12, **common),
            LimitEntry(id="lim_busy", measure="concurrency", amount=10**6, **common),
            LimitEntry(id="lim_month", measure="cost", per="month", amount=PLENTY, **common),
            LimitEntry(
                id="lim_day", measure="cost", per="day", amount=PLENTY, alias=ALIAS, **common
            ),
        ]

    def _compare(self, peer: Subject, ours: Subject) -> dict[str, dict[str, dict[str, float]]]:
        """Measure a peer and ours in turn: requests, then chunks of streams."""
        compared = {}
        for kind, connections, units in (("plain", CONNECTIONS, 1), ("stream", STREAMS, CHUNKS)):
            rounds: dict[str, list[Round]] = {"peer": [], "ours": []}
            for _ in range(self._rounds):
                rounds["peer"].append(self._measure(peer, kind, connections, units))
                rounds["ours"].append(self._measure(ours, kind, connections, units))
            compared[kind] = {who: summarise(found) for who, found in rounds.items()}
        return compared

    def _measure(self, subject: Subject, kind: str, connections: int, units: int) -> Round:
        seconds = self._seconds if kind == "plain" else max(self._seconds, STREAM_S)
        before = cpu_s(subject.pid)
        result = self._drive(subject, kind, seconds, connections)
        used = cpu_s(subject.pid) - before
        done = max(1, result["requests"]) * units
        return Round(
            cpu_us=used / done * 1e6, per_second=done / result["us"] * 1e6, failed=result["failed"]
        )

    def _drive(self, subject: Subject, kind: str, seconds: int, connections: int) -> dict[str, int]:
        command = ["taskset", "-c", "0", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", "20s", "-s", str(HERE / "post.lua")]
        command += [f"http://127.0.0.1:{subject.port}{subject.path}"]
        lines = "|".join(f"{name}: {value}" for name, value in subject.headers.items())
        body = self._write_body(subject.model, kind)
        output = subprocess.run(
            command,
            env={**os.environ, "BODY": str(body), "HEADERS": lines},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"RESULT (\{.*\})", output)
        if found is None:
            raise RuntimeError(f"wrk said: {output}")
        result: dict[str, int] = json.loads(found.group(1))
        return result

    def _time(self, subject: Subject) -> dict[str, dict[str, float]]:
        """Return what single requests take, and what the first event of a stream takes."""
        timed = {}
        for kind, rate_hz in (("plain", subject.rate_hz), ("stream", STREAM_RATE_HZ)):
            command = ["taskset", "-c", "0", str(self._latency), str(subject.port), str(rate_hz)]
            command += [str(2 * self._seconds), subject.path]
            command += [str(self._write_body(subject.model, kind)), str(int(kind == "stream"))]
            command += [f"{name}: {value}" for name, value in subject.headers.items()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            timed[kind] = json.loads(done.stdout or '{"n":0}')
        return timed

    def _write_body(self, model: str, kind: str) -> Path:
        path = self._folder / f"{model.rpartition(':')[2]}-{len(model)}-{kind}.json"
        if not path.exists():
            messages = [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": QUESTION * 11},
            ]
            request = {
                "model": model,
                "messages": messages,
                "temperature": 0.2,
                "max_tokens": 200,
                "stream": kind == "stream",
            }
            path.write_text(json.dumps(request))
        return path

    async def _with_many_keys(self, gateway: GatewayProcess, ours: Subject) -> dict[str, float]:
        """Publish 100,000 keys more: what a call costs then, and what a switch costs."""
        world = self._world
        few = summarise([self._measure(ours, "plain", CONNECTIONS, 1) for _ in range(self._rounds)])
        world.keys += [
            world.make_key(make_secret("plt_live_"), CLOCK.new_id("key")) for _ in range(MANY_KEYS)
        ]
        before = cpu_s(gateway.pid)
        await gateway.wait_serving(world.publish())
        first_ms = (cpu_s(gateway.pid) - before) * 1e3
        before = cpu_s(gateway.pid)
        await gateway.wait_serving(world.publish())  # nothing but weights moved
        next_ms = (cpu_s(gateway.pid) - before) * 1e3
        many = summarise(
            [self._measure(ours, "plain", CONNECTIONS, 1) for _ in range(self._rounds)]
        )
        return {
            "few_cpu_us": few["cpu_us"],
            "many_cpu_us": many["cpu_us"],
            "load_cpu_ms": first_ms,
            "switch_cpu_ms": next_ms,
        }


def summarise(rounds: list[Round]) -> dict[str, float]:
    """Return the best round (least disturbed), the median, and what failed in all."""
    best = min(rounds, key=lambda item: item.cpu_us)
    return {
        **asdict(best),
        "median_cpu_us": statistics.median(item.cpu_us for item in rounds),
        "failed": sum(item.failed for item in rounds),
    }


def show(results: dict[str, Any]) -> None:
    """Print the tables and the ratios."""
    print(f"\n{'CPU us, best round':22}{'request':>10}{'ours':>8}{'ours/it':>9}", end="")
    print(f"{'chunk':>10}{'ours':>8}{'ours/it':>9}{'per s':>10}{'failed':>8}")
    for name, kinds in results["pairs"].items():
        print(f"{name:22}", end="")
        for kind in ("plain", "stream"):
            peer, ours = kinds[kind]["peer"], kinds[kind]["ours"]
            ratio = ours["cpu_us"] / peer["cpu_us"]
            print(f"{peer['cpu_us']:>10.1f}{ours['cpu_us']:>8.1f}{ratio:>9.3f}", end="")
        failed = sum(row["failed"] for kind in kinds.values() for row in kind.values())
        print(f"{kinds['plain']['peer']['per_second']:>10.0f}{failed:>8}")
    best = {
        kind: min(pair[kind]["ours"]["cpu_us"] for pair in results["pairs"].values())
        for kind in ("plain", "stream")
    }
    print(f"gateway: {best['plain']:.1f} us a request, {best['stream']:.1f} us a chunk")
    alone = results["latency"]["stub alone"]
    print(f"\n{'added us':22}{'p50':>8}{'p99':>8}{'ttft p50':>10}{'ttft p99':>10}{'failed':>8}")
    for name, timed in results["latency"].items():
        print(f"{name:22}", end="")
        for kind, width in (("plain", 8), ("stream", 10)):
            for part in ("p50_us", "p99_us"):
                added = timed[kind].get(part, float("nan")) - (
                    alone[kind][part] if timed is not alone else 0
                )
                print(f"{added:>{width}.0f}", end="")
        print(f"{sum(kind.get('failed', 0) for kind in timed.values()):>8}")
    print(f"\nstart to serving {results['start_s']:.2f} s   RSS {results['rss_mb']:.0f} MB")
    many = results["many_keys"]
    print(
        f"100,000 keys: {many['many_cpu_us']:.1f} us beside {many['few_cpu_us']:.1f} us a request "
        f"({many['many_cpu_us'] / many['few_cpu_us'] - 1:+.1%}); "
        f"first load {many['load_cpu_ms']:.0f} ms, switch {many['switch_cpu_ms']:.1f} ms"
    )


@asynccontextmanager
async def run_nginx(folder: Path, upstream: int) -> AsyncIterator[tuple[int, int]]:
    """Run nginx as a plain proxy with one worker on core 1."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream stub {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
""")
    nginx = subprocess.Popen(
        ["taskset", "-c", "1", "nginx", "-c", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        await wait_port(port)
        yield port, nginx.pid
    finally:
        nginx.terminate()
        nginx.wait()


def pin(pid: int) -> None:
    """Keep a process and its threads on core 1."""
    subprocess.run(["taskset", "-a", "-p", "-c", "1", str(pid)], check=True, capture_output=True)


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(
                int(entry.name)
            )
    found, queue = [], [pid]
    while queue:
        found.append(current := queue.pop())
        queue += children.get(current, [])
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used."""
    used = 0
    for member in tree(pid):
        for thread in Path(f"/proc/{member}/task").iterdir():
            used += int((thread / "schedstat").read_text().split()[0])
    return used / 1e9


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


if __name__ == "__main__":
    sys.exit(main())
