"""The numbers of the control plane for other programs: read from the same source as alerts.

What a rule is evaluated on and what Prometheus is shown are the same values, so that an exported
rule agrees with ours.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pilotage
from pilotage.core.condition.catalogue import METRICS
from pilotage.core.duration import UNITS_US, format_duration
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.spool_consumer import SpoolHealth
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.types import Alert
from pilotage.monitoring.alerts.values import Picture, ValueSource, Wanted
from pilotage.monitoring.alerts.worker import AlertKeeper
from pilotage.monitoring.exports.table import (
    ALERT,
    ALERT_RULES_UNKNOWN,
    ALERTS_LOOKED_AT,
    BUILD,
    CPU,
    FILES,
    LEDGER_POSITION,
    MEMORY,
    NOTICES,
    RECORDS_PASSED_OVER,
    SPOOL_LOSSES,
    SPOOLS_HELD_UP,
    WORKER_FAILURES,
)
from pilotage.monitoring.exports.types import Family, FamilyKind, Pairs, Sample
from pilotage.monitoring.notify.service import NotifyService

WINDOWS_US = tuple(map(UNITS_US["m"].__mul__, (1, 5, 60)))
KEEP_S = 1.0  # however many ask, the page is made once a second
_PROCESS = {shown.name: shown for shown in (CPU, MEMORY, FILES)}
Readings = Iterable[tuple[str, tuple[str, ...], float]]


class Exports:
    """Collects what the control process shows.

    ``list_failures`` says how often each worker has failed in a row, ``list_readers`` how the
    reading of spools goes, ``read_process`` what this process takes of its machine.
    """

    def __init__(  # noqa: PLR0913 - the page is put together from that many parts
        self,
        db: Database,
        clock: Clock,
        *,
        values: ValueSource,
        names: Names,
        alerts: AlertService,
        keeper: AlertKeeper,
        notices: NotifyService,
        finops: FinopsService,
        list_failures: Callable[[], Iterable[tuple[str, int]]],
        list_readers: Callable[[], Iterable[tuple[str, SpoolHealth]]],
        read_process: Callable[[], Readings],
    ) -> None:
        self._db = db
        self._clock = clock
        self._values = values
        self._names = names
        self._alerts = alerts
        self._keeper = keeper
        self._notices = notices
        self._finops = finops
        self._list_failures = list_failures
        self._list_readers = list_readers
        self._read_process = read_process
        self._lock = asyncio.Lock()
        self._kept: tuple[float, list[Family]] | None = None

    async def collect(self) -> list[Family]:
        """Return every metric with its series, as they were within the last second."""
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if self._kept is None or now_s - self._kept[0] >= KEEP_S:
                self._kept = (now_s, await self._read())
            return self._kept[1]

    async def read_values(self, tx: Tx, wanted: Sequence[Wanted]) -> Picture:
        """Return what metrics are now, in all projects."""
        return await self._values.read(tx, wanted, tx.now_us)

    async def _read(self) -> list[Family]:
        async with self._db.read(SYSTEM) as tx:
            found = await self._read_rows(tx)
        rows = [((name,), float(count)) for name, count in self._list_failures()]
        version = (pilotage.__version__, platform.python_version())
        process = [
            _PROCESS[name].fill([(labels, value)]) for name, labels, value in self._read_process()
        ]
        build = BUILD.fill([(version, 1.0)])
        readers = write_readers(self._list_readers())
        return [*found, *readers, WORKER_FAILURES.fill(rows), build, *process]

    async def _read_rows(self, tx: Tx) -> list[Family]:
        wanted = [*list_usual(), *await self._keeper.list_wanted(tx)]
        picture = await self._values.read(tx, wanted, tx.now_us)
        await self._names.learn(tx)
        projects = self._names.projects
        alerts = await self._alerts.list_alerts(tx)
        notices = await self._notices.count_notices(tx)
        places = {place.gateway: float(place.seq) for place in await self._finops.list_places(tx)}
        return [
            *list_gauges(picture, projects),
            write_alerts(alerts, projects),
            *self._write_looks(),
            write_notices(notices, projects),
            LEDGER_POSITION.fill(((slot,), seq) for slot, seq in sorted(places.items())),
        ]

    def _write_looks(self) -> Iterator[Family]:
        looked_at_us = self._keeper.looked_at_us
        if looked_at_us is not None:
            yield ALERTS_LOOKED_AT.fill([((), looked_at_us / 1e6)])
            unknown = sum(1 for look in self._keeper.looks.values() if look.problem)
            yield ALERT_RULES_UNKNOWN.fill([((), float(unknown))])


def list_usual() -> Iterator[Wanted]:
    """Return what the page shows whatever rules ask for: each metric over its usual windows."""
    for usual in map(Wanted.usual, METRICS):
        windows = WINDOWS_US if usual.window_us == WINDOWS_US[0] else (usual.window_us,)
        yield from (usual._replace(window_us=window_us) for window_us in windows)


def write_readers(readers: Iterable[tuple[str, SpoolHealth]]) -> Iterator[Family]:
    """Return how the reading of spools goes, by who reads them."""
    health = [((name,), one) for name, one in readers]
    yield SPOOLS_HELD_UP.fill((name, float(one.held_up)) for name, one in health)
    yield RECORDS_PASSED_OVER.fill((name, float(one.passed_over)) for name, one in health)
    yield SPOOL_LOSSES.fill((name, float(one.damaged)) for name, one in health)


def list_gauges(picture: Picture, projects: dict[str, str]) -> Iterator[Family]:
    """Return a gauge for each metric of the catalogue that has a value."""
    series: dict[str, dict[Pairs, float]] = {}
    for wanted, by_project in picture.found.items():
        window = (("window", format_duration(wanted.window_us)),) if wanted.window_us else ()
        for project_id, values in by_project.items():
            project = ("project", projects.get(project_id, project_id))
            for labels, value in values.items():
                series.setdefault(wanted.name, {})[project, *labels, *window] = value
    for name, found in series.items():
        metric = METRICS[name]
        yield Family(
            name=metric.gauge,
            kind=FamilyKind.GAUGE,
            help=f"{metric.help} ({metric.unit_name}).",
            samples=tuple(Sample(labels, value) for labels, value in sorted(found.items())),
        )


def write_alerts(alerts: Sequence[Alert], projects: dict[str, str]) -> Family:
    """Return the alerts that are pending or fire, by their own labels too."""
    return Family(
        name=ALERT.name,
        kind=ALERT.kind,
        help=ALERT.help,
        samples=tuple(Sample(_label(alert, projects), 1.0) for alert in alerts),
    )


def write_notices(
    counts: Mapping[tuple[str, str, str], int], projects: Mapping[str, str]
) -> Family:
    """Return how many notices wait, arrived, or were given up."""
    rows = (
        ((projects.get(project_id, project_id), channel, state), float(count))
        for (project_id, channel, state), count in sorted(counts.items())
    )
    return NOTICES.fill(rows)


def _label(alert: Alert, projects: dict[str, str]) -> Pairs:
    ours = {
        "project": projects.get(alert.project_id, alert.project_id),
        "rule": alert.rule,
        "severity": alert.severity.value,
        "team": alert.team,
        "state": alert.state.value,
    }
    return tuple(sorted((alert.labels | ours).items()))
