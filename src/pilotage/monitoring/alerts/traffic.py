"""Metrics of calls and of objectives, from the rollups.

A window is what the rollups make of it: whole minutes and as much of the running one as there is.
Rates are by the time that is really covered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pilotage.core.condition.types import Labels
from pilotage.core.money import NANO
from pilotage.core.sketch import Sketch
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts import store
from pilotage.monitoring.alerts.burn import burn_rate
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.types import Indicator, Slo
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Cell, Dimension, Selection

EVERYTHING = 1_000_000
MINUTE_US = 60_000_000
_ALL = Selection()
_FRESHEST_S, _OLDEST_S = 1.0, 60.0
_READS_PER_WINDOW = 300  # so that a window of 5m is read every second, and one of 1h every 12 s
_SHARE_OF_TIME = 0.1  # that reading a window again and again may take
_GUARD_CODE = "content_policy_violation"
_SLO_METRICS = ("burn_rate", "bad_events", "total_events")
Cells = Mapping[tuple[str, ...], Cell]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was read, when, and how long that took."""

    cells: Cells
    at_s: float
    took_s: float


class WindowCells:
    """The cells of windows up to now, kept for as long as reading them again would not pay."""

    def __init__(self, rollups: RollupService, clock: Clock) -> None:
        self._rollups = rollups
        self._clock = clock
        self._kept: dict[tuple[int, tuple[Dimension, ...]], _Kept] = {}

    async def read(self, tx: Tx, window_us: int, by: tuple[Dimension, ...], at_us: int) -> Cells:
        """Return cells by project and some dimensions."""
        began_s = self._clock.monotonic_s()
        kept = self._kept.get((window_us, by))
        if kept is not None and began_s - kept.at_s < _find_age_s(window_us, kept.took_s):
            return kept.cells
        dimensions = (Dimension.PROJECT, *by)
        cells = await self._rollups.read_cells(tx, _ALL, at_us - window_us, at_us + 1, dimensions)
        took_s = self._clock.monotonic_s() - began_s
        self._kept[window_us, by] = _Kept(cells, began_s, took_s)
        return cells

    def forget_old(self) -> None:
        """Drop windows that nobody asked for lately."""
        now_s = self._clock.monotonic_s()
        for key, kept in list(self._kept.items()):
            if now_s - kept.at_s > 2 * _OLDEST_S + kept.took_s / _SHARE_OF_TIME:
                del self._kept[key]


class TrafficSource:
    """Answers what is told by calls."""

    def __init__(self, cells: WindowCells, names: Names) -> None:
        self.names = frozenset(_METRICS)
        self._cells = cells
        self._names = names

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        self._cells.forget_old()
        found: Found = {}
        for one in wanted:
            by = tuple(map(Dimension, one.by))
            cells = await self._cells.read(tx, one.window_us, by, at_us)
            ids = {key[1 + one.by.index("version")] for key in cells} if "version" in one.by else ()
            await self._names.learn(tx, ids)
            found[one] = self._measure(one, cells, _count_seconds(one.window_us, at_us))
        return found

    def _measure(self, one: Wanted, cells: Cells, seconds: float) -> dict[str, dict[Labels, float]]:
        measure = _METRICS[one.name]
        found: dict[str, dict[Labels, float]] = {}
        for (project_id, *values), cell in cells.items():
            value = measure(cell, seconds)
            if value is not None:
                labels = self._names.say_all(one.by, values)
                found.setdefault(project_id, {})[labels] = value
        return found


class ObjectiveSource:
    """Answers how objectives are kept."""

    def __init__(self, cells: WindowCells) -> None:
        self.names = frozenset(_SLO_METRICS)
        self._cells = cells

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        slos = await store.list_slos(tx, "", EVERYTHING)
        found: Found = {one: {} for one in wanted}
        for one in wanted:
            of_alias = await self._cells.read(tx, one.window_us, (Dimension.ALIAS,), at_us)
            for slo in slos:
                bad, total = count_events(slo, of_alias)
                value = _SLO_VALUES[one.name](slo, bad, total)
                if value is not None:
                    labels = (("slo", slo.name),) if one.by else ()
                    found[one].setdefault(slo.project_id, {})[labels] = value
        return found


def count_events(slo: Slo, of_alias: Cells) -> tuple[int, int]:
    """Return how many calls were bad for an objective, and of how many, given cells by alias."""
    bad = total = 0
    for (project_id, alias), cell in of_alias.items():
        if project_id == slo.project_id and slo.alias in {"", alias}:
            if slo.indicator is Indicator.ERRORS:
                bad, total = bad + cell.errors, total + cell.answerable
            else:
                sketch = cell.duration if slo.indicator is Indicator.LATENCY else cell.ttft
                bad, total = bad + sketch.count_above(slo.threshold_us), total + sketch.count
    return bad, total


def _find_age_s(window_us: int, took_s: float) -> float:
    """Return for how long a window is not read again: long ones change slowly."""
    usual_s = min(max(window_us / 1e6 / _READS_PER_WINDOW, _FRESHEST_S), _OLDEST_S)
    return max(usual_s - 0.5, took_s / _SHARE_OF_TIME)  # the beat of looks is not exact


def _count_seconds(window_us: int, at_us: int) -> float:
    """Return how long the window is that the rollups make of one."""
    return (window_us + (at_us - window_us) % MINUTE_US) / 1e6


def _quantile(part: Callable[[Cell], Sketch], share: float) -> "_Measure":
    def measure(cell: Cell, _: float) -> float | None:
        return _to_seconds(part(cell).quantile(share))

    return measure


def _count(part: Callable[[Cell], int]) -> "_Measure":
    def measure(cell: Cell, _: float) -> float:
        return float(part(cell))

    return measure


def _rate(part: Callable[[Cell], int]) -> "_Measure":
    def measure(cell: Cell, seconds: float) -> float:
        return part(cell) / seconds

    return measure


def _to_seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


def _cost_per_request(cell: Cell, _: float) -> float | None:
    return cell.cost_nano / NANO / cell.calls if cell.calls else None


def _find_bad(_: Slo, bad: int, total: int) -> float | None:
    return float(bad) if total else None


def _find_total(_: Slo, _bad: int, total: int) -> float | None:
    return float(total) if total else None


def _find_burn(slo: Slo, bad: int, total: int) -> float | None:
    return burn_rate(bad, total, slo.budget)


_Measure = Callable[[Cell, float], float | None]
_SLO_VALUES: dict[str, Callable[[Slo, int, int], float | None]] = dict(
    zip(_SLO_METRICS, (_find_burn, _find_bad, _find_total), strict=True)
)
_METRICS: dict[str, _Measure] = {
    "p50_latency": _quantile(lambda cell: cell.duration, 0.5),
    "p90_latency": _quantile(lambda cell: cell.duration, 0.9),
    "p95_latency": _quantile(lambda cell: cell.duration, 0.95),
    "p99_latency": _quantile(lambda cell: cell.duration, 0.99),
    "mean_latency": lambda cell, _: _to_seconds(cell.duration.mean),
    "p50_ttft": _quantile(lambda cell: cell.ttft, 0.5),
    "p95_ttft": _quantile(lambda cell: cell.ttft, 0.95),
    "p99_ttft": _quantile(lambda cell: cell.ttft, 0.99),
    "p95_time_per_chunk": _quantile(lambda cell: cell.per_chunk, 0.95),
    "p95_queue": _quantile(lambda cell: cell.queue, 0.95),
    "error_rate": lambda cell, _: cell.error_rate,
    "refusal_rate": lambda cell, _: cell.refusal_rate,
    "request_rate": _rate(lambda cell: cell.calls),
    "request_count": _count(lambda cell: cell.calls),
    "error_count": _count(lambda cell: cell.errors),
    "token_count": _count(lambda cell: cell.tokens.total),
    "input_tokens": _count(lambda cell: cell.tokens.prompt_tokens),
    "output_tokens": _count(lambda cell: cell.tokens.completion_tokens),
    "throughput": _rate(lambda cell: cell.tokens.completion_tokens),
    "guard_events": _count(lambda cell: cell.codes.get(_GUARD_CODE, 0)),
    "cost": lambda cell, _: cell.cost_nano / NANO,
    "cost_per_request": _cost_per_request,
}
