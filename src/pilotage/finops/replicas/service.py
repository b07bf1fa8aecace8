"""What replicas of our own cost: when they ran is noted, and hours that are over are booked."""

from collections.abc import Iterable, Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.money import parse_usd
from pilotage.finops.costs import store
from pilotage.finops.costs.rules import (
    HOUR_US,
    measure_busy_us,
    price_nano,
    split_hours,
    to_micro_gib_months,
    to_micro_hours,
)
from pilotage.finops.costs.service import CostService
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
from pilotage.kit.clock import Clock, rfc3339
from pilotage.kit.db import Tx

SEEN_EVERY_US = 30_000_000
SETTLED_US = 600_000_000  # after so long the calls of an hour are in the ledger


class ReplicaCosts:
    """Notes when replicas run, and books what that and what is stored costs."""

    def __init__(self, clock: Clock, costs: CostService) -> None:
        self._clock = clock
        self._costs = costs

    async def see(self, tx: Tx, seen: Iterable[SeenReplica], looked_us: int = 0) -> None:
        """Note which replicas run now; ``looked_us`` is when the one who says so last looked.

        Those that do not run any more ended then, or when they were last noted. A replica with
        another process is another run of it; one that starts has no process yet.
        """
        running = {item.replica_id: item for item in seen}
        for known in await store.list_running(tx):
            item = running.get(known.replica_id)
            if item is None or _is_another(known, item):
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

    async def book_replicas(self, tx: Tx) -> int:
        """Book the hours of replicas that are over, each once; return how many entries.

        An hour is split into the time in which at least one call ran and the rest, which was idle.
        Of a time at which compute has no price nothing is booked.
        """
        booked = 0
        prices = await store.list_prices(tx)
        until_us = (tx.now_us - SETTLED_US) // HOUR_US * HOUR_US
        for replica in await store.list_unbooked(tx):
            reached_us = replica.booked_us
            for start_us, end_us in split_hours(replica.booked_us, replica.seen_us):
                is_over = end_us <= until_us or (
                    replica.end_us is not None and end_us <= tx.now_us - SETTLED_US
                )
                price = find_price(
                    prices, replica.project_id, Resource.COMPUTE, replica.alias, start_us
                )
                if not is_over:
                    break
                if price is not None:
                    booked += await self._book_hour(tx, replica, price, start_us, end_us)
                reached_us = end_us
            if reached_us != replica.booked_us:
                await _move(tx, replica, booked_us=reached_us)
        return booked

    async def book_storage(self, tx: Tx, sizes: dict[str, int]) -> int:
        """Book what was stored on the UTC day that is over, by project and in bytes, once."""
        day_us = 24 * HOUR_US
        end_us = tx.now_us // day_us * day_us
        prices = await store.list_prices(tx)
        booked = 0
        for project_id, size in sorted(sizes.items()):
            price = find_price(prices, project_id, Resource.STORAGE, ANY, end_us - day_us)
            if price is None or not size:
                continue
            quantity = to_micro_gib_months(size, 24)
            spec = EntrySpec(
                kind=CostKind.STORAGE,
                source=f"storage/{rfc3339(end_us - day_us)[:10]}",
                start_us=end_us - day_us,
                end_us=end_us,
                quantity=quantity,
                unit=UNITS[Resource.STORAGE],
                unit_price=price.price,
                cost_nano=price_nano(quantity, parse_usd(price.price)),
                note=f"{size} bytes of artifacts and datasets",
            )
            booked += await self._costs.book_once(tx, project_id, spec)
        return booked

    async def _book_hour(
        self, tx: Tx, replica: ReplicaTime, price: ResourcePrice, start_us: int, end_us: int
    ) -> int:
        spans = await store.list_spans(tx, replica.project_id, replica.release, start_us, end_us)
        busy = to_micro_hours(measure_busy_us(spans, start_us, end_us))
        whole = to_micro_hours(end_us - start_us)
        is_spot = replica.is_spot and bool(price.spot_price)
        unit_price = price.spot_price if is_spot else price.price
        booked = 0
        for kind, quantity in ((CostKind.COMPUTE, busy), (CostKind.IDLE, whole - busy)):
            if not quantity:
                continue
            spec = EntrySpec(
                kind=kind,
                source=f"{kind.value}/{replica.id}/{start_us}",
                start_us=start_us,
                end_us=end_us,
                quantity=quantity,
                unit=UNITS[Resource.COMPUTE],
                unit_price=unit_price,
                cost_nano=price_nano(quantity, parse_usd(unit_price)),
                alias=replica.alias,
                release=replica.release,
                version_id=replica.version_id,
                model=replica.model,
                note=f"{replica.replica_id}{', spot' if is_spot else ''}",
            )
            booked += await self._costs.book_once(tx, replica.project_id, spec)
        return booked


def find_price(
    prices: Sequence[ResourcePrice], project_id: str, kind: Resource, subject: str, at_us: int
) -> ResourcePrice | None:
    """Return the price of a resource at a time: of the subject itself, or else of all of them."""
    valid = [
        price
        for price in prices
        if (price.project_id, price.kind) == (project_id, kind) and price.valid_from_us <= at_us
    ]
    own = [price for price in valid if price.subject == subject] or [
        price for price in valid if price.subject == ANY
    ]
    return max(own, key=lambda price: price.valid_from_us, default=None)


async def _move(tx: Tx, replica: ReplicaTime, **values: int) -> None:
    if not await store.move_replica(tx, replica, **values):
        raise PilotageError("conflict", "The time of a replica was noted by another process.")


def _is_another(known: ReplicaTime, item: SeenReplica) -> bool:
    """Say whether a replica runs in another process than before."""
    return bool(known.pid and item.pid) and known.pid != item.pid
