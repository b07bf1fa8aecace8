"""The gateway process: ``python -m pilotage.runtime.gateway``, started by the supervisor.

Knows the Snapshot, the Targets and its spool, all by file, as a remote gateway does; loads no
database, no pydantic and no FastAPI.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from pilotage.core.errors import PilotageError
from pilotage.core.seeds import Seeds
from pilotage.gateway.chain import StepMaker
from pilotage.gateway.counters.exchanger import find_no_seeds
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.open import open_store
from pilotage.gateway.demand import DemandFile
from pilotage.gateway.http import GatewayDoor
from pilotage.gateway.measures.sampler import Sampler
from pilotage.gateway.measures.tap import MeasureTap
from pilotage.gateway.needs import Needs
from pilotage.gateway.plane import DataPlane, PlaneLimits
from pilotage.gateway.ports import CounterStore
from pilotage.gateway.recovery import recover_spool
from pilotage.gateway.seeds import SeedFinder
from pilotage.gateway.server import GatewayServer, make_server
from pilotage.gateway.snapshots import SnapshotReader
from pilotage.gateway.targets import TargetsFile
from pilotage.kit.acks import Ack, read_ack, write_ack
from pilotage.kit.clock import Clock, SystemClock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.lifeline import die_with_parent
from pilotage.kit.resources import Background
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.telemetry import start_logging
from pilotage.runtime.doors import Certificate
from pilotage.runtime.handover import Handover, Started, read_handover, say, say_failure
from pilotage.runtime.telemetry import Telemetry, open_telemetry

_LOG = logging.getLogger("pilotage.gateway")
LOOK_EVERY_S = 0.02
MEND_EVERY_S = 1.0


def main(extra_steps: Sequence[StepMaker] = ()) -> None:
    """Run one gateway process until it has drained."""
    handover = read_handover()
    die_with_parent(handover.parent_pid)
    start_logging(handover.settings.log.level)
    uvloop.run(serve(handover, extra_steps))


async def serve(handover: Handover, extra_steps: Sequence[StepMaker]) -> None:
    """Open everything, serve the inherited socket, drain, close in reverse."""
    settings, folder = handover.settings, DataFolder(Path(handover.data_path))
    clock = SystemClock()
    public_key = bytes.fromhex(handover.public_key)
    async with AsyncExitStack() as stack:
        try:
            opened = open_plane(
                stack, settings, folder, handover.slot, public_key, extra_steps=extra_steps
            )
            certificate = _open_certificate(settings)
        except PilotageError as refused:
            say_failure(refused)
            return
        door = GatewayDoor(
            opened.plane,
            clock,
            max_body_bytes=settings.gateway.max_body_mb << 20,
            reader_timeout_s=duration_s(settings.gateway.reader_timeout),
            show_metrics=opened.telemetry.show,
        )
        background = await stack.enter_async_context(Background())
        opened.plane.background = background
        drain_s = duration_s(settings.gateway.drain_timeout)
        tls = certificate.context if certificate else None
        server = make_server(door, opened.plane, background, drain_s, tls)
        if certificate:
            background.start(certificate.run(), "certificate")
        background.start(opened.watcher.run(), "watch")
        background.start(opened.needs.run(), "needs")
        background.start(opened.plane.counters.run(), "counters")
        background.start(_say_when_started(server), "started")
        await server.serve(sockets=[socket.socket(fileno=handover.listen_fd)])
        await opened.plane.counters.leave()
        opened.watcher.settle()


class OpenedPlane(NamedTuple):
    """A data plane, and what keeps it up to date while its owner runs it."""

    plane: DataPlane
    watcher: "Watcher"
    needs: Needs
    telemetry: Telemetry


def open_plane(
    stack: AsyncExitStack,
    settings: Settings,
    folder: DataFolder,
    slot: str,
    public_key: bytes,
    *,
    store: CounterStore | None = None,
    extra_steps: Sequence[StepMaker] = (),
) -> OpenedPlane:
    """Open the data plane of a slot, its spool mended; the stack closes it.

    ``store`` counts limits, if not what the settings name.

    Raises ``conflict`` if another process has the slot, or what else its spool does.
    """
    clock = SystemClock()
    spool = _open_spool(settings, folder.spool / slot)
    stack.callback(spool.close)
    store = store or open_store(settings.counters, clock)
    stack.callback(store.close)
    limits = make_limits(settings)
    counters = Limits(
        store,
        clock,
        folder.spool / slot,
        recover_spool(spool, folder.spool / slot, clock.now_us()).counters,
        call_timeout_s=limits.call_timeout_s,
        find_seeds=_make_seed_finder(settings, folder, clock) if store.is_shared else find_no_seeds,
    )
    telemetry = open_telemetry(stack, settings.telemetry, folder, slot, clock)
    telemetry.tap = MeasureTap(spool, clock)
    if not (settings.remote.control_url or settings.remote.snapshots):  # else nobody takes them
        telemetry.sampler = Sampler(lambda: _open_samples(settings, folder.samples / slot), clock)
        stack.callback(telemetry.sampler.close)
    last = read_ack(folder.run, slot)
    plane = DataPlane(
        snapshots=SnapshotReader(folder.snapshots, public_key),
        targets=TargetsFile(folder.targets),
        spool=spool,
        clock=clock,
        limits=limits,
        egress=EgressPolicy(settings.egress.allow, clock),
        counters=counters,
        oldest_n=last.n if last else 0,
        outer_steps=[telemetry.step],
        extra_steps=extra_steps,
    )
    stack.callback(plane.close)
    telemetry.watch(plane, spool)
    needs = Needs(DemandFile(folder.run, slot), plane.calls, plane.replicas, clock)
    stack.callback(needs.close)
    watcher = Watcher(plane, spool, folder, slot, telemetry)
    return OpenedPlane(plane, watcher, needs, telemetry)


class Watcher:
    """Takes over new Snapshots and targets, says which one is served, keeps the spool in order."""

    def __init__(
        self,
        plane: DataPlane,
        spool: SpoolWriter,
        folder: DataFolder,
        slot: str,
        telemetry: Telemetry,
    ) -> None:
        self._plane = plane
        self._telemetry = telemetry
        self._spool = spool
        self._folder = folder
        self._slot = slot

    async def run(self) -> None:
        """Look again and again until cancelled."""
        looks = 0
        while True:
            self._plane.stop_overdue()
            if self._plane.refresh():
                self._acknowledge()
            self._plane.counters.save(self._spool)
            looks += 1
            if looks * LOOK_EVERY_S >= MEND_EVERY_S:
                looks = 0
                self._spool.mend()
                await self._telemetry.tick()
                self._set_floor()
            await asyncio.sleep(LOOK_EVERY_S)

    def settle(self) -> None:
        """Leave a spool that needs no recovery if every call has ended."""
        if self._telemetry.tap is not None:
            self._telemetry.tap.settle()
        self._plane.counters.save(self._spool, is_last=True)
        self._set_floor()

    def _acknowledge(self) -> None:
        if self._plane.view is None:
            return
        try:
            write_ack(self._folder.run, self._slot, Ack(pid=os.getpid(), n=self._plane.view.n))
        except OSError as failed:  # a full disk: calls go on, and whoever waits is told who lags
            _LOG.error("cannot acknowledge Snapshot %d: %s", self._plane.view.n, failed)

    def _set_floor(self) -> None:
        if self._spool.pending:
            return  # what waits in memory dies with the process: recovery must find it again
        self._spool.set_floor(self._plane.oldest_open_seq or self._spool.seq + 1)


def _open_certificate(settings: Settings) -> Certificate | None:
    gateway = settings.gateway
    if not gateway.tls_certificate:
        return None
    return Certificate(gateway.tls_certificate, gateway.tls_key)


def _make_seed_finder(
    settings: Settings, folder: DataFolder, clock: Clock
) -> Callable[[], Awaitable[Seeds | None]]:
    """Return what tells of owners that cannot speak; apart from any control plane, less is told."""
    is_alone = bool(settings.remote.snapshots) and not settings.remote.control_url
    return SeedFinder(folder.seeds, folder.spool, clock, has_ledger=not is_alone).find


async def _say_when_started(server: GatewayServer) -> None:
    await server.has_started.wait()
    say(Started())


def _open_spool(settings: Settings, folder: Path) -> SpoolWriter:
    return open_spool(
        folder,
        segment_bytes=settings.spool.segment_mb << 20,
        reserve_bytes=settings.spool.reserve_kb << 10,
        sync=settings.spool.sync,
    )


def _open_samples(settings: Settings, folder: Path) -> SpoolWriter:
    """Open the spool of a slot's samples; without a reserve: on a full disk there are none."""
    segment_bytes = settings.spool.segment_mb << 20
    return open_spool(folder, segment_bytes=segment_bytes, reserve_bytes=0, sync="none")


def make_limits(settings: Settings) -> PlaneLimits:
    """Return a data plane's limits from the settings."""
    gateway = settings.gateway
    return PlaneLimits(
        call_timeout_s=duration_s(gateway.call_timeout),
        first_byte_timeout_s=duration_s(gateway.call_timeout),
        connect_timeout_s=duration_s(gateway.connect_timeout),
        stall_timeout_s=duration_s(gateway.stall_timeout),
        waits_for_disk=settings.spool.sync == "every",
        max_body_bytes=gateway.max_body_mb << 20,
    )


if __name__ == "__main__":
    main()
