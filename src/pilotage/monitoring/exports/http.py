"""The page of the control process, and the same numbers one by one."""

from datetime import datetime

from pilotage.core.condition.catalogue import MAX_WINDOW_US, METRICS
from pilotage.core.condition.checks import suggest
from pilotage.core.duration import UNITS_US, format_duration, parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, RawCall, RawReply, RawRoute, Route, View
from pilotage.monitoring.alerts.values import Picture, Wanted
from pilotage.monitoring.exports.exposition import MEDIA_TYPE, render
from pilotage.monitoring.exports.service import Exports


class ValueView(View):
    """A metric of one series; ``window`` is "" for what is of now or of a calendar period."""

    metric: str
    unit: str
    window: str
    labels: dict[str, str]
    value: float


class ValuesView(View):
    """What metrics are at a time; those of ``unread`` could not be read."""

    at: datetime
    items: list[ValueView]
    unread: list[str]


def export_pages(exports: Exports) -> list[RawRoute]:
    """List the pages that stand beside the API, at the root of the control process."""

    async def show_metrics(_: RawCall) -> RawReply:
        """Show every metric in Prometheus' text format."""
        return RawReply(body=render(await exports.collect()), media_type=MEDIA_TYPE)

    return [
        RawRoute(
            method="GET",
            path="/metrics",
            permission="monitoring.exposition.read",
            handler=show_metrics,
            is_global=True,
        )
    ]


def export_routes(exports: Exports) -> list[Route]:
    """List the operations on values."""

    async def list_metric_values(
        call: ApiCall, metrics: str = "", window: str = "", by: str = "", alias: str = ""
    ) -> ValuesView:
        """Show what metrics of the project are now: some or all, by their own or other labels."""
        wanted = read_wanted(metrics, window, by)
        async with call.read() as tx:
            picture = await exports.read_values(tx, wanted)
            return show_values(picture, tx.project_id, alias)

    return [
        Route(
            method="GET",
            path="/metric-values",
            permission="monitoring.metric.read",
            handler=list_metric_values,
        )
    ]


def read_wanted(metrics: str, window: str, by: str) -> list[Wanted]:
    """Return what names, a window and labels ask for; raise ``invalid_request``.

    Metrics without a window keep none, and labels that a metric does not have are passed over:
    what is asked of several holds for those of which it can.
    """
    names = [name.strip() for name in metrics.split(",") if name.strip()] or list(METRICS)
    labels = {label.strip() for label in by.split(",") if label.strip()}
    window_us = _read_window(window)
    wanted = []
    for name in names:
        if name not in METRICS:
            raise PilotageError(
                "invalid_request",
                f"{name[:60]!r} is no metric.",
                hint=suggest(name, METRICS) or "The metrics are listed in the reference.",
                param="metrics",
            )
        usual, own = Wanted.usual(name), METRICS[name]
        wanted.append(
            Wanted(
                name,
                window_us or usual.window_us if usual.window_us else 0,
                tuple(sorted(labels & set(own.labels))) if labels else usual.by,
            )
        )
    return wanted


def show_values(picture: Picture, project_id: str, alias: str) -> ValuesView:
    """Return what a project sees: of one alias that and what has no alias, or everything."""
    items = []
    for wanted, by_project in picture.found.items():
        for labels, value in sorted(by_project.get(project_id, {}).items()):
            series = dict(labels)
            if alias and series.get("alias", alias) != alias:
                continue
            items.append(
                ValueView(
                    metric=wanted.name,
                    unit=METRICS[wanted.name].unit_name,
                    window=format_duration(wanted.window_us) if wanted.window_us else "",
                    labels=series,
                    value=value,
                )
            )
    return ValuesView.of(picture, items=items, unread=sorted(picture.unread))


def _read_window(window: str) -> int:
    if not window:
        return 0
    try:
        window_us = parse_duration_us(window)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"{wrong}.", param="window") from None
    if window_us % UNITS_US["m"] or not 0 < window_us <= MAX_WINDOW_US:
        longest = format_duration(MAX_WINDOW_US)
        raise PilotageError(
            "invalid_request", f"A window is whole minutes, from 1m to {longest}.", param="window"
        )
    return window_us
