"""Prices and the ledger on both databases."""

import re

import msgspec
import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Rates, Usage
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import EntryKind, GroupBy, LedgerEntry, SpoolPlace
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import read_revisions

START = SpoolPlace(gateway="gateway-0", epoch="first", seq=0)
NOON = parse_rfc3339("2026-03-10T12:00:00Z")
DAY_US = 86_400_000_000


@pytest.fixture
def service(clock: ManualClock) -> FinopsService:
    return FinopsService(clock)


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


def charge(call_id: str, project_id: str | None, **more: object) -> LedgerEntry:
    ended = Ended(
        call_id=call_id,
        at_us=NOON,
        project_id=project_id or "",
        tenant_id="ten_a",
        key_id="key_a",
        alias="chat",
        outcome=Outcome.OK,
        status=200,
        usage=Usage(input=10, cache_read=1, cache_write=2, output=20, reasoning=3),
        cost_nano=1_000,
        is_estimated=False,
        duration_us=5_000,
        ttft_us=900,
        chunks=4,
        attempts=1,
        arm="dep_a",
        version_id="ver_a",
        model="tiny@1.0.0",
        price_id="prc_a",
        user="alice",
        feature="search",
        prompt="greeting@1.0.0",
        upstream_id="ups_a",
    )
    return make_charge(msgspec.structs.replace(ended, **more), "gateway-0")


async def put(database: Database, service: FinopsService, *charges: LedgerEntry) -> None:
    async with database.write(SYSTEM) as tx:
        place = await service.get_place(tx, START.gateway, START.epoch)
        await service.record(tx, place, place.seq + len(charges), charges)


# prices


async def test_a_price_has_defaults_and_is_a_revision(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        price = await service.set_price(tx, "tiny", "0.5", "1.50", reasoning="2")

    async with database.read(projects.mine) as tx:
        revision = (await read_revisions(tx, 0, 100))[-1]
        rates = await service.find_rates(tx, "tiny", "1.0.0", tx.now_us)
    assert (price.input, price.cache_read, price.cache_write) == ("0.50", "0.50", "0.50")
    assert (price.output, price.reasoning, price.created_by) == ("1.50", "2.00", "usr_1")
    assert (revision.event, revision.object_id) == ("finops.price.set", price.id)
    assert rates == Rates(
        price_id=price.id,
        input=500_000_000,
        cache_read=500_000_000,
        cache_write=500_000_000,
        output=1_500_000_000,
        reasoning=2_000_000_000,
    )


async def test_a_price_of_the_version_goes_before_one_of_the_model(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        of_model = await service.set_price(tx, "tiny", "1", "1")
        of_version = await service.set_price(
            tx, "tiny@1.0.0", "2", "2", valid_from_us=tx.now_us + 10
        )
        before = await service.find_rates(tx, "tiny", "1.0.0", tx.now_us)
        after = await service.find_rates(tx, "tiny", "1.0.0", tx.now_us + 10)
        other = await service.find_rates(tx, "tiny", "1.0.1", tx.now_us + 10)
        next_us = await service.find_next_price_change(tx, tx.now_us)
        last_us = await service.find_next_price_change(tx, tx.now_us + 10)

    assert before is not None
    assert after is not None
    assert other is not None
    assert (before.price_id, after.price_id, other.price_id) == (
        of_model.id,
        of_version.id,
        of_model.id,
    )
    assert (next_us, last_us) == (of_version.valid_from_us, None)


async def test_prices_are_a_projects_own(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        mine = await service.set_price(tx, "tiny", "1", "1")

    async with database.read(projects.other) as tx:
        assert await service.find_rates(tx, "tiny", "1.0.0", tx.now_us) is None
        assert list(await service.list_prices(tx)) == []
    async with database.read(SYSTEM) as tx:
        found = await service.find_rates(
            tx, "tiny", "1.0.0", tx.now_us, project_id=projects.mine.project_id
        )
        with pytest.raises(PilotageError):
            await service.find_rates(tx, "tiny", "1.0.0", tx.now_us)
    assert found is not None
    assert found.price_id == mine.id


async def test_a_price_that_was_set_goes_before_the_price_list(
    database: Database, service: FinopsService, projects: stores.Projects, clock: ManualClock
) -> None:
    clock.advance((NOON - clock.now_us()) / 1e6)
    found = []
    for subject in ("", "openai/gpt-4o-mini", "gpt-4o-mini"):
        clock.advance(1)
        async with database.write(projects.mine) as tx:
            if subject:
                await service.set_price(tx, subject, "7", "7")
            price = await service.find_price(tx, "gpt-4o-mini", "", tx.now_us, provider="openai")
            current = {price.id: price.subject for price in await service.list_current_prices(tx)}
        assert price.rates is not None
        found.append((price.source, current.get(price.rates.price_id, price.rates.price_id)))

    assert [source for source, _ in found] == ["list", "book", "book"]
    assert [subject for _, subject in found][1:] == ["openai/gpt-4o-mini", "gpt-4o-mini"]
    assert re.fullmatch(r"genai-prices-[\d.]+:openai/gpt-4o-mini", found[0][1])


async def test_what_nobody_knows_has_no_price_and_a_reason(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    async with database.read(projects.mine) as tx:
        own = await service.find_price(tx, "tiny", "1.0.0", NOON)
        other = await service.find_price(tx, "no-such-model", "", NOON, provider="vertex")
        rates = await service.find_rates(tx, "gemma-3-27b-it", "", NOON, provider="vertex")

    assert (own.source, own.rates, own.tiers, own.why) == ("unknown", None, [], "it has no price")
    assert (other.source, other.rates) == ("unknown", None)
    assert "does not know 'no-such-model'" in other.why
    assert rates is None


async def test_a_change_of_the_price_list_is_one_once_it_was_asked(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    since = parse_rfc3339("2026-11-21T00:00:00Z")
    async with database.write(projects.mine) as tx:
        before = await service.find_next_price_change(tx, since)
        await service.find_rates(tx, "gemini-2.5-pro", "", since, provider="vertex")
        listed = await service.find_next_price_change(tx, since)
        await service.set_price(tx, "tiny", "1", "1", valid_from_us=since + 5)
        sooner = await service.find_next_price_change(tx, since)

    assert before is None
    assert listed == parse_rfc3339("2026-12-01T00:00:00Z")
    assert sooner == since + 5


async def test_prices_are_paged_and_found_by_subject(
    database: Database, service: FinopsService, projects: stores.Projects, clock: ManualClock
) -> None:
    for number in range(4):
        clock.advance(1)
        async with database.write(projects.mine) as tx:
            await service.set_price(tx, f"tiny-{number % 2}", str(number + 1), "1")

    async with database.read(projects.mine) as tx:
        first = await service.list_prices(tx, None, "", 3)
        rest = await service.list_prices(tx, None, first[-1].id, 3)
        one = await service.list_prices(tx, "tiny-1")
    assert [price.input for price in (*first, *rest)] == ["1.00", "2.00", "3.00", "4.00"]
    assert [price.input for price in one] == ["2.00", "4.00"]


async def test_one_of_several_transactions_sets_the_price_of_a_moment(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.set_price(tx, "tiny", "1", "1")
    )

    assert len(won) == 1
    assert [getattr(error, "code", "") for error in lost] == ["already_exists"] * 3


async def test_zero_must_be_meant(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.mine) as tx:
            await service.set_price(tx, "tiny", "0", "0.00")
    async with database.write(projects.mine) as tx:
        free = await service.set_price(tx, "tiny", "0", "0", is_free=True)

    assert "is_free" in refused.value.hint
    assert free.is_free is True


@pytest.mark.parametrize("valid_from_us", [-1, 1 << 60])
async def test_a_price_starts_within_the_calendar(
    database: Database, service: FinopsService, projects: stores.Projects, valid_from_us: int
) -> None:
    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.mine) as tx:
            await service.set_price(tx, "tiny", "1", "1", valid_from_us=valid_from_us)

    assert refused.value.param == "valid_from"


# ledger


async def test_a_place_moves_once_and_a_call_is_charged_once(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    won, lost = await stores.race(
        database, SYSTEM, lambda tx: service.record(tx, START, 2, [charge("c1", mine)])
    )
    async with database.write(SYSTEM) as tx:
        place = await service.get_place(tx, START.gateway, START.epoch)
        again = await service.record(
            tx, place, 9, [charge("c1", mine), charge("c2", mine), charge("c2", mine)]
        )

    async with database.read(SYSTEM) as tx:
        entries = await service.list_traffic(tx, 0, 10)
        other_epoch = await service.get_place(tx, START.gateway, "second")
    assert (len(won), len(lost)) == (1, 3)
    assert (place.seq, other_epoch.seq) == (2, 0)
    assert (again.written, again.repeated) == (1, 2)
    assert [entry.call_id for entry in entries] == ["c1", "c2"]


async def test_a_conflict_writes_nothing(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    await put(database, service, charge("c1", projects.mine.project_id))

    with pytest.raises(PilotageError) as refused:
        async with database.write(SYSTEM) as tx:
            await service.record(tx, START, 5, [charge("c2", projects.mine.project_id)])

    async with database.read(SYSTEM) as tx:
        assert [entry.call_id for entry in await service.list_traffic(tx, 0, 10)] == ["c1"]
    assert refused.value.code == "conflict"


async def test_an_entry_is_read_as_it_was_written(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    written = charge("c\x001", projects.mine.project_id, alias="a" * 300, cost_nano=9 * 10**15)
    await put(database, service, written)

    async with database.read(SYSTEM) as tx:
        (read,) = await service.list_traffic(tx, 0, 10)
    expected = {name: getattr(written, name) for name in written.__dataclass_fields__}
    found = {name: getattr(read, name) for name in read.__dataclass_fields__}
    assert found == expected | {"seq": read.seq}
    assert read.call_id == "c\N{REPLACEMENT CHARACTER}1"


async def test_usage_is_summed_by_group_within_the_time(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    mine, other = projects.mine.project_id, projects.other.project_id
    await put(
        database,
        service,
        charge("c1", mine),
        charge("c2", mine, at_us=NOON + DAY_US, cost_nano=500, is_estimated=True),
        charge("c3", mine, tenant_id="ten_b", at_us=NOON + 1),
        charge("c4", mine, at_us=NOON - 1),
        charge("c5", other),
    )

    async with database.read(projects.mine) as tx:
        until = NOON + DAY_US + 1
        by_tenant = await service.usage(tx, [GroupBy.TENANT], NOON, until)
        by_day = await service.usage(tx, [GroupBy.DAY, GroupBy.OUTCOME], NOON, until)
        (total,) = await service.usage(tx, [], NOON, until)
        (of_one,) = await service.usage(tx, [], NOON, until, "ten_b")
        (nothing,) = await service.usage(tx, [], NOON + 2, NOON + 3)
    assert [(row.groups, row.calls, row.cost_nano) for row in by_tenant] == [
        ({"tenant": "ten_a"}, 2, 1_500),
        ({"tenant": "ten_b"}, 1, 1_000),
    ]
    assert [(row.groups, row.estimated_nano) for row in by_day] == [
        ({"day": "2026-03-10", "outcome": "ok"}, 0),
        ({"day": "2026-03-11", "outcome": "ok"}, 500),
    ]
    assert (total.calls, total.input_tokens, total.cache_read_tokens) == (3, 30, 3)
    assert (total.cache_write_tokens, total.output_tokens, total.reasoning_tokens) == (6, 60, 9)
    assert (of_one.calls, nothing.calls, nothing.cost_nano) == (1, 0, 0)


@pytest.mark.parametrize("group", list(GroupBy))
async def test_usage_can_be_grouped_by_everything_it_names(
    database: Database, service: FinopsService, projects: stores.Projects, group: GroupBy
) -> None:
    await put(database, service, charge("c1", projects.mine.project_id))

    async with database.read(projects.mine) as tx:
        (row,) = await service.usage(tx, [group])
    expected = {
        "tenant": "ten_a",
        "project": projects.mine.project_id,
        "key": "key_a",
        "alias": "chat",
        "model": "tiny@1.0.0",
        "version": "ver_a",
        "day": "2026-03-10",
        "outcome": "ok",
        "user": "alice",
        "feature": "search",
        "upstream": "ups_a",
        "prompt": "greeting@1.0.0",
    }
    assert row.groups == {group.value: expected[group]}


async def test_usage_is_paged_by_its_groups(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    await put(
        database,
        service,
        *(
            charge(f"c{day}{alias}", projects.mine.project_id, alias=alias, at_us=NOON + day)
            for day in (0, DAY_US)
            for alias in ("a", "b", "c")
        ),
    )
    by = [GroupBy.DAY, GroupBy.ALIAS]

    async with database.read(projects.mine) as tx:
        everything = await service.usage(tx, by)
        first = await service.usage(tx, by, limit=4)
        rest = await service.usage(tx, by, after=first[-1].key, limit=4)
        with pytest.raises(PilotageError) as refused:
            await service.usage(tx, by, after="nonsense")
    assert len(everything) == 6
    assert [*first, *rest] == list(everything)
    assert refused.value.param == "after"


async def test_a_reversal_takes_cost_and_tokens_back_once(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    await put(database, service, charge("c1", projects.mine.project_id, is_estimated=True))
    async with database.write(projects.mine) as tx:
        first = await service.reverse_charge(tx, "c1")
    async with database.write(projects.mine) as tx:
        second = await service.reverse_charge(tx, "c1")
        with pytest.raises(PilotageError) as missing:
            await service.reverse_charge(tx, "c2")
    with pytest.raises(PilotageError):
        async with database.write(projects.other) as tx:
            await service.reverse_charge(tx, "c1")

    async with database.read(projects.mine) as tx:
        (total,) = await service.usage(tx, [])
        entries = await service.list_traffic(tx, 0, 10)
    assert (first.kind, first.cost_nano, second.cost_nano) == (EntryKind.REVERSAL, -1_000, -1_000)
    assert (total.calls, total.cost_nano, total.estimated_nano, total.output_tokens) == (1, 0, 0, 0)
    assert [entry.kind for entry in entries] == [EntryKind.CHARGE, EntryKind.REVERSAL]
    assert missing.value.code == "not_found"


async def test_traffic_is_followed_from_the_newest(
    database: Database, service: FinopsService, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    await put(database, service, *(charge(f"c{n}", mine) for n in range(5)))
    await put(database, service, charge("c5", mine, tenant_id="ten_b"))
    await put(database, service, charge("c6", projects.other.project_id))

    async with database.read(projects.mine) as tx:
        newest = await service.list_traffic(tx, None, 2)
        behind = await service.list_traffic(tx, newest[0].seq, 10)
        of_one = await service.list_traffic(tx, None, 10, "ten_b")
    assert [entry.call_id for entry in newest] == ["c4", "c5"]
    assert [entry.call_id for entry in behind] == ["c5"]
    assert [entry.call_id for entry in of_one] == ["c5"]
