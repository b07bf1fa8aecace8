"""What a call costs: CPU microseconds of a gateway process, beside nginx in the same run.

    python tests/bench/bench.py [--seconds 3] [--rounds 3] [--json FILE]

Load generator (wrk) and stub upstream run on core 0, what is measured on core 1, in alternating
rounds; CPU time is that of the process and its children from /proc (schedstat), which is steadier
than wall time on a shared machine. Needs Linux, a C compiler, and Debian's wrk and nginx-light.
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
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from gateway_harness import ALIAS, CLOCK, GatewayProcess, World
from pilotage.kit.crypto import make_secret
from stub_upstream import free_port, run_stub, wait_port

HERE = Path(__file__).parent
CHUNKS = 103  # of one stream: role, 100 tokens, finish, terminator
CONNECTIONS = 32
STREAMS = 64
MANY_KEYS = 100_000


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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "nginx", "cc", "taskset") if shutil.which(tool) is None]
    if missing:
        print(
            f"NOT MEASURED: {', '.join(missing)} missing "
            "(Debian: apt-get install wrk nginx-light gcc util-linux)"
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(Bench(Path(folder), options.seconds, options.rounds).run())
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


class Bench:
    """One run: stub, nginx and gateway side by side."""

    def __init__(self, folder: Path, seconds: int, rounds: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._rounds = rounds
        self._world = World(folder / "data")
        self._bodies = {kind: folder / f"{kind}.json" for kind in ("plain", "stream")}
        question = "Our canary shows a p95 latency of 2.4 seconds against 1.9 seconds. " * 11
        for kind, path in self._bodies.items():
            request = {
                "model": ALIAS,
                "messages": [
                    {"role": "system", "content": "Answer briefly."},
                    {"role": "user", "content": question},
                ],
                "temperature": 0.2,
                "max_tokens": 200,
                "stream": kind == "stream",
            }
            path.write_text(json.dumps(request))

    async def run(self) -> dict[str, object]:
        """Measure everything."""
        port = free_port()
        async with (
            run_stub(self._folder, port),
            run_nginx(self._folder, port) as (nginx_port, nginx_pid),
        ):
            self._world.point({"dep_a": port})
            self._world.publish()
            started = time.perf_counter()
            async with GatewayProcess(self._world) as gateway:
                start_s = time.perf_counter() - started
                pin(gateway.pid)
                for _ in range(2):
                    self._drive(gateway.port, "plain", 1, CONNECTIONS)
                plain = self._compare("plain", CONNECTIONS, gateway, nginx_port, nginx_pid, 1)
                stream = self._compare("stream", STREAMS, gateway, nginx_port, nginx_pid, CHUNKS)
                rss = rss_mb(gateway.pid)
                many = await self._with_many_keys(gateway)
                print(gateway.log()[-300:] if "error" in gateway.log() else "", end="")
        results = {
            "plain": plain,
            "stream": stream,
            "start_s": start_s,
            "rss_mb": rss,
            "many_keys": many,
        }
        show(results)
        return results

    def _compare(
        self,
        kind: str,
        connections: int,
        gateway: GatewayProcess,
        nginx_port: int,
        nginx_pid: int,
        units: int,
    ) -> dict[str, dict[str, float]]:
        rounds: dict[str, list[Round]] = {"gateway": [], "nginx": []}
        for _ in range(self._rounds):
            rounds["nginx"].append(self._measure(nginx_port, nginx_pid, kind, connections, units))
            rounds["gateway"].append(
                self._measure(gateway.port, gateway.pid, kind, connections, units)
            )
        return {name: summarise(found) for name, found in rounds.items()}

    def _measure(self, port: int, pid: int, kind: str, connections: int, units: int) -> Round:
        before = cpu_s(pid)
        result = self._drive(port, kind, self._seconds, connections)
        used = cpu_s(pid) - before
        done = max(1, result["requests"]) * units
        return Round(
            cpu_us=used / done * 1e6, per_second=done / result["us"] * 1e6, failed=result["failed"]
        )

    def _drive(self, port: int, kind: str, seconds: int, connections: int) -> dict[str, int]:
        command = [
            "taskset",
            "-c",
            "0",
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "20s",
        ]
        command += ["-s", str(HERE / "post.lua"), f"http://127.0.0.1:{port}/v1/chat/completions"]
        environment = {
            **os.environ,
            "BODY": str(self._bodies[kind]),
            "HEADERS": f"authorization: Bearer {self._world.secret}",
        }
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
        found = re.search(r"RESULT (\{.*\})", output)
        if found is None:
            raise RuntimeError(f"wrk said: {output}")
        result: dict[str, int] = json.loads(found.group(1))
        return result

    async def _with_many_keys(self, gateway: GatewayProcess) -> dict[str, float]:
        """Publish 100,000 keys more: what a call costs then, and what a switch costs."""
        world = self._world
        few = summarise(
            [
                self._measure(gateway.port, gateway.pid, "plain", CONNECTIONS, 1)
                for _ in range(self._rounds)
            ]
        )
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
            [
                self._measure(gateway.port, gateway.pid, "plain", CONNECTIONS, 1)
                for _ in range(self._rounds)
            ]
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


def show(results: dict[str, object]) -> None:
    """Print the table and the ratios."""
    print(f"\n{'':24}{'CPU us':>10}{'median':>10}{'per s':>12}{'failed':>8}")
    for kind, unit in (("plain", "request"), ("stream", "chunk")):
        table: dict[str, dict[str, float]] = results[kind]  # type: ignore[assignment]
        for name, row in table.items():
            label = f"{name} / {unit}"
            print(
                f"{label:24}{row['cpu_us']:>10.1f}{row['median_cpu_us']:>10.1f}{row['per_second']:>12.0f}{row['failed']:>8}"
            )
        print(
            f"  ratio gateway / nginx: {table['gateway']['cpu_us'] / table['nginx']['cpu_us']:.2f}"
        )
    many: dict[str, float] = results["many_keys"]  # type: ignore[assignment]
    print(f"start to serving {results['start_s']:.2f} s   RSS {results['rss_mb']:.0f} MB")
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
