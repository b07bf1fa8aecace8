"""A gateway apart from its control plane: ``pilotage gateway``.

A parent process with N gateway processes, the same as beside a control plane. The parent alone
speaks to the control plane: it fetches Snapshots into the data folder, hands in the spools that lie
there, and says what is served. A gateway process needs none of that to answer calls.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import SNAPSHOT_VERSION
from pilotage.gateway.targets import Targets, TargetsFile
from pilotage.identity.types import GATEWAY_PREFIX
from pilotage.kit.acks import read_ack
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s, resolve_secret
from pilotage.kit.crypto import is_secret
from pilotage.kit.data_folder import DataFolder, ServerInfo
from pilotage.kit.disk import DiskWatch
from pilotage.kit.resources import Background
from pilotage.kit.spool_reader import is_held
from pilotage.kit.worker import Wakeup, Worker
from pilotage.publisher.remotes import SlotReport
from pilotage.runtime.children import GATEWAY_MODULE, Children, drain_limit_s, make_gateways
from pilotage.runtime.control_link import TIMEOUT_S, ControlLink
from pilotage.runtime.doors import make_url, open_gateway_door
from pilotage.runtime.seed_fetcher import SeedFetcher
from pilotage.runtime.snapshot_fetcher import SnapshotFetcher
from pilotage.runtime.snapshot_sources import (
    BlobSource,
    ControlSource,
    FolderSource,
    SnapshotSource,
)
from pilotage.runtime.spool_shipper import SpoolShipper

_LOG = logging.getLogger("pilotage.remote")
SHIP_EVERY_S = 0.25
REPORT_EVERY_S = 3.0
REPORT_LOOK_S = 0.02
LAST_SHIPMENT_S = 15.0
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_PUBLIC_KEY_BYTES = 32


class RemoteGateway:
    """Everything that runs under one ``pilotage gateway``."""

    def __init__(self, settings: Settings, folder: DataFolder, clock: Clock) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._children = Children(folder, clock)
        self._is_hurried = False
        self.gateway_url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator["RemoteGateway"]:
        """Start everything; yield when the gateway processes listen.

        At the end drain, and hand in what is left.

        Raises ``invalid_config`` or ``conflict``, with nothing left running, if it cannot start.
        """
        check_remote(self._settings)
        async with AsyncExitStack() as stack:
            self._folder.prepare()
            lock = stack.enter_context(self._folder.acquire(self._info()))
            door = stack.enter_context(open_gateway_door(self._settings))
            self.gateway_url = make_url(door, is_tls=bool(self._settings.gateway.tls_certificate))
            lock.write(self._info())
            TargetsFile(self._folder.targets).write(Targets())  # no replica runs here
            http = await stack.enter_async_context(self._open_http())
            link = await self._open_link(stack)
            background = await stack.enter_async_context(Background())
            background.start(DiskWatch(self._folder.path).run(), "disk")
            self._start_fetching(background, http, link)
            if link is not None:
                await self._start_shipping(stack, background, link)
            stack.push_async_callback(self._stop_children)
            key = self._settings.remote.public_key
            gateways = make_gateways(self._settings, self._folder, door, key)
            self._children.start(background, gateways)
            await self._children.wait_started()
            yield self

    def _info(self) -> ServerInfo:
        return ServerInfo(
            pid=os.getpid(), started_at_us=self._clock.now_us(), gateway_url=self.gateway_url
        )

    def _open_http(self, **more: str) -> httpx.AsyncClient:
        ca_file = self._settings.remote.ca_file
        return httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca_file or None),
            timeout=TIMEOUT_S,
            trust_env=False,
            headers=more,
        )

    async def _open_link(self, stack: AsyncExitStack) -> ControlLink | None:
        remote = self._settings.remote
        if not remote.control_url:
            _LOG.warning("no control plane is named: call records stay in %s", self._folder.spool)
            return None
        http = self._open_http(authorization=f"Bearer {resolve_secret(remote.credential)}")
        http.base_url = httpx.URL(remote.control_url)
        return ControlLink(await stack.enter_async_context(http))

    def _start_fetching(
        self, background: Background, http: httpx.AsyncClient, link: ControlLink | None
    ) -> None:
        source = open_source(self._settings, http, link)
        public_key = bytes.fromhex(self._settings.remote.public_key)
        fetcher = SnapshotFetcher(source, self._folder.snapshots, public_key)
        background.start(Worker("snapshots", fetcher.step, Wakeup()).run(), "snapshots")

    async def _start_shipping(
        self, stack: AsyncExitStack, background: Background, link: ControlLink
    ) -> None:
        retention_us = round(duration_s(self._settings.spool.retention) * 1e6)
        shipper = SpoolShipper(link, self._folder.spool, self._clock, retention_us)
        stack.callback(shipper.close)
        reporter = SlotReporter(link, shipper, self._folder, self._clock)
        shipping = background.start(
            Worker("spools", shipper.step, Wakeup(), SHIP_EVERY_S).run(), "spools"
        )
        seeds = SeedFetcher(link, self._folder.seeds, self._clock)
        background.start(Worker("seeds", seeds.step, Wakeup()).run(), "seeds")
        background.start(Worker("reports", reporter.step, Wakeup(), REPORT_LOOK_S).run(), "reports")

        async def finish() -> None:
            shipping.cancel()
            await asyncio.wait([shipping])
            if not self._is_hurried:
                await shipper.finish(LAST_SHIPMENT_S)

        stack.push_async_callback(finish)

    async def _stop_children(self) -> None:
        """Let the gateway processes drain; cancelled meanwhile (a second signal), kill them."""
        try:
            await self._children.stop(GATEWAY_MODULE, drain_limit_s(self._settings))
        except asyncio.CancelledError:
            self._is_hurried = True
            raise
        finally:
            self._children.kill()


class SlotReporter:
    """Tells the control plane what each living slot serves: at once after a change, and often."""

    def __init__(
        self, link: ControlLink, shipper: SpoolShipper, folder: DataFolder, clock: Clock
    ) -> None:
        self._link = link
        self._shipper = shipper
        self._folder = folder
        self._clock = clock
        self._said: dict[str, tuple[int, float]] = {}  # Snapshot and time by slot

    async def step(self) -> bool:
        """Report what has changed or was not said for some seconds; return False."""
        for path in self._folder.run.glob("gateway-*.json"):
            slot = path.stem
            ack = read_ack(self._folder.run, slot)
            n, at_s = self._said.get(slot, (0, -REPORT_EVERY_S))
            now_s = self._clock.monotonic_s()
            is_news = ack is not None and (ack.n != n or now_s - at_s >= REPORT_EVERY_S)
            if ack is not None and is_news and is_held(self._folder.spool / slot):
                self._said[slot] = (ack.n, now_s)
                await self._report(slot, ack.n)
        return False

    async def _report(self, slot: str, n: int) -> None:
        progress = self._shipper.get_progress(slot)
        lag_us = self._clock.now_us() - progress.caught_up_at_us
        report = SlotReport(n=n, shipped=progress.seq, lag_us=lag_us, reads=SNAPSHOT_VERSION)
        try:
            await self._link.report(slot, msgspec.json.encode(report))
        except PilotageError:  # the next report says more, and the fetcher says why
            self._said[slot] = (0, self._said[slot][1])


def check_remote(settings: Settings) -> None:
    """Raise ``invalid_config`` for settings with which a gateway cannot run apart."""
    remote = settings.remote
    if not remote.control_url and not remote.snapshots:
        raise PilotageError(
            "invalid_config",
            "A gateway apart needs a control plane or another source of Snapshots.",
            hint="Set remote.control_url and remote.credential, or remote.snapshots.",
        )
    if not _is_public_key(remote.public_key):
        raise PilotageError(
            "invalid_config",
            "remote.public_key must be the key that Snapshots are signed with, in hex.",
            hint="It is printed by: pilotage gateways create NAME (on the control plane)",
        )
    for name, url in (("control_url", remote.control_url), ("snapshots", remote.snapshots)):
        if name == "control_url" or "://" in url:
            _check_url(f"remote.{name}", url)
    if remote.control_url and not is_secret(GATEWAY_PREFIX, resolve_secret(remote.credential)):
        raise PilotageError(
            "invalid_config",
            "remote.credential is no credential of a gateway.",
            hint="Make one on the control plane: pilotage gateways create NAME",
        )


def open_source(
    settings: Settings, http: httpx.AsyncClient, link: ControlLink | None
) -> SnapshotSource:
    """Return where Snapshots come from."""
    place = settings.remote.snapshots
    if "://" in place:
        return BlobSource(http, place)
    if place:
        return FolderSource(Path(place).expanduser())
    if link is None:
        raise PilotageError("invalid_config", "Snapshots come from nowhere.")
    return ControlSource(link)


def _is_public_key(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == _PUBLIC_KEY_BYTES
    except ValueError:
        return False


def _check_url(name: str, url: str) -> None:
    """Raise unless it is https, or plain http to this machine."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    del port
    is_safe = host and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    if not is_safe:
        raise PilotageError(
            "invalid_config",
            f"{name}: {url} is no https:// address.",
            hint="Plain http:// is only for 127.0.0.1: what goes over it must not be read.",
        )
