"""What replicas of our own cost: when they ran is noted, and hours that are over are booked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilotage.core.errors import PilotageError
from pilotage.core.money import parse_usd
from pilotage.finops.costs import store as cost_store
from pilotage.finops.costs.rules import (
    DAY_US,
    HOUR_US,
    measure_busy_us,
    price_nano,
    split_hours,
    to_micro_gib_months,
    to_micro_hours,
)
from pilotage.finops.costs.service import CostService, find_price
from pilotage.finops.costs.types import (
    ANY,
    UNITS,
    CostKind,
    EntrySpec,
    ReplicaTime,
    Resource,
    ResourcePrice,
    SeenReplica,
)
from pilotage.finops.replicas import store
from pilotage.finops.rules import get_day
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx

SEEN_EVERY_US = 30_000_000
SETTLED_US = 600_000_000  # after so long the calls of an hour are in the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class DueHours:
    """What a replica cost since it was last booked, up to ``until_us``."""

    replica: ReplicaTime
    until_us: int
    specs: Sequence[EntrySpec]


class ReplicaCosts:
    """Notes when replicas run, and books what that and what is stored costs."""

    def __init__(self, clock: Clock, costs: CostService) -> None:
        self._clock = clock
        self._costs = costs

    async def see(self, tx: Tx, seen: Iterable[SeenReplica], looked_us: int = 0) -> None:
        """Note which replicas run now; ``looked_us`` is when the one who says so last looked.

        It is 0 on the first look. Those that do not run any more ended then, or when they were last
        noted. A replica with another process is another run of it; one that starts has no process
        yet.
        """
        running = {item.replica_id: item for item in seen}
        for known in await store.list_running(tx):
            item = running.get(known.replica_id)
            if item is None or _is_another(known, item, looked_us):
                end_us = max(known.seen_us, looked_us)
                await _move(tx, known, seen_us=end_us, end_us=end_us)
                continue
            del running[known.replica_id]
            await _move(tx, known, seen_us=tx.now_us, pid=item.pid or known.pid)
        for item in running.values():
            values = {name: getattr(item, name) for name in SeenReplica.__dataclass_fields__}
            made = ReplicaTime(
                **values,
                id=self._clock.new_id("rpt"),
                start_us=tx.now_us,
                seen_us=tx.now_us,
                booked_us=tx.now_us,
            )
            await store.insert_replica(tx, made)

    async def list_times(
        self, tx: Tx, start_us: int, end_us: int, release: str = ""
    ) -> Sequence[ReplicaTime]:
        """Return the times of replicas that reach into a span."""
        return await store.list_times(tx, start_us, end_us, release)

    async def list_due(self, tx: Tx) -> list[DueHours]:
        """Return the hours of replicas that are over and not booked, with what they cost.

        An hour is split into the time in which at least one call of the release ran and the rest,
        which was idle. A time at which compute has no price costs nothing.
        """
        prices = await cost_store.list_prices(tx)
        settled_us = tx.now_us - SETTLED_US
        calls: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        found = []
        for replica in await store.list_unbooked(tx):
            specs: list[EntrySpec] = []
            until_us = replica.booked_us
            for start_us, end_us in split_hours(replica.booked_us, replica.seen_us):
                is_whole = end_us % HOUR_US == 0 or replica.end_us is not None
                if not is_whole or end_us > settled_us:
                    break
                until_us = end_us
                price = find_price(
                    prices, replica.project_id, Resource.COMPUTE, replica.alias, start_us
                )
                if price is None:
                    continue
                hour_us = start_us // HOUR_US * HOUR_US
                key = (replica.project_id, replica.release, hour_us)
                if key not in calls:
                    calls[key] = await cost_store.list_spans(tx, *key, hour_us + HOUR_US)
                specs += _price_hour(replica, price, start_us, end_us, calls[key])
            if until_us != replica.booked_us:
                found.append(DueHours(replica=replica, until_us=until_us, specs=specs))
        return found

    async def book(self, tx: Tx, due: Iterable[DueHours]) -> int:
        """Book hours, each once; return how many entries that were."""
        booked = 0
        for item in due:
            for spec in item.specs:
                booked += await self._costs.book_once(tx, item.replica.project_id, spec)
            if not await store.move_booked(tx, item.replica, item.until_us):
                raise _noted_elsewhere()
        return booked

    async def book_storage(self, tx: Tx, sizes: Mapping[str, tuple[int, int]]) -> int:
        """Book what was stored up to the end of yesterday (UTC), once.

        ``sizes`` has by project the bytes that it stores, and since when it has stored any. It
        begins where it ended the last time, or yesterday, and not before that: of days on which
        nobody looked, the size is what it is now.
        """
        end_us = tx.now_us // DAY_US * DAY_US
        prices = await cost_store.list_prices(tx)
        booked = 0
        for project_id, (size, since_us) in sorted(sizes.items()):
            last_us = await cost_store.find_last_end(tx, project_id, CostKind.STORAGE)
            start_us = end_us - DAY_US if last_us is None else last_us
            start_us = max(start_us, since_us // HOUR_US * HOUR_US)
            price = find_price(prices, project_id, Resource.STORAGE, ANY, start_us)
            if price is None or not size or start_us >= end_us:
                continue
            quantity = to_micro_gib_months(size, (end_us - start_us) // HOUR_US)
            spec = EntrySpec(
                kind=CostKind.STORAGE,
                source=f"storage/{get_day(end_us - DAY_US)}",
                start_us=start_us,
                end_us=end_us,
                quantity=quantity,
                unit=UNITS[Resource.STORAGE],
                unit_price=price.price,
                cost_nano=price_nano(quantity, parse_usd(price.price)),
                note=f"{size} bytes of artifacts",
            )
            booked += await self._costs.book_once(tx, project_id, spec)
        return booked


def find_hourly_nano(replica: SeenReplica, price: ResourcePrice) -> tuple[int, bool]:
    """Return what a replica's hour costs at a price, and whether that is the spot price."""
    is_spot = replica.is_spot and bool(price.spot_price)
    return parse_usd(price.spot_price if is_spot else price.price), is_spot


def _price_hour(
    replica: ReplicaTime,
    price: ResourcePrice,
    start_us: int,
    end_us: int,
    calls: Iterable[tuple[int, int]],
) -> list[EntrySpec]:
    """Return what a part of an hour cost, with and without calls."""
    busy = to_micro_hours(measure_busy_us(calls, start_us, end_us))
    whole = to_micro_hours(end_us - start_us)
    nano, is_spot = find_hourly_nano(replica, price)
    return [
        EntrySpec(
            kind=kind,
            source=f"{kind.value}/{replica.id}/{start_us}",
            start_us=start_us,
            end_us=end_us,
            quantity=quantity,
            unit=UNITS[Resource.COMPUTE],
            unit_price=price.spot_price if is_spot else price.price,
            cost_nano=price_nano(quantity, nano),
            alias=replica.alias,
            release=replica.release,
            version_id=replica.version_id,
            model=replica.model,
            note=replica.replica_id,
            is_spot=is_spot,
        )
        for kind, quantity in ((CostKind.COMPUTE, busy), (CostKind.IDLE, whole - busy))
        if quantity
    ]


async def _move(tx: Tx, replica: ReplicaTime, **values: int) -> None:
    if not await store.move_seen(tx, replica, **values):
        raise _noted_elsewhere()


def _noted_elsewhere() -> PilotageError:
    return PilotageError("conflict", "The time of a replica was noted by another process.")


def _is_another(known: ReplicaTime, item: SeenReplica, looked_us: int) -> bool:
    """Say whether a replica runs in another process than before.

    One that has no process on the first look began anew while nobody looked.
    """
    if not item.pid:
        return bool(known.pid) and not looked_us
    return bool(known.pid) and known.pid != item.pid
