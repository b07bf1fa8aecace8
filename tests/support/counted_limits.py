"""Limits of one or more gateways over one store, without processes or time of their own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pilotage.core.seeds import Seeds
from pilotage.core.snapshot import LimitEntry
from pilotage.gateway.counters.checkpoint import Checkpoint
from pilotage.gateway.counters.exchanger import find_no_seeds
from pilotage.gateway.counters.limits import Limits
from pilotage.gateway.counters.types import Answer, Ask
from pilotage.gateway.ports import CounterStore, StoreAwayError
from pilotage.kit.clock import ManualClock

PROJECT = "prj_1"
T = TypeVar("T")


def make_limit(limit_id: str = "lim_1", **more: Any) -> LimitEntry:  # noqa: ANN401
    """Return a budget of 1,000 nano-USD in all, or another limit."""
    values: dict[str, Any] = {
        "id": limit_id,
        "project_id": PROJECT,
        "measure": "cost",
        "amount": 1000,
        "per": "total",
    }
    limit = LimitEntry(**values | more)
    return LimitEntry(**values | {"per": ""} | more) if limit.measure == "concurrency" else limit


class FaultyStore:
    """A store that loses what it is told to lose."""

    def __init__(self, store: CounterStore) -> None:
        self.store = store
        self.is_shared = True
        self.is_down = False
        self.loses_asks = 0
        self.loses_answers = 0
        self.kept: list[Ask] = []
        self.asked: list[Ask] = []

    async def exchange(self, ask: Ask) -> Answer:
        """Exchange, unless something is to be lost."""
        self.asked.append(ask)
        if self.is_down:
            raise StoreAwayError("down")
        if self.loses_asks:
            self.loses_asks -= 1
            self.kept.append(ask)  # it may still arrive, much later
            raise StoreAwayError("the ask was lost")
        answer = await self.store.exchange(ask)
        if self.loses_answers:
            self.loses_answers -= 1
            raise StoreAwayError("the answer was lost")
        return answer

    def close(self) -> None:
        """Close what is behind it."""
        self.store.close()


def open_limits(
    store: CounterStore,
    clock: ManualClock,
    folder: Path,
    *,
    owner: str = "gateway-0:e1",
    life: int = 1,
    totals: dict[str, int] | None = None,
    peers: Sequence[str] = (),
    find_seeds: Callable[[], Awaitable[Seeds | None]] = find_no_seeds,
) -> Limits:
    """Return the limits of one owner."""
    folder.mkdir(parents=True, exist_ok=True)
    recovered = Checkpoint(owner=owner, life=life, seq=0, peers=list(peers), totals=totals or {})
    return Limits(store, clock, folder, recovered, call_timeout_s=60.0, find_seeds=find_seeds)


async def drive(
    work: Awaitable[T], clock: ManualClock, *limits: Limits, step_s: float = 0.02, most: int = 500
) -> T:
    """Run something that waits for the store while these gateways exchange and time goes on."""
    task = asyncio.ensure_future(work)
    for _ in range(most):
        for _ in range(3):
            await asyncio.sleep(0)
        if task.done():
            return await task
        for one in limits:
            await one.exchanger.turn()
        clock.advance(step_s)
    task.cancel()
    raise AssertionError("it waits for ever")
