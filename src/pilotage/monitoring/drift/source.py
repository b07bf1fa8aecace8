"""Metrics of drift, for rules and for other programs; looked at once a minute."""

from collections.abc import Sequence

from pilotage.core.condition.types import Labels
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import Comparison, MeasureShift, Subject

SHIFT, SCORE = "prediction_distribution_shift", "drift_score"
KEPT_US = 60_000_000  # how long a comparison is good for: nothing moves faster


class DriftSource:
    """Answers how far answers have moved; of what has no reference or too few calls, nothing.

    A shift above 0.1 is one that chance does not make, whatever the number of calls. Without a
    label ``measure`` it is that of the answers' measure that moved most.
    """

    def __init__(self, service: DriftService, names: Names) -> None:
        self.names = frozenset({SHIFT, SCORE})
        self._service = service
        self._names = names
        self._kept: dict[str | None, tuple[int, list[Comparison]]] = {}

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects of the transaction."""
        comparisons = await self._compare(tx, at_us)
        await self._names.learn(tx, {found.reference.version_id for found in comparisons})
        result: Found = {}
        for one in wanted:
            of_project = result.setdefault(one, {})
            for found in comparisons:
                series = of_project.setdefault(found.reference.project_id, {})
                self._measure(one, found, series)
        return result

    async def _compare(self, tx: Tx, at_us: int) -> list[Comparison]:
        scope = tx.actor.project_id
        looked_us, found = self._kept.get(scope, (0, []))
        if not looked_us <= at_us < looked_us + KEPT_US:
            found = await self._service.compare(tx, at_us)
            self._kept[scope] = (at_us, found)
        return found

    def _measure(self, one: Wanted, found: Comparison, series: dict[Labels, float]) -> None:
        for moved in found.shifts:
            if not _counts(one, moved):
                continue
            ids = {
                "alias": found.reference.alias,
                "version": found.reference.version_id or found.reference.model,
                "measure": moved.measure.value,
            }
            labels = self._names.say_all(one.by, [ids[name] for name in one.by])
            value = moved.shift.calibrated if one.name == SHIFT else moved.shift.js
            series[labels] = max(value, series.get(labels, 0.0))


def _counts(one: Wanted, moved: MeasureShift) -> bool:
    """Say whether a measure counts for a metric: any that is asked for by its name."""
    if "measure" in one.by:
        return True
    subject = moved.measure.subject
    return subject is Subject.ANSWER or (one.name == SCORE and subject is Subject.PROMPT)
