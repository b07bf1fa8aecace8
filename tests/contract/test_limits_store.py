"""Limits and what the ledger knows of their counters, on both databases."""

from pathlib import Path

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Outcome, encode_frame
from pilotage.core.usage import Usage
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.finops.limits import LimitService
from pilotage.finops.service import FinopsService
from pilotage.finops.types import Action, CounterTotal, LimitSpec, Measure, Per, StoreLoss
from pilotage.finops.users import Users
from pilotage.finops.worker import LedgerReader
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import read_epoch
from pilotage.registry.service import RegistryService

NOON = parse_rfc3339("2026-03-10T12:00:00Z")
DAY_US = 86_400_000_000
BUDGET = LimitSpec(measure=Measure.USD, amount="500", per=Per.MONTH, tenant="acme")


@pytest.fixture
def identity(clock: ManualClock) -> IdentityService:
    return IdentityService(clock)


@pytest.fixture
def finops(clock: ManualClock) -> FinopsService:
    return FinopsService(clock)


@pytest.fixture
def service(clock: ManualClock, identity: IdentityService) -> LimitService:
    endpoints = EndpointService(clock, identity, RegistryService(clock), AbsentFleet())
    return LimitService(clock, identity, endpoints.get_endpoint)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, identity: IdentityService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    endpoints = EndpointService(clock, identity, RegistryService(clock), AbsentFleet())
    async with database.write(made.mine) as tx:
        await identity.create_tenant(tx, "acme")
        await identity.create_tenant(tx, "beta")
        await identity.create_key(tx, "acme", "ci")
        await identity.create_key(tx, "beta", "ci")
        await identity.create_key(tx, "beta", "app")
        await endpoints.create_endpoint(tx, "small")
    return made


def spec(**more: object) -> LimitSpec:
    values = {name: getattr(BUDGET, name) for name in LimitSpec.__dataclass_fields__}
    return LimitSpec(**values | more)


async def test_a_limit_is_changed_and_deleted_and_keeps_its_id(
    database: Database, service: LimitService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await service.create_limit(tx, "monthly", BUDGET)
        changed = await service.change_limit(
            tx, "monthly", spec(amount="750", action=Action.WARN, on_store_loss=StoreLoss.OPEN), 1
        )
        same = await service.change_limit(
            tx, made.id, spec(amount="750", action=Action.WARN, on_store_loss=StoreLoss.OPEN), 2
        )
        found = await service.get_limit(tx, made.id)
        await service.delete_limit(tx, "monthly")
        with pytest.raises(PilotageError) as gone:
            await service.get_limit(tx, "monthly")
        anew = await service.create_limit(tx, "monthly", BUDGET)

    async with database.read(projects.mine) as tx:
        events = [r.event for r in await read_revisions(tx, 0, 100) if r.object_id == made.id]
    assert (made.id, changed.rev, changed.amount) == (changed.id, 2, 750 * 10**9)
    assert found == changed == same
    assert gone.value.code == "not_found"
    assert anew.id != made.id
    assert events == ["finops.limit.created", "finops.limit.changed", "finops.limit.deleted"]


async def test_names_become_ids(
    database: Database,
    service: LimitService,
    identity: IdentityService,
    projects: stores.Projects,
) -> None:
    async with database.write(projects.mine) as tx:
        acme = await identity.get_tenant(tx, "acme")
        keys = {(key.tenant_id, key.name): key.id for key in await identity.list_keys(tx)}
        app_id = next(key_id for (_, name), key_id in keys.items() if name == "app")
        by_name = await service.create_limit(tx, "a", spec(key="ci"))
        by_id = await service.create_limit(tx, "b", spec(tenant=acme.id, key=by_name.key_id))
        only_one = await service.create_limit(tx, "c", spec(tenant="", key="app"))
        each = await service.create_limit(tx, "d", spec(tenant="*", key="*", endpoint="*"))
        of_endpoint = await service.create_limit(
            tx, "e", spec(endpoint="small", user="*", tenant="")
        )

    assert (by_name.tenant_id, by_name.key_id) == (acme.id, keys[acme.id, "ci"])
    assert (by_id.tenant_id, by_id.key_id) == (by_name.tenant_id, by_name.key_id)
    assert (only_one.tenant_id, only_one.key_id) == ("", app_id)
    assert (each.tenant_id, each.key_id, each.endpoint) == ("*", "*", "*")
    assert (of_endpoint.endpoint, of_endpoint.user) == ("small", "*")


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"tenant": "nobody"}, "not_found", "tenant"),
        ({"key": "nobody"}, "not_found", "key"),
        ({"key": "key_nobody"}, "not_found", None),
        ({"key": "app"}, "not_found", "key"),
        ({"tenant": "", "key": "ci"}, "invalid_request", "key"),
        ({"endpoint": "nothing"}, "not_found", "endpoint"),
        ({"action": Action.DOWNGRADE, "downgrade_to": "nothing"}, "not_found", "downgrade_to"),
        ({"amount": "0"}, "invalid_request", "amount"),
    ],
)
async def test_what_is_not_there_is_named(
    database: Database,
    service: LimitService,
    projects: stores.Projects,
    more: dict[str, object],
    code: str,
    param: str | None,
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await service.create_limit(tx, "x", spec(**more))

    assert (refused.value.code, refused.value.param) == (code, param)


async def test_a_revoked_key_is_not_there(
    database: Database,
    service: LimitService,
    identity: IdentityService,
    projects: stores.Projects,
) -> None:
    async with database.write(projects.mine) as tx:
        key = (await identity.list_keys(tx, "acme"))[0]
        await identity.revoke_key(tx, key.id)
        for name in ("ci", key.id):
            with pytest.raises(PilotageError) as refused:
                await service.create_limit(tx, "x", spec(key=name))
            assert refused.value.param == "key"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"measure": Measure.TOKENS}, "measure"),
        ({"per": Per.DAY}, "per"),
        ({"tenant": "beta"}, "tenant"),
        ({"key": "ci"}, "key"),
        ({"user": "*"}, "user"),
        ({"endpoint": "small"}, "endpoint"),
    ],
)
async def test_what_a_limit_counts_never_changes(
    database: Database,
    service: LimitService,
    projects: stores.Projects,
    more: dict[str, object],
    param: str,
) -> None:
    async with database.write(projects.mine) as tx:
        before = await service.create_limit(tx, "monthly", BUDGET)
        with pytest.raises(PilotageError) as refused:
            await service.change_limit(tx, "monthly", spec(**more))
        after = await service.get_limit(tx, "monthly")

    assert (refused.value.code, refused.value.param) == ("conflict", param)
    assert after == before


async def test_a_name_is_taken_once_and_changes_are_of_what_was_read(
    database: Database, service: LimitService, projects: stores.Projects
) -> None:
    async def create(tx: Tx) -> object:
        return await service.create_limit(tx, "monthly", BUDGET)

    async def change(tx: Tx) -> object:
        return await service.change_limit(tx, "monthly", spec(amount="1"), 1)

    async def delete(tx: Tx) -> object:
        await service.delete_limit(tx, "monthly")
        return None

    for work in (create, change, delete):
        won, lost = await stores.race(database, projects.mine, work)
        assert (len(won), len(lost)) == (1, 3), work.__name__


async def test_limits_are_a_projects_own_and_gateways_get_all_that_live(
    database: Database,
    service: LimitService,
    finops: FinopsService,
    projects: stores.Projects,
) -> None:
    async with database.write(projects.mine) as tx:
        mine = await service.create_limit(tx, "monthly", BUDGET)
        gone = await service.create_limit(tx, "gone", BUDGET)
        await service.delete_limit(tx, gone.id)
    async with database.write(projects.other) as tx:
        other = await service.create_limit(tx, "monthly", spec(tenant=""))
        with pytest.raises(PilotageError) as hidden:
            await service.get_limit(tx, mine.id)
        listed = await service.list_limits(tx)

    async with database.read(SYSTEM) as tx:
        entries = {entry.id: entry for entry in await finops.list_limit_entries(tx)}
    assert hidden.value.code == "not_found"
    assert [limit.id for limit in listed] == [other.id]
    assert entries.keys() == {mine.id, other.id}
    assert (entries[mine.id].measure, entries[mine.id].amount) == ("cost", 500 * 10**9)
    assert (entries[mine.id].tenant_id, entries[mine.id].per) == (mine.tenant_id, "month")


# what the ledger knows of counters

MONTH, DAY, EVER = "lim_1|cost|2026-03", "lim_2|tokens|2026-03-10|user=a", "lim_3|requests|total"


def put(spool: SpoolWriter, call_id: str, *counters: str, at_us: int = NOON) -> None:
    ended = Ended(
        call_id=call_id,
        at_us=at_us,
        project_id="prj",
        tenant_id="ten",
        key_id="key",
        alias="chat",
        outcome=Outcome.OK,
        status=200,
        usage=Usage(input=1, output=2),
        cost_nano=7,
        is_estimated=False,
        duration_us=1,
        ttft_us=1,
        chunks=1,
        attempts=1,
        user="a",
        counters=list(counters),
    )
    spool.append(encode_frame(ended))


def open_writer(root: Path, gateway: str) -> SpoolWriter:
    return open_spool(root / gateway, segment_bytes=1 << 20, reserve_bytes=16_384, sync="none")


async def list_totals(database: Database, finops: FinopsService) -> dict[tuple[str, str], int]:
    async with database.read(SYSTEM) as tx:
        totals: list[CounterTotal] = list(await finops.list_counter_totals(tx))
    assert all(total.epoch for total in totals)
    return {(total.counter, total.gateway): total.used for total in totals}


async def test_counters_are_summed_up_as_the_ledger_is_written(
    database: Database, finops: FinopsService, clock: ManualClock, tmp_path: Path
) -> None:
    def open_reader() -> LedgerReader:
        return LedgerReader(
            database,
            tmp_path,
            service=finops,
            users=Users(Vault(open_root_keys(tmp_path / "root.key"))),
            clock=clock,
            retention_us=7 * DAY_US,
            batch=3,
        )

    clock.advance((NOON - clock.now_us()) / 1e6)
    with open_writer(tmp_path, "gateway-0") as one, open_writer(tmp_path, "gateway-1") as two:
        for number in range(5):
            put(one, f"a{number}", MONTH, DAY)
        put(one, "a4", EVER)  # charged before, and in the same batch
        put(one, "a0", MONTH)
        put(two, "b0", MONTH, EVER)
        put(two, "b1", EVER)
        for _ in range(2):  # a new reader repeats nothing
            reader = open_reader()
            while await reader.step():
                pass
            await reader.close()
        expected = {
            (MONTH, "gateway-0"): 35,
            (DAY, "gateway-0"): 15,
            (MONTH, "gateway-1"): 7,
            (EVER, "gateway-1"): 2,
        }
        assert await list_totals(database, finops) == expected
        owners = [(name, read_epoch(tmp_path / name)) for name in ("gateway-0", "gateway-1")]
        async with database.read(SYSTEM) as tx:
            assert await finops.list_counter_owners(tx) == set(owners)
            assert await finops.get_counters_of(tx, *owners[1]) == {MONTH: 7, EVER: 2}
            assert await finops.get_counters_of(tx, "gateway-1", "another") == {}
            places = await finops.list_places(tx)
        assert [(place.gateway, place.epoch) for place in places] == owners
        assert all(place.seq > 0 for place in places)

        reader = open_reader()
        clock.advance(3 * DAY_US / 1e6)  # the day is over in every time zone
        put(two, "b2", EVER, at_us=NOON + 3 * DAY_US)
        while await reader.step():
            pass
        await reader.close()
    del expected[DAY, "gateway-0"]
    assert await list_totals(database, finops) == expected | {(EVER, "gateway-1"): 3}
