"""Months that are closed: what comes later is a correction, whatever it is, on both databases."""

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage
from pilotage.finops.chargeback.service import ChargebackService
from pilotage.finops.chargeback.types import Statement
from pilotage.finops.costs.rules import DAY_US, HOUR_US
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import (
    CostEntry,
    CostKind,
    EntrySpec,
    Resource,
    SeenReplica,
    Span,
)
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.months.service import Months
from pilotage.finops.months.store import CLOSED_MONTH
from pilotage.finops.months.types import ClosedMonth
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.store import PRICE
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, parse_time
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import read_revisions

MARCH = parse_time("2026-03-31")
APRIL = parse_time("2026-04-01")
DUE = APRIL + 3 * DAY_US
BILL = EntrySpec(
    kind=CostKind.NETWORK,
    source="gcp/2026-03",
    start_us=parse_time("2026-03-01"),
    end_us=APRIL,
    cost_nano=12_400_000_000,
)


class Books:
    """The services of costs on one database, at a time that can be said."""

    def __init__(self, db: Database, clock: ManualClock, mine: Actor) -> None:
        self.db = db
        self.mine = mine
        self.clock = clock
        self.finops = FinopsService(clock)
        self.costs = CostService(clock)
        self.replicas = ReplicaCosts(clock, self.costs)
        self.insights = CostInsights(self.finops)
        identity = IdentityService(clock)
        self.months = Months(self.finops, identity, 3 * DAY_US)
        self.chargeback = ChargebackService(
            self.costs, self.insights, self.months, identity, name_upstreams
        )
        self.price_id = ""

    def go_to(self, at_us: int) -> None:
        """Let it be a time."""
        self.clock.advance((at_us - self.clock.now_us()) / 1e6)

    async def put(self, call_id: str, at_us: int) -> None:
        """Charge a call of a millionth of a dollar."""
        ended = msgspec.structs.replace(ENDED, call_id=call_id, at_us=at_us, price_id=self.price_id)
        charge = make_charge(
            msgspec.structs.replace(ended, project_id=self.mine.project_id or ""), "gateway-0"
        )
        async with self.db.write(SYSTEM) as tx:
            place = await self.finops.get_place(tx, "gateway-0", "e")
            await self.finops.record(tx, place, place.seq + 1, [charge])

    async def close(self) -> list[ClosedMonth]:
        """Close what is due."""
        async with self.db.write(self.mine) as tx:
            return await self.months.close_due(tx)

    async def state(self, month: str) -> Statement:
        """Return a month's statement."""
        async with self.db.read(self.mine) as tx:
            return await self.chargeback.make_statement(tx, month)

    async def add(self, spec: EntrySpec) -> CostEntry:
        """Book a cost."""
        async with self.db.write(self.mine) as tx:
            return await self.costs.add_entry(tx, spec)


ENDED = Ended(
    call_id="",
    at_us=0,
    project_id="",
    tenant_id="ten_a",
    key_id="key_a",
    alias="chat",
    outcome=Outcome.OK,
    status=200,
    usage=Usage(input=1),
    cost_nano=1_000,
    is_estimated=False,
    duration_us=600_000_000,
    ttft_us=900,
    chunks=4,
    attempts=1,
    arm="dep_a",
    model="tiny@1.0.0",
)


async def name_upstreams(_: Tx) -> dict[str, tuple[str, str]]:
    """Return nothing: there are no upstreams."""
    return {}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MARCH)


@pytest.fixture
async def books(database: Database, clock: ManualClock) -> Books:
    projects = await stores.make_projects(database, clock)
    made = Books(database, clock, projects.mine)
    async with database.write(made.mine) as tx:
        price = await made.finops.set_price(tx, "tiny", "1000", "1", valid_from_us=0)
    made.price_id = price.id
    return made


def list_corrections(statement: Statement) -> list[tuple[object, ...]]:
    return [
        tuple(row[name] for name in ("x_Kind", "x_CorrectsPeriod", "BilledCost", "x_PeriodClosed"))
        for row in statement.rows
        if row["ChargeClass"] == "Correction"
    ]


async def test_nothing_changes_a_closed_month(books: Books) -> None:
    await books.put("a", MARCH)
    booked = await books.add(replace(BILL, source="early"))
    books.go_to(DUE)
    before = await books.state("2026-03")
    (closed,) = await books.close()
    again = await books.close()

    await books.put("late", MARCH + 1)
    late = await books.add(BILL)
    async with books.db.write(books.mine) as tx:
        await books.costs.reverse_entry(tx, booked.id)
        await books.finops.reverse_charge(tx, "a")
        await books.finops.reverse_charge(tx, "late")
        await tx.change(tx.delete(PRICE))  # nobody knows any more what the call was priced at

    after = await books.state("2026-03")
    april = await books.state("2026-04")
    async with books.db.read(books.mine) as tx:
        march = await books.finops.usage(tx, [], parse_time("2026-03-01"), APRIL)
        checked = await books.insights.check(tx, "2026-01-01", "2027-01-01")
        events = [item for item in await read_revisions(tx, 0, 100) if "month" in item.event]
    assert (closed.month, closed.calls_nano, closed.entries_nano) == (
        "2026-03",
        1_000,
        12_400_000_000,
    )
    assert again == []
    assert [row | {"x_PeriodClosed": "true"} for row in before.rows] == after.rows
    assert {row["x_PeriodClosed"] for row in before.rows} == {"false"}
    assert after.total_nano == before.total_nano
    assert [(share.day, share.corrects) for share in late.shares] == [("2026-04-04", "2026-03")]
    dollars = Decimal("12.4")
    assert sorted(list_corrections(april), key=str) == [
        ("calls", "2026-03", Decimal("-0.000001"), "false"),
        ("network", "2026-03", -dollars, "false"),
        ("network", "2026-03", dollars, "false"),
    ]
    assert march[0].calls == 2  # a call is of its own day, wherever it is billed
    assert checked.ledger_nano == checked.lines_nano == 0
    assert [(item.event, item.object_id[-7:]) for item in events] == [
        ("finops.month.closed", "2026-03")
    ]


async def test_what_replicas_and_disks_cost_late_is_a_correction(books: Books) -> None:
    mine = books.mine.project_id or ""
    seen = SeenReplica(
        replica_id="dep_a.0", project_id=mine, release="dep_a", alias="", version_id="", model=""
    )
    async with books.db.write(books.mine) as tx:
        await books.costs.set_price(tx, Resource.COMPUTE, "*", "1", valid_from_us=0)
        await books.costs.set_price(tx, Resource.STORAGE, "*", "1", valid_from_us=0)
    for at_us in (MARCH + HOUR_US, MARCH + 2 * HOUR_US):
        books.go_to(at_us)
        async with books.db.write(SYSTEM) as tx:
            await books.replicas.see(tx, [seen])
            await books.replicas.book_storage(tx, {mine: (730 << 30, 0)})
    books.go_to(DUE + DAY_US)
    await books.close()
    async with books.db.write(SYSTEM) as tx:
        await books.replicas.book(tx, await books.replicas.list_due(tx))
        await books.replicas.book_storage(tx, {mine: (730 << 30, 0)})

    march, april = await books.state("2026-03"), await books.state("2026-04")
    assert march.entries_nano == 24 * 10**9  # the storage of the 30th
    assert list_corrections(april) == [
        ("idle", "2026-03", Decimal(1), "false"),
        ("storage", "2026-03", Decimal(24), "false"),
    ]
    assert april.entries_nano == (1 + 24 + 4 * 24) * 10**9


async def test_a_month_is_closed_with_those_before_it(books: Books) -> None:
    await books.put("a", MARCH)
    books.go_to(parse_time("2026-06-10"))
    closed = await books.close()
    await books.put("b", APRIL)

    june = await books.state("2026-06")
    april = await books.state("2026-04")
    async with books.db.read(SYSTEM) as tx:
        due = await books.months.list_due(tx)
        lines = await books.costs.list_lines(tx, Span(since="2026-06-01", until="2026-07-01"))
    assert [item.month for item in closed] == ["2026-03", "2026-05"]
    assert (april.rows, april.total_nano) == ([], 0)
    assert june.calls_nano == 1_000
    assert [(line.day, line.corrects) for line in lines] == [("2026-06-10", "2026-04")]
    assert books.mine.project_id not in due
    assert due  # other projects have theirs


async def test_a_new_project_can_book_what_it_cost_before(books: Books) -> None:
    async with books.db.read(SYSTEM) as tx:
        projects = {project.id for project in await IdentityService(books.clock).list_projects(tx)}
    dues = []
    for at_us in (parse_time("2026-04-03"), DUE):
        books.go_to(at_us)
        async with books.db.read(SYSTEM) as tx:
            dues.append(set(await books.months.list_due(tx)))

    assert dues == [set(), projects]


async def test_a_month_that_is_not_what_it_was_is_not_sent(books: Books) -> None:
    await books.put("a", MARCH)
    books.go_to(DUE)
    await books.close()
    async with books.db.write(books.mine) as tx:
        forged = tx.update(CLOSED_MONTH).values(calls_nano=CLOSED_MONTH.c.calls_nano + 1)
        await tx.change(forged)

    with pytest.raises(PilotageError, match="do not add up") as refused:
        await books.state("2026-03")

    assert refused.value.code == "internal_error"
