"""How objectives are kept: bad calls and all calls of a window, and how fast their budget burns."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from pilotage.core.condition.types import Labels
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts import store
from pilotage.monitoring.alerts.burn import burn_rate
from pilotage.monitoring.alerts.types import Indicator, Slo
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.alerts.windows import Windows
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Cell, Counts, Dimension, Selection

Summed = TypeVar("Summed", Counts, Cell)
_EVERYTHING = 1_000_000
_BY = (Dimension.ALIAS,)


class ObjectiveSource:
    """Answers ``burn_rate``, ``bad_events`` and ``total_events``; nothing where no call was."""

    def __init__(self, windows: Windows) -> None:
        self.names = frozenset(_METRICS)
        self._windows = windows

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        slos = await store.list_slos(tx, "", _EVERYTHING)
        windows = dict.fromkeys(one.window_us for one in wanted)
        counted = {window: await self._count(tx, slos, window, at_us) for window in windows}
        found: Found = {one: {} for one in wanted}
        for one in wanted:
            await asyncio.sleep(0)  # there may be thousands of objectives
            for slo, bad, total in counted[one.window_us]:
                value = _METRICS[one.name](slo, bad, total)
                if value is not None:
                    labels: Labels = (("slo", slo.name),)
                    found[one].setdefault(slo.project_id, {})[labels] = value
        return found

    async def _count(
        self, tx: Tx, slos: Sequence[Slo], window_us: int, at_us: int
    ) -> list[tuple[Slo, int, int]]:
        """Return bad and all calls of each objective in a window; sketches only where needed."""
        on_errors = [slo for slo in slos if slo.indicator is Indicator.ERRORS]
        on_time = [slo for slo in slos if slo.indicator is not Indicator.ERRORS]
        found = []
        if on_errors:
            counts = _Calls(await self._windows.read_counts(tx, window_us, _BY, at_us))
            found += [(slo, *add_counts(counts.of(slo))) for slo in on_errors]
        if on_time:
            cells = _Calls(await self._windows.read_cells(tx, window_us, _BY, at_us))
            found += [(slo, *add_cells(slo, cells.of(slo))) for slo in on_time]
        return found


class _Calls(Generic[Summed]):
    """What calls add up to, by project and alias, for one objective after another."""

    def __init__(self, by_alias: Mapping[tuple[str, ...], Summed]) -> None:
        self._by_alias: Mapping[tuple[str, ...], Summed] = by_alias
        self._by_project: dict[str, list[Summed]] = {}
        for (project_id, _), one in by_alias.items():
            self._by_project.setdefault(project_id, []).append(one)

    def of(self, slo: Slo) -> Iterable[Summed]:
        """Return what an objective is about."""
        if not slo.alias:
            return self._by_project.get(slo.project_id, ())
        one = self._by_alias.get((slo.project_id, slo.alias))
        return () if one is None else (one,)


async def count_events(
    rollups: RollupService, tx: Tx, slo: Slo, window_us: int, at_us: int
) -> tuple[int, int]:
    """Return bad and all calls of one objective of the transaction's project, read anew."""
    select = Selection(alias=slo.alias or None)
    if slo.indicator is Indicator.ERRORS:
        counts = await rollups.read_counts(tx, select, at_us - window_us, at_us + 1)
        return add_counts(counts.values())
    cells = await rollups.read_cells(tx, select, at_us - window_us, at_us + 1)
    return add_cells(slo, cells.values())


def add_counts(counts: Iterable[Counts]) -> tuple[int, int]:
    """Return how many calls failed, and how many were not refused."""
    bad = total = 0
    for one in counts:
        bad, total = bad + one.errors, total + one.calls - one.refusals
    return bad, total


def add_cells(slo: Slo, cells: Iterable[Cell]) -> tuple[int, int]:
    """Return how many calls took, or began, longer than an objective allows, and of how many."""
    bad = total = 0
    for cell in cells:
        sketch = cell.duration if slo.indicator is Indicator.LATENCY else cell.ttft
        bad, total = bad + sketch.count_above(slo.threshold_us), total + sketch.count
    return bad, total


def _find_burn(slo: Slo, bad: int, total: int) -> float | None:
    return burn_rate(bad, total, slo.budget)


def _find_bad(_: Slo, bad: int, total: int) -> float | None:
    return float(bad) if total else None


def _find_total(_: Slo, _bad: int, total: int) -> float | None:
    return float(total) if total else None


_METRICS: dict[str, Callable[[Slo, int, int], float | None]] = {
    "burn_rate": _find_burn,
    "bad_events": _find_bad,
    "total_events": _find_total,
}
