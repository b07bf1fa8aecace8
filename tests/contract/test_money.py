"""Money from frames: the ledger, the FOCUS rows and the tenants' reports are the same nano-dollars.

Random frames with prices that change, corrections (some of a month that is over), abandoned
attempts, estimates, copies for nobody and long prompts; and costs that are no call's beside them.
The first month is closed when half of the calls have come: the rest of its calls are corrections.
"""

import asyncio
import csv
import io
import random
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag, Outcome, decode_frame, encode_frame
from pilotage.core.names import NO_TENANT, SHADOW_TENANT
from pilotage.core.usage import Rates, Usage, cost_nano
from pilotage.finops.chargeback.files import to_csv, to_parquet
from pilotage.finops.chargeback.service import ChargebackService
from pilotage.finops.chargeback.types import Statement
from pilotage.finops.costs.rules import DAY_US
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.store import COST_LINE
from pilotage.finops.costs.types import CostKind, EntrySpec
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.months.service import Months
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import GroupBy, SpoolPlace
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, parse_time
from pilotage.kit.db import SYSTEM, Actor, Database, Tx, open_sqlite

MONTHS = ("2026-03", "2026-04")
START_US = parse_time("2026-03-01")
SPAN_US = parse_time("2026-05-01") - START_US
BATCH = 5_000
MODELS = ("small", "large@1.0.0", "free")
TENANTS = tuple(f"ten_{number}" for number in range(6))


class World:
    """The services, on one database, and the prices that were set."""

    def __init__(self, db: Database, clock: ManualClock, actor: Actor) -> None:
        self.db = db
        self.actor = actor
        self.finops = FinopsService(clock)
        self.costs = CostService(clock)
        self.clock = clock
        identity = IdentityService(clock)
        self.months = Months(self.finops, identity, 3 * DAY_US)
        self.chargeback = ChargebackService(
            self.costs, CostInsights(self.finops), self.months, identity, name_upstreams
        )
        self.prices: dict[str, list[tuple[int, Rates]]] = {}

    async def set_prices(self) -> None:
        """Set prices of every model, changed twice within the months."""
        for model in MODELS:
            self.prices[model] = []
            for number, day in enumerate((0, 11, 37)):
                rate = "0" if model == "free" else f"{len(model)}.{number}00000001"
                at_us = START_US + day * 86_400_000_000
                async with self.db.write(self.actor) as tx:
                    await self.finops.set_price(
                        tx,
                        model,
                        rate,
                        rate,
                        cache_read="0" if model == "free" else "0.123456789",
                        is_free=model == "free",
                        valid_from_us=at_us,
                    )
                    name, _, version = model.partition("@")
                    rates = await self.finops.find_rates(tx, name, version, at_us)
                assert rates is not None
                self.prices[model].append((at_us, rates))

    def make_frame(self, rng: random.Random, number: int) -> bytes:
        """Return the end of a random call."""
        model = rng.choice(MODELS)
        at_us = START_US + rng.randrange(SPAN_US)
        rates = [rates for since, rates in self.prices[model] if since <= at_us][-1]
        prompt = rng.choice((50, 900, 120_000, 250_001))
        usage = Usage(
            rng.randrange(prompt),
            rng.randrange(prompt),
            rng.randrange(9),
            rng.randrange(900),
            rng.randrange(50),
        )
        kind = rng.random()
        is_lost = kind < 0.02
        cost = (
            77 if is_lost else cost_nano(usage, rates) + (rng.randrange(999) if kind > 0.97 else 0)
        )
        return encode_frame(
            Ended(
                call_id=f"call_{number}",
                at_us=at_us,
                project_id=self.actor.project_id or "",
                tenant_id=rng.choice(TENANTS),
                key_id=f"key_{rng.randrange(9)}",
                alias=rng.choice(("chat", "search")),
                outcome=Outcome.LOST if is_lost else Outcome.OK,
                status=0 if is_lost else 200,
                usage=Usage() if is_lost else usage,
                cost_nano=cost,
                is_estimated=is_lost,
                duration_us=1,
                ttft_us=1,
                chunks=1,
                attempts=1,
                arm=f"dep_{model}",
                model=model,
                price_id=rates.price_id if rng.random() > 0.01 else "prc_gone",
                user=f"user-{rng.randrange(20)}",
                feature=rng.choice(("", "faq")),
                flags=[Flag.SHADOW.value] if rng.random() < 0.03 else [],
            )
        )


async def name_upstreams(_: Tx) -> dict[str, tuple[str, str]]:
    """Return nothing: there are no upstreams."""
    return {}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    from pilotage.migrations.tables import get_metadata

    clock = ManualClock(parse_time("2026-04-05"))
    db = open_sqlite(tmp_path / "money.db", clock)
    async with db.engine.begin() as conn:
        await conn.run_sync(get_metadata().create_all)
    projects = await stores.make_projects(db, clock)
    made = World(db, clock, projects.mine)
    await made.set_prices()
    yield made
    await db.close()


def cut(numbers: range, size: int) -> Iterator[range]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


async def write_calls(world: World, rng: random.Random, numbers: range) -> None:
    place = SpoolPlace(gateway="gateway-0", epoch="e", seq=numbers.start)
    for batch in cut(numbers, BATCH):
        charges = []
        for number in batch:
            frame = decode_frame(world.make_frame(rng, number))
            assert isinstance(frame, Ended)
            charges.append(make_charge(frame, "gateway-0"))
        async with world.db.write(SYSTEM) as tx:
            await world.finops.record(tx, place, batch.stop, charges)
        place = SpoolPlace(gateway="gateway-0", epoch="e", seq=batch.stop)


async def correct(world: World, rng: random.Random, count: int) -> None:
    """Take calls back."""
    async with world.db.write(world.actor) as tx:
        for number in sorted(rng.sample(range(count), max(20, count // 2_000))):
            await world.finops.reverse_charge(tx, f"call_{number}")


async def book(world: World, rng: random.Random, numbers: range) -> None:
    """Book costs of a day or some, and take some of them back."""
    async with world.db.write(world.actor) as tx:
        for number in numbers:
            spec = EntrySpec(
                kind=rng.choice([kind for kind in CostKind if kind is not CostKind.CALLS]),
                source=f"bill/{number}",
                start_us=START_US + number * 86_400_000_000,
                end_us=START_US + (number + rng.choice((1, 9))) * 86_400_000_000 + 1,
                cost_nano=rng.randrange(10**12),
                quantity=rng.randrange(10**9),
                unit="hours",
                unit_price=rng.choice(("", "0.71", "0.000000007")),
                tenant_id=rng.choice(("", *TENANTS)),
            )
            entry = await world.costs.add_entry(tx, spec)
            if number % 9 == 0:
                await world.costs.reverse_entry(tx, entry.id)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(500),
        pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param(1_000_000, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
async def test_ledger_rows_and_reports_of_tenants_are_the_same_money(
    world: World, count: int
) -> None:
    rng = random.Random(count)
    await write_calls(world, rng, range(count // 2))
    await book(world, rng, range(0, 40, 2))
    async with world.db.write(world.actor) as tx:
        (march,) = await world.months.close_due(tx)
    world.clock.advance(25 * 86_400)
    await write_calls(world, rng, range(count // 2, count))
    await correct(world, rng, count)
    await book(world, rng, range(1, 40, 2))

    rows, entries_nano, corrections = Decimal(0), 0, 0
    whole, reports = [Decimal(0), Decimal(0)], [Decimal(0), Decimal(0)]  # as CSV, as Parquet
    for month in MONTHS:
        async with world.db.read(world.actor) as tx:
            statement = await world.chargeback.make_statement(tx, month)
            own = [
                await world.chargeback.make_statement(tx, month, tenant)
                for tenant in (*TENANTS, SHADOW_TENANT, NO_TENANT)
            ]
        assert all(report.rows for report in own)
        rows += sum(Decimal(str(row["BilledCost"])) for row in statement.rows)
        corrections += sum(row["ChargeClass"] == "Correction" for row in statement.rows)
        entries_nano += statement.entries_nano
        await asyncio.to_thread(add_files, whole, [statement])
        await asyncio.to_thread(add_files, reports, own)
    async with world.db.read(world.actor) as tx:
        (ledger,) = await world.finops.usage(tx, [])
        by_user = await world.finops.usage(tx, [GroupBy.USER, GroupBy.FEATURE])
    total = Decimal(ledger.cost_nano + entries_nano).scaleb(-9)
    print(f"{count:,} calls: ledger and entries {total}, rows {rows}, reports {reports[0]} USD")
    assert ledger.calls == count
    assert rows == total
    assert whole == [total, total]
    assert reports == [total, total]
    assert sum(row.cost_nano for row in by_user) == ledger.cost_nano
    assert corrections > 0
    assert (march.month, march.calls_nano > 0) == (MONTHS[0], True)


def add_files(sums: list[Decimal], reports: Iterable[Statement]) -> None:
    """Add what the files of reports cost, as other programs read their CSV and their Parquet."""
    for report in reports:
        shown = csv.DictReader(io.StringIO(to_csv(report.rows).decode()))
        sums[0] += sum(Decimal(row["BilledCost"]) for row in shown)
        sums[1] += sum_parquet(to_parquet(report.rows))


def sum_parquet(content: bytes) -> Decimal:
    """Return what the rows of a Parquet file cost, as another program reads it."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(content)
        file.flush()
        with duckdb.connect() as connection:
            statement = f"SELECT SUM(BilledCost) FROM read_parquet('{file.name}')"
            ((found,),) = connection.execute(statement).fetchall()
    return Decimal(found)


async def test_rows_that_do_not_add_up_are_not_sent(world: World) -> None:
    await write_calls(world, random.Random(1), range(50))
    async with world.db.write(world.actor) as tx:
        lines = tx.update(COST_LINE).values(cost_nano=COST_LINE.c.cost_nano + 1)
        await tx.change(lines)

    async with world.db.read(world.actor) as tx:
        with pytest.raises(PilotageError, match="do not add up") as refused:
            await world.chargeback.make_statement(tx, MONTHS[0])

    assert refused.value.code == "internal_error"


@pytest.mark.parametrize("month", ["", "2026", "2026-13", "2026-03-01", "0000-01", "9999-12"])
async def test_what_is_no_month_is_refused(world: World, month: str) -> None:
    async with world.db.read(world.actor) as tx:
        with pytest.raises(PilotageError) as refused:
            await world.chargeback.make_statement(tx, month)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "month")
