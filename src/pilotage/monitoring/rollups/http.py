"""Control-plane routes of metrics: what calls add up to, by group and over time."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.money import format_usd
from pilotage.core.sketch import Sketch
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Page, Route, View
from pilotage.kit.clock import Clock, to_datetime
from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.asking import (
    Window,
    read_filters,
    read_groups,
    read_step,
    read_window,
)
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import (
    FIELDS,
    OTHER,
    Cell,
    Dimension,
    Selection,
    Series,
)

_AT_ONCE = 2  # asks that are read: each takes a connection, and time of a core


class TimesView(View):
    """How long something took, in seconds; each absent where nothing was measured."""

    count: int
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None

    @classmethod
    def of_sketch(cls, sketch: Sketch) -> "TimesView":
        """Show a sketch of microseconds."""
        return cls(
            count=sketch.count,
            mean_s=_seconds(sketch.mean),
            p50_s=_seconds(sketch.quantile(0.5)),
            p90_s=_seconds(sketch.quantile(0.9)),
            p95_s=_seconds(sketch.quantile(0.95)),
            p99_s=_seconds(sketch.quantile(0.99)),
        )


class TrafficMetricsView(View):
    """What the calls of one group add up to.

    Refused calls are no errors and are in no time; rates are shares from 0 to 1, absent where there
    is nothing to be a share of. ``duration`` is from a call's arrival to its end, ``ttft`` to the
    first token, ``per_chunk`` between chunks, ``queue`` until it was let in. At most 32 names of
    each kind are counted one by one, further ones as ``(other)``.
    """

    calls: int
    refusals: int
    errors: int
    error_rate: float | None
    refusal_rate: float | None
    streams: int
    chunks: int
    attempts: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: str
    cost_nano: int
    estimated_nano: int
    duration: TimesView
    ttft: TimesView
    per_chunk: TimesView
    queue: TimesView
    outcomes: dict[str, int]
    codes: dict[str, int]
    finish_reasons: dict[str, int]
    flags: dict[str, int]
    features: dict[str, int]


class GroupMetricsView(TrafficMetricsView):
    """The metrics of one group over a window, which is as long as ``seconds`` says.

    The window is widened to whole minutes, or to whole hours or days where only those are kept.
    """

    groups: dict[str, str]
    since: datetime
    until: datetime
    seconds: float


class PointView(TrafficMetricsView):
    """The metrics of one step, which begins at a time."""

    at: datetime


class SeriesView(View):
    """One group over time; steps without calls have no point."""

    groups: dict[str, str]
    points: list[PointView]


class SeriesListView(View):
    """All groups over time, from ``since`` to before ``until`` in steps of seconds."""

    since: datetime
    until: datetime
    step_s: float
    items: list[SeriesView]


def metric_routes(service: RollupService, identity: IdentityService, clock: Clock) -> list[Route]:
    """List the routes of metrics of calls."""
    reading = asyncio.Semaphore(_AT_ONCE)

    async def get_metrics(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        by: str = "alias",
        window: str = "",
        since: str = "",
        until: str = "",
        where: str = "",
        limit: int = 50,
        after: str = "",
    ) -> Page[GroupMetricsView]:
        """Add up the calls of the last ``window`` (1h), or from ``since`` to before ``until``.

        ``by`` lists project, tenant, alias, arm, version, model, with commas; ``where`` what to
        look at (``alias=chat,arm=stable``). Versions are ids. Copies that no client waited for are
        those of the tenant ``shadow``. ``features`` of a group are the calls of each. Raises
        ``query_too_large`` for more than 100,000 cells of calls.
        """
        asked = read_window(window, since, until, clock.now_us())
        groups = read_groups(by)
        async with reading, call.read() as tx:
            chosen = await _read_selection(tx, where, identity)
            await service.check_size(tx, chosen, asked.since_us, asked.until_us)
            found = await service.read_cells(tx, chosen, asked.since_us, asked.until_us, groups)
        place = tuple(_read_key(after, len(groups))) if after else ()
        rows = sorted(
            (labels, cell) for labels, cell in found.items() if not after or labels > place
        )
        shown = [_show_group(groups, labels, cell, asked) for labels, cell in rows[:limit]]
        more = len(rows) > limit
        return Page(items=shown, next=_write_key(rows[limit - 1][0]) if more else None)

    async def get_series(  # noqa: PLR0917 - the server passes them by name
        call: ApiCall,
        by: str = "alias",
        window: str = "",
        since: str = "",
        until: str = "",
        step: str = "",
        where: str = "",
    ) -> SeriesListView:
        """Show the same step by step; ``step`` is a minute or a multiple of one (5m, 1h, 1d).

        Raises ``query_too_large`` for more than 20,000 points, too.
        """
        asked = read_window(window, since, until, clock.now_us())
        step_us = read_step(step, asked)
        groups = read_groups(by)
        async with reading, call.read() as tx:
            chosen = await _read_selection(tx, where, identity)
            await service.check_size(tx, chosen, asked.since_us, asked.until_us, step_us)
            found = await service.read_series(
                tx, chosen, asked.since_us, asked.until_us, step_us, groups
            )
            items = await asyncio.to_thread(_show_all, groups, found)
        return SeriesListView(
            since=_moment(asked.since_us),
            until=_moment(asked.until_us),
            step_s=step_us / 1e6,
            items=items,
        )

    return [
        Route(
            method="GET", path="/metrics", permission="monitoring.metrics.read", handler=get_metrics
        ),
        Route(
            method="GET",
            path="/metrics/series",
            permission="monitoring.metrics.read",
            handler=get_series,
        ),
    ]


async def _read_selection(tx: Tx, where: str, identity: IdentityService) -> Selection:
    wanted = read_filters(where)
    tenant = wanted.get(Dimension.TENANT, "")
    if tenant and tenant != OTHER:
        wanted[Dimension.TENANT] = await identity.find_payer_id(tx, tenant)
    return Selection(**{FIELDS[dimension]: value for dimension, value in wanted.items()})


def _read_key(text: str, length: int) -> list[str]:
    try:
        key = msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        key = []
    if len(key) != length:
        raise PilotageError(
            "invalid_request",
            "That is not where a page of metrics can continue.",
            hint="Send 'next' of the page before as it is.",
            param="after",
        )
    return key


def _write_key(labels: Sequence[str]) -> str:
    return msgspec.json.encode(list(labels)).decode()


def _show_group(
    groups: Sequence[Dimension], labels: Sequence[str], cell: Cell, window: Window
) -> GroupMetricsView:
    return GroupMetricsView.of(
        cell,
        **_show_cell(cell),
        groups=_name(groups, labels),
        since=_moment(window.since_us),
        until=_moment(window.until_us),
        seconds=(window.until_us - window.since_us) / 1e6,
    )


def _show_all(groups: Sequence[Dimension], found: Sequence[Series]) -> list[SeriesView]:
    return [
        SeriesView(
            groups=_name(groups, series.labels),
            points=[
                PointView.of(point.cell, **_show_cell(point.cell), at=_moment(point.at_us))
                for point in series.points
            ],
        )
        for series in found
    ]


def _show_cell(cell: Cell) -> dict[str, object]:
    times = {
        name: TimesView.of_sketch(getattr(cell, name))
        for name in ("duration", "ttft", "per_chunk", "queue")
    }
    tokens = {
        f"{name}_tokens": count for name, count in msgspec.structs.asdict(cell.tokens).items()
    }
    return {**times, **tokens, "cost_usd": format_usd(cell.cost_nano)}


def _name(groups: Sequence[Dimension], labels: Sequence[str]) -> dict[str, str]:
    return {group.value: label for group, label in zip(groups, labels, strict=True)}


def _moment(at_us: int) -> datetime:
    moment = to_datetime(at_us)
    if moment is None:
        raise RuntimeError("a time is a time")
    return moment


def _seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
