"""What every metric of the catalogue is at a time: the one source of alerts and of gauges.

Each metric is answered by one source, for all projects at once and however many rules ask. A metric
whose source fails, or that nobody measures, is absent and no number.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.evaluator import Values
from pilotage.core.condition.types import Labels, Match, MetricRef
from pilotage.core.errors import PilotageError
from pilotage.kit.db import Tx

_LOG = logging.getLogger("pilotage.alerts")


class Wanted(NamedTuple):
    """A metric over a window, told apart by some labels (in order)."""

    name: str
    window_us: int
    by: tuple[str, ...]

    @classmethod
    def of(cls, ref: MetricRef) -> "Wanted":
        """Return what a reference needs; its filters choose among that."""
        return cls(ref.name, ref.window_us, ref.by)

    @classmethod
    def usual(cls, name: str) -> "Wanted":
        """Return what a metric is without filters or a window of its own."""
        metric = METRICS[name]
        return cls(name, metric.window_us, tuple(sorted(metric.split_by)))


Found = dict[Wanted, dict[str, dict[Labels, float]]]  # by project id, then by labels
_Index = dict[str, dict[Labels, float]]


class Source(Protocol):
    """Answers some metrics."""

    names: frozenset[str]

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some of its metrics in all projects; what is unknown is absent."""
        ...


class Picture:
    """What metrics are at one time; ``unread`` are those whose source failed."""

    def __init__(self, at_us: int, found: Found, unread: frozenset[str]) -> None:
        self.at_us = at_us
        self.found = found
        self.unread = unread
        self._indexes: dict[tuple[Wanted, str, str], _Index] = {}

    def of(self, project_id: str) -> Values:
        """Return the values of a project, as conditions are evaluated on them.

        Of a reference that wants a label to be something, only the series with it are looked at:
        rules by the thousand ask for one series each.
        """

        def values(ref: MetricRef) -> Mapping[Labels, float]:
            wanted = Wanted.of(ref)
            for each in ref.filters:
                if each.match is Match.EQUAL and each.label in ref.by:
                    return self._index(wanted, project_id, each.label).get(each.value, {})
            return self.found.get(wanted, {}).get(project_id, {})

        return values

    def _index(self, wanted: Wanted, project_id: str, label: str) -> "_Index":
        """Return the series of a project by the value of a label."""
        index = self._indexes.get((wanted, project_id, label))
        if index is None:
            index = {}
            for labels, value in self.found.get(wanted, {}).get(project_id, {}).items():
                index.setdefault(dict(labels).get(label, ""), {})[labels] = value
            self._indexes[wanted, project_id, label] = index
        return index


class ValueSource:
    """Reads metrics from whoever measures them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {name: source for source in sources for name in source.names}
        self._failing: set[Source] = set()

    @property
    def names(self) -> frozenset[str]:
        """The metrics that are measured here."""
        return frozenset(self._sources)

    async def read(self, tx: Tx, wanted: Iterable[Wanted], at_us: int) -> Picture:
        """Return what metrics are at a time; one source that fails takes no other with it."""
        asked: dict[Source, list[Wanted]] = {}
        for one in dict.fromkeys(wanted):
            if one.name in self._sources:
                asked.setdefault(self._sources[one.name], []).append(one)
        found: Found = {}
        unread: set[str] = set()
        for source, ones in asked.items():
            try:
                found |= _drop_nameless(await source.read(tx, ones, at_us))
                self._failing.discard(source)
            except (PilotageError, OSError, ValueError) as failed:
                if source not in self._failing:
                    _LOG.error("metrics of %s cannot be read: %s", type(source).__name__, failed)
                self._failing.add(source)
                unread |= {one.name for one in ones}
        return Picture(at_us, found, frozenset(unread))


def _drop_nameless(found: Found) -> Found:
    """Return values without the series of which a label is "", as of calls that reached no arm.

    In Prometheus that would be no label at all, and so a second value of the series that has none.
    """
    return {
        one: {
            project_id: {
                labels: value for labels, value in series.items() if all(dict(labels).values())
            }
            for project_id, series in by_project.items()
        }
        for one, by_project in found.items()
    }
