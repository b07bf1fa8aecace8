"""Metrics of quality, for rules and for other programs; absent where nobody said anything."""

from collections.abc import Sequence

from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import Found, Wanted
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.types import Aspect, Grouping, Quality

KEPT_US = 10_000_000  # how long values are good for: people are no faster


class QualitySource:
    """Answers what people and graders say of answers."""

    def __init__(self, service: QualityService, names: Names) -> None:
        self.names = frozenset({"feedback_score", *(aspect for aspect in Aspect if aspect)})
        self._service = service
        self._names = names
        self._kept: dict[tuple[object, ...], tuple[int, list[Quality]]] = {}

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects of the transaction."""
        found: Found = {}
        for one in wanted:
            groups = await self._read_quality(tx, one, at_us)
            if "version" in one.by:
                place = one.by.index("version")
                await self._names.learn(tx, {quality.group[place] for quality in groups})
            else:
                await self._names.learn(tx)
            of_project = found.setdefault(one, {})
            for quality in groups:
                estimate = getattr(quality, one.name)
                if estimate is not None:
                    labels = self._names.say_all(one.by, quality.group)
                    of_project.setdefault(quality.project_id, {})[labels] = estimate.value
        return found

    async def _read_quality(self, tx: Tx, one: Wanted, at_us: int) -> list[Quality]:
        asked = (tx.actor.project_id, one.by, one.window_us)
        looked_us, found = self._kept.get(asked, (0, []))
        if not looked_us <= at_us < looked_us + KEPT_US:
            by = tuple(map(Grouping, one.by))
            found = await self._service.read_quality(tx, by, at_us - one.window_us, at_us)
            self._kept = {  # of windows that nobody asks for any more nothing is kept
                key: value for key, value in self._kept.items() if value[0] + KEPT_US > at_us
            }
            self._kept[asked] = (at_us, found)
        return found
