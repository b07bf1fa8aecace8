"""What one gateway process tells of itself: opened with its data plane, ticked by its watcher."""

import asyncio
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from pilotage import __version__
from pilotage.gateway.call import Step
from pilotage.gateway.measures.sampler import Sampler
from pilotage.gateway.measures.tap import MeasureTap
from pilotage.gateway.plane import DataPlane
from pilotage.gateway.steps.observe import Observe
from pilotage.gateway.telemetry.exporter import Exporter
from pilotage.gateway.telemetry.failure_log import FailureLog
from pilotage.gateway.telemetry.metrics import Metrics, Reading, Texts, merge
from pilotage.gateway.telemetry.request_log import RequestLog
from pilotage.gateway.telemetry.spans import Tracer
from pilotage.kit.clock import Clock
from pilotage.kit.config import TelemetrySettings, duration_s, resolve_secret
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.disk import DiskWatch
from pilotage.kit.files import write_private
from pilotage.kit.spool import SpoolWriter
from pilotage.kit.spool_reader import is_held, list_spools

SUFFIX = ".metrics"
DISK_EVERY = 5  # ticks
ROWS_AT_ONCE = 4  # some 0.5 ms of a page
PAGE_SHARE = 0.01  # of a process's time that it may take to write its page


class Telemetry:
    """Metrics, traces and the request log of a slot."""

    def __init__(
        self, settings: TelemetrySettings, folder: DataFolder, slot: str, clock: Clock
    ) -> None:
        self._folder = folder
        self._slot = slot
        self._clock = clock
        self._disk = DiskWatch(folder.spool)
        self._ticks = 0
        self.tracer: Tracer | None = None
        if settings.otlp_url:
            self.tracer = Tracer(
                clock,
                share=settings.sample_percent / 100,
                slow_s=duration_s(settings.slow),
                has_room=lambda: self._disk.has_room,
            )
        self._page = folder.run / f"{slot}{SUFFIX}"
        self._page.unlink(missing_ok=True)  # of the process that had the slot before
        self._page_due_s = 0.0
        self.metrics = Metrics(slot)
        self.failure_log = FailureLog(clock)
        self.request_log = RequestLog(
            folder.logs / f"requests-{slot}.jsonl",
            clock,
            open_secret(folder.keys / "request-log.key"),
            has_room=lambda: self._disk.has_room,
        )
        self.exporter: Exporter | None = None
        self.tap: MeasureTap | None = None
        self.sampler: Sampler | None = None

    def step(self, follow: Step) -> Step:
        """Return the outermost step of the chain."""
        notes = (self.metrics.note, self.request_log.note, self.failure_log.note)
        return Observe(follow, self._clock, self.tracer, notes, self.tap, self.sampler)

    def watch(self, plane: DataPlane, spool: SpoolWriter) -> None:
        """Read the gauges of a data plane from now on."""
        self.metrics.read_gauges = lambda: self._read(plane, spool)

    async def tick(self) -> None:
        """Do once a second what calls do not wait for."""
        if self.tap is not None:
            await self.tap.measure()
        if self.sampler is not None:
            await self.sampler.tick()
        if self._ticks % DISK_EVERY == 0:
            self._disk.look()
        self._ticks += 1
        began_s = self._clock.monotonic_s()
        if began_s < self._page_due_s:
            return
        page = await self._render()
        try:
            write_private(self._page, page.encode(), is_durable=False)
        except OSError:
            return  # a full disk: whoever is asked shows what it has
        took_s = self._clock.monotonic_s() - began_s
        self._page_due_s = began_s + took_s / PAGE_SHARE

    async def show(self) -> bytes:
        """Return the page of this process and of all living ones that share its socket."""
        pages = [await self._render()]
        pages += [
            self._read_page(spool.name)
            for spool in list_spools(self._folder.spool)
            if spool.name != self._slot and is_held(spool)
        ]
        return merge(pages)

    async def _render(self) -> str:
        """Return the page of this process; calls go on in between, however many rows it has."""
        rows: list[Texts] = []
        for row in self.metrics.write_rows():
            rows.append(row)
            if len(rows) % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return self.metrics.render(rows)

    def _read_page(self, slot: str) -> str:
        try:  # not from a slot that has just begun
            return (self._folder.run / f"{slot}{SUFFIX}").read_text()
        except OSError:
            return ""

    def _read(self, plane: DataPlane, spool: SpoolWriter) -> Iterator[Reading]:
        view, exchanger = plane.view, plane.counters.exchanger
        yield "pilotage_open_calls", (), len(plane.calls)
        yield "pilotage_ready", (), int(not plane.find_problem())
        for code, count in plane.strangers.items():
            yield "pilotage_strangers_total", (code,), count
        if view is not None:
            now_us = self._clock.now_us()
            yield "pilotage_snapshot_number", (), view.n
            age_us, left_us = now_us - view.manifest.created_at_us, view.expires_at_us - now_us
            yield "pilotage_snapshot_age_seconds", (), age_us / 1e6
            yield "pilotage_snapshot_expires_seconds", (), left_us / 1e6
        for state in plane.breakers.list_states():
            yield "pilotage_breaker_open", (state.target,), int(state.state != "closed")
        yield "pilotage_breakers_opened_total", (), plane.breakers.opened_total
        for name, count in zip(("open", "idle"), plane.count_connections(), strict=True):
            yield "pilotage_upstream_connections", (name,), count
        yield "pilotage_counter_store_away", (), int(exchanger.is_away)
        yield "pilotage_counter_store_open", (), int(exchanger.is_open)
        yield "pilotage_counter_exchanges_total", (), exchanger.exchanges
        yield "pilotage_spool_sequence", (), spool.seq
        yield "pilotage_spool_pending", (), spool.pending
        yield "pilotage_spool_dropped_total", (), spool.dropped
        yield "pilotage_spool_full", (), int(spool.is_full)
        yield from self._read_copies(plane)
        if self.tracer is not None and self.exporter is not None:
            yield "pilotage_spans_total", ("dropped",), self.tracer.dropped
            yield "pilotage_spans_total", ("sent",), self.exporter.sent
            yield "pilotage_spans_total", ("lost",), self.exporter.lost
        yield "pilotage_disk_used_ratio", (), self._disk.used_share
        yield "pilotage_request_log_dropped_total", (), self.request_log.dropped
        if self.tap is not None:
            yield "pilotage_measures_dropped_total", (), self.tap.dropped
        yield "pilotage_build_info", (__version__, platform.python_version()), 1
        yield from read_process()

    def _read_copies(self, plane: DataPlane) -> Iterator[Reading]:
        for fate, count in plane.shadow_counts.items():
            yield "pilotage_shadow_copies_total", (fate,), count
        for fate, count in plane.comparison_counts.items():
            yield "pilotage_shadow_comparisons_total", (fate,), count
        for fate, count in self.sampler.counts.items() if self.sampler else ():
            yield "pilotage_samples_total", (fate,), count


def open_telemetry(
    stack: AsyncExitStack, settings: TelemetrySettings, folder: DataFolder, slot: str, clock: Clock
) -> Telemetry:
    """Open what a slot tells of itself; the stack sends and writes what is left.

    Raises ``invalid_config`` for a collector's address that is none.
    """
    telemetry = Telemetry(settings, folder, slot, clock)
    stack.callback(telemetry.request_log.close)
    if telemetry.tracer is not None:
        headers = read_headers(settings.otlp_headers)
        telemetry.exporter = Exporter(settings.otlp_url, headers, telemetry.tracer, slot)
        telemetry.exporter.start()
        stack.callback(telemetry.exporter.close)
    return telemetry


def read_headers(reference: str) -> dict[str, str]:
    """Return the header lines that a secret reference holds: ``name: value``, a line each."""
    lines = resolve_secret(reference).splitlines() if reference else []
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def open_secret(path: Path) -> bytes:
    """Return the key of the pseudonyms in request logs, made by whichever process is first."""
    if not path.exists():
        fresh = path.with_suffix(f".{secrets.token_hex(8)}")
        write_private(fresh, secrets.token_bytes(32))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()


def read_process() -> Iterator[Reading]:
    """Return what this process takes of its machine; on Linux also memory and open files."""
    yield "process_cpu_seconds_total", (), time.process_time()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        count = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return
    yield "process_resident_memory_bytes", (), pages * os.sysconf("SC_PAGE_SIZE")
    yield "process_open_fds", (), count
