"""A world of rollups, rules and a keeper that looks when told, in two projects."""

from dataclasses import dataclass, field
from typing import Any

import stores
from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.objectives import ObjectiveSource
from pilotage.monitoring.alerts.service import AlertService
from pilotage.monitoring.alerts.traffic import TrafficSource
from pilotage.monitoring.alerts.types import AlertChange, RuleSpec
from pilotage.monitoring.alerts.values import Source, ValueSource
from pilotage.monitoring.alerts.windows import Windows
from pilotage.monitoring.alerts.worker import AlertKeeper
from pilotage.monitoring.rollups import store as rollup_store
from pilotage.monitoring.rollups.rules import add_up
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Level
from pilotage.registry.service import RegistryService


@dataclass
class Told:
    """Who is told of changes: keeps them."""

    changes: list[AlertChange] = field(default_factory=list)

    async def take(self, _: Tx, change: AlertChange) -> None:
        self.changes.append(change)

    def read(self) -> list[tuple[str, str]]:
        """Return what came since it was last read: rule and state."""
        said = [(change.rule, change.state.value) for change in self.changes]
        self.changes.clear()
        return said


class AlertLab:
    """Rules on rollups of calls that are put there by hand."""

    def __init__(
        self, db: Database, clock: ManualClock, projects: stores.Projects, *more: Source
    ) -> None:
        self.db = db
        self.clock = clock
        self.mine = projects.mine
        self.other = projects.other
        self.service = AlertService(clock)
        self.told = Told()
        windows = Windows(RollupService(), clock)
        self.identity = IdentityService(clock)
        names = Names(self.identity, RegistryService(clock), clock)
        self.names = names
        self._sources: list[Source] = [
            TrafficSource(windows, names),
            ObjectiveSource(windows),
            *more,
        ]
        self.values = ValueSource(self._sources)
        self.is_current = True
        self.keeper = self.make_keeper()

    def make_keeper(self) -> AlertKeeper:
        """Return a keeper that has seen nothing, as after a restart."""
        return AlertKeeper(
            self.db,
            self.service,
            self.values,
            self.told,
            self.clock,
            is_current=lambda: self.is_current,
        )

    def add_sources(self, *more: Source) -> None:
        """Have more metrics measured."""
        self._sources += more
        self.values = ValueSource(self._sources)
        self.keeper = self.make_keeper()

    async def set_rule(
        self,
        name: str,
        condition: str,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Create a rule in my project."""
        async with self.db.write(self.mine) as tx:
            await self.service.create_rule(tx, name, RuleSpec(condition=condition, **more))

    async def put_calls(self, *calls: Ended) -> None:
        """Count calls."""
        async with self.db.write(SYSTEM) as tx:
            await rollup_store.add_cells(tx, Level.MINUTE, add_up(calls))

    def call(
        self,
        outcome: Outcome = Outcome.OK,
        seconds: float = 1.0,
        **more: Any,  # noqa: ANN401
    ) -> Ended:
        """Return a call of my project that ends now."""
        values: dict[str, Any] = {
            "call_id": "call_1",
            "at_us": self.clock.now_us(),
            "project_id": self.mine.project_id,
            "tenant_id": "ten_1",
            "key_id": "key_1",
            "alias": "chat",
            "outcome": outcome,
            "status": 200,
            "usage": Usage(input=10, output=5),
            "cost_nano": 1_000_000,
            "is_estimated": False,
            "duration_us": round(seconds * 1e6),
            "ttft_us": -1,
            "chunks": 0,
            "attempts": 1,
        }
        return Ended(**values | more)

    async def look(self, seconds: float = 1.0, times: int = 1) -> list[tuple[str, str]]:
        """Look so many times, some seconds apart; return what people were told."""
        for _ in range(times):
            self.clock.advance(seconds)
            await self.keeper.step()
        return self.told.read()


async def open_lab(db: Database, clock: ManualClock, *more: Source) -> AlertLab:
    """Return a lab on an empty database."""
    return AlertLab(db, clock, await stores.make_projects(db, clock), *more)
