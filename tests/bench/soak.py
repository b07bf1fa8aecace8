"""Whether a gateway that has answered a great many calls is as fast and small as it was at first.

    python tests/bench/soak.py [--calls 1000000] [--json FILE]

The bench's world with everything on, limits in Valkey, under one long load. Compares the resident
memory after a warm-up with that at the end, and p99 of the first tenth with that of the last.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from bench import CONNECTIONS, Bench, Subject, rss_mb
from gateway_harness import GatewayProcess
from stub_upstream import free_port, run_stub

WINDOW_S = 3


class Soaked(NamedTuple):
    """What a soak found."""

    calls: int
    failed: int
    rss_mb: float
    grown_mb: float
    first_p99_ms: float
    last_p99_ms: float


class Soak(Bench):
    """One long load."""

    async def soak(self, calls: int) -> Soaked:
        """Make so many calls, in windows of time."""
        port = free_port()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(run_stub(self._folder, port))
            settings = await self._open_counters(stack)
            self._world.point({"dep_a": port})
            self._world.publish(limits=self._make_limits())
            gateway = await stack.enter_async_context(GatewayProcess(self._world, settings))
            headers = {"authorization": f"Bearer {self._world.secret}"}
            ours = Subject(name="gateway", port=gateway.port, pid=gateway.pid, headers=headers)
            for _ in range(2):
                self._drive(ours, "plain", WINDOW_S, CONNECTIONS)
            before_mb = rss_mb(gateway.pid)
            done, failed, p99_us = 0, 0, []
            while done < calls:
                result = self._drive(ours, "plain", WINDOW_S, CONNECTIONS)
                done += result["requests"]
                failed += result["failed"]
                p99_us.append(result["p99_us"])
            after_mb = rss_mb(gateway.pid)
        tenth = max(1, len(p99_us) // 10)
        return Soaked(
            calls=done,
            failed=failed,
            rss_mb=before_mb,
            grown_mb=after_mb - before_mb,
            first_p99_ms=statistics.median(p99_us[:tenth]) / 1e3,
            last_p99_ms=statistics.median(p99_us[-tenth:]) / 1e3,
        )


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), WINDOW_S, 1, is_bare=False, has_peers=False)
        found = asyncio.run(soak.soak(options.calls))
    print(
        f"{found.calls} calls, {found.failed} failed: RSS {found.rss_mb:.1f} MB "
        f"{found.grown_mb:+.1f} MB; p99 {found.first_p99_ms:.2f} ms at first, "
        f"{found.last_p99_ms:.2f} ms at last"
    )
    if options.json:
        options.json.write_text(json.dumps(found._asdict()))


if __name__ == "__main__":
    main()
