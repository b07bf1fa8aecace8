"""Control-plane route of infrastructure: what replicas and their machine are used to."""

from collections.abc import Iterable
from datetime import datetime

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Route, View
from pilotage.kit.clock import Clock, to_datetime
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.types import Gauge, GaugeKey, GaugeSeries, Spread
from pilotage.monitoring.rollups.types import Level

_STEPS = {"1m": Level.MINUTE, "1h": Level.HOUR, "1d": Level.DAY}
_MOST_POINTS = 1_500


class GaugeView(View):
    """What was read last; the shares of ..._usage are from 0 to 1.

    ``alias`` and ``version`` are empty for the machine.
    """

    name: Gauge
    alias: str
    version: str
    value: float


class GaugePointView(View):
    """What was read in one step."""

    at: datetime
    mean: float
    lowest: float
    highest: float


class GaugeSeriesView(View):
    """A gauge over time; steps in which nothing was read have no point."""

    name: Gauge
    alias: str
    version: str
    points: list[GaugePointView]


class InfrastructureView(View):
    """What the project's replicas and the machine of the control plane are used to.

    What cannot be read is absent: GPUs without NVIDIA's library, processes of other machines.
    """

    replicas: list[GaugeView]
    machine: list[GaugeView]
    series: list[GaugeSeriesView]


def infrastructure_routes(service: InfrastructureService, clock: Clock) -> list[Route]:
    """List the routes of infrastructure."""

    async def get_infrastructure(
        call: ApiCall, window: str = "1h", step: str = "1m"
    ) -> InfrastructureView:
        """Show what replicas and their machine are used to, and by 1m, 1h or 1d were before."""
        level = _read_step(step)
        window_us = _read_window(window, level)
        now_us = clock.now_us()
        async with call.read() as tx:
            project_id = tx.project_id
            series = await service.read_series(tx, now_us - window_us, now_us + 1, level)
        return InfrastructureView(
            replicas=_show_now(service.list_now(project_id, now_us)),
            machine=_show_now(service.list_now("", now_us)),
            series=[_show_series(one) for one in series],
        )

    return [
        Route(
            method="GET",
            path="/metrics/infrastructure",
            permission="monitoring.metrics.read",
            handler=get_infrastructure,
        )
    ]


def _read_step(text: str) -> Level:
    if text not in _STEPS:
        raise PilotageError(
            "invalid_request",
            f"step: gauges are not kept by {text[:40]!r}.",
            hint=f"There are: {', '.join(_STEPS)}.",
            param="step",
        )
    return _STEPS[text]


def _read_window(text: str, level: Level) -> int:
    try:
        window_us = parse_duration_us(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"window: {wrong}", param="window") from None
    if window_us > _MOST_POINTS * level.span_us:
        raise PilotageError(
            "invalid_request",
            f"That are more than {_MOST_POINTS} steps.",
            hint="Ask for longer steps or a shorter window.",
            param="window",
        )
    return window_us


def _show_now(found: Iterable[tuple[GaugeKey, float]]) -> list[GaugeView]:
    return [
        GaugeView(name=key.gauge, alias=key.alias, version=key.version_id, value=value)
        for key, value in found
    ]


def _show_series(series: GaugeSeries) -> GaugeSeriesView:
    return GaugeSeriesView(
        name=series.key.gauge,
        alias=series.key.alias,
        version=series.key.version_id,
        points=[_show_point(at_us, spread) for at_us, spread in series.points],
    )


def _show_point(at_us: int, spread: Spread) -> GaugePointView:
    return GaugePointView.of(spread, at=to_datetime(at_us))
