"""The numbers of an installation for other programs, wired."""

from collections.abc import Callable, Iterable

from pilotage.finops.service import FinopsService
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import TelemetrySettings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database
from pilotage.kit.spool_consumer import SpoolHealth
from pilotage.kit.spool_reader import is_held, list_spools
from pilotage.kit.worker import Worker
from pilotage.monitoring.exports.exposition import parse
from pilotage.monitoring.exports.http import export_pages, export_routes
from pilotage.monitoring.exports.service import Exports
from pilotage.monitoring.exports.worker import MetricSender, Told, make_sender_worker
from pilotage.monitoring.notify.service import NotifyService
from pilotage.runtime.alerting import Alerting
from pilotage.runtime.telemetry import SUFFIX, read_headers, read_process

CONTROL, GATEWAY = "pilotage-control", "pilotage-gateway"


class Exporting:
    """The page of the control process; and everything that is told here, sent to a collector."""

    def __init__(  # noqa: PLR0913 - the page is put together from that many parts
        self,
        settings: TelemetrySettings,
        folder: DataFolder,
        clock: Clock,
        db: Database,
        *,
        alerting: Alerting,
        notices: NotifyService,
        finops: FinopsService,
        list_workers: Callable[[], Iterable[Worker]],
        list_readers: Callable[[], Iterable[tuple[str, SpoolHealth]]],
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._since_us = clock.now_us()
        self._exports = Exports(
            db,
            clock,
            values=alerting.values,
            names=alerting.names,
            alerts=alerting.service,
            keeper=alerting.keeper,
            notices=notices,
            finops=finops,
            list_failures=lambda: [(worker.name, worker.failures) for worker in list_workers()],
            list_readers=list_readers,
            read_process=read_process,
        )

    def list_pages(self) -> list[RawRoute]:
        """List the pages beside the API."""
        return export_pages(self._exports)

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return export_routes(self._exports)

    def make_workers(self) -> list[Worker]:
        """Make the worker that sends, if there is anywhere to send to."""
        every_s = duration_s(self._settings.metrics_every)
        if not self._settings.otlp_url or not every_s:
            return []
        headers = read_headers(self._settings.otlp_headers)
        sender = MetricSender(self._settings.otlp_url, headers, self._collect, self._clock, every_s)
        return [make_sender_worker(sender)]

    async def _collect(self) -> list[Told]:
        """Return what this process tells, and the gateway processes of this data folder."""
        own = Told(
            process=CONTROL,
            instance="control",
            families=await self._exports.collect(),
            since_us=self._since_us,
        )
        return [own, *self._read_slots()]

    def _read_slots(self) -> list[Told]:
        told = []
        for spool in list_spools(self._folder.spool):
            if not is_held(spool):
                continue
            try:  # a slot that has just begun has written none
                page = (self._folder.run / f"{spool.name}{SUFFIX}").read_text()
                families = list(parse(page))
            except (OSError, ValueError):
                continue
            told.append(Told(process=GATEWAY, instance=spool.name, families=families))
        return told
