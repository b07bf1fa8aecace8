"""Metrics of calls, from the rollups.

A window is what the rollups make of it: whole minutes and as much of the running one as there is.
Rates are by the time that is really covered.
"""

from collections.abc import Callable, Mapping, Sequence

from pilotage.core.condition.types import Labels
from pilotage.core.money import NANO
from pilotage.core.sketch import Sketch
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.alerts.windows import Windows
from pilotage.monitoring.rollups.types import Cell, Dimension

MINUTE_US = 60_000_000
_GUARD_CODE = "content_policy_violation"


class TrafficSource:
    """Answers what is told by calls."""

    def __init__(self, windows: Windows, names: Names) -> None:
        self.names = frozenset(_METRICS)
        self._windows = windows
        self._names = names

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        found: Found = {}
        for one in wanted:
            by = tuple(map(Dimension, one.by))
            cells = await self._windows.read_cells(tx, one.window_us, by, at_us)
            ids = {key[1 + one.by.index("version")] for key in cells} if "version" in one.by else ()
            await self._names.learn(tx, ids)
            found[one] = self._measure(one, cells, _count_seconds(one.window_us, at_us))
        return found

    def _measure(
        self, one: Wanted, cells: Mapping[tuple[str, ...], Cell], seconds: float
    ) -> dict[str, dict[Labels, float]]:
        measure = _METRICS[one.name]
        found: dict[str, dict[Labels, float]] = {}
        for (project_id, *values), cell in cells.items():
            value = measure(cell, seconds)
            if value is not None:
                labels = self._names.say_all(one.by, values)
                found.setdefault(project_id, {})[labels] = value
        return found


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


_Measure = Callable[[Cell, float], float | None]
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
