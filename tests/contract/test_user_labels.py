"""End users in the ledger are tokens; their names are sealed, found by who may, and erasable."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from pilotage.core.frames import Ended
from pilotage.finops.costs.store import COST_LINE
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.store import insert_limit, list_counter_totals
from pilotage.finops.types import Action, GroupBy, Limit, Measure, Per, StoreLoss
from pilotage.finops.user_store import PLAIN_USERS, USER_LABEL
from pilotage.finops.users import Users
from pilotage.identity.store import insert_project
from pilotage.identity.types import Project
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import CURSOR
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from users_calls import end


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(open_root_keys(tmp_path / "root.key"))


@pytest.fixture
def users(vault: Vault) -> Users:
    return Users(vault)


@pytest.fixture
def finops(clock: ManualClock) -> FinopsService:
    return FinopsService(clock)


async def write(
    database: Database, finops: FinopsService, ends: list[Ended], users: Users | None = None
) -> None:
    """Write charges, with names in plain words as of old where nobody labels them."""
    async with database.write(SYSTEM) as tx:
        charges = [make_charge(item, "gateway-0") for item in ends]
        place = await finops.get_place(tx, "gateway-0", "e")
        labelled = charges if users is None else await users.label(tx, charges)
        await finops.record(tx, place, place.seq + len(ends), labelled)


async def sum_by_user(database: Database, finops: FinopsService) -> dict[str, int]:
    async with database.read(SYSTEM) as tx:
        return {row.groups["user"]: row.calls for row in await finops.usage(tx, [GroupBy.USER])}


async def read_all(database: Database) -> str:
    """Return every value of every table as text."""
    from pilotage.migrations.tables import get_metadata

    found: list[str] = []
    async with database.engine.connect() as conn:
        for table in get_metadata().tables.values():
            found += [repr(tuple(row)) for row in await conn.execute(sa.select(table))]
    return "\n".join(found)


async def test_two_who_meet_a_user_at_once_keep_the_name_once(
    database: Database, users: Users
) -> None:
    names = [("ten_1", "prj_1", f"user {number}") for number in range(30)]

    async def keep(some: list[tuple[str, str, str]]) -> None:
        async with database.write(SYSTEM) as tx:
            await users.keep(tx, some)

    await keep(names[:1])  # from then on the tenant has a key
    async with asyncio.TaskGroup() as group:
        for some in (names[:20], names[10:], names[::-1]):
            group.create_task(keep(some))
    async with database.read(SYSTEM) as tx:
        assert await users.count_users(tx, "ten_1") == len(names)


async def test_the_ledger_has_tokens_and_names_are_found_by_them(
    database: Database, finops: FinopsService, users: Users
) -> None:
    ends = [end("c1", "Ada"), end("c2", "Ada"), end("c3", "Bob"), end("c4", "")]
    await write(database, finops, [*ends, end("c5", "Ada", "ten_2")], users)
    await write(database, finops, [end("c6", "Ada")], users)

    async with database.read(SYSTEM) as tx:
        mine = {item.name: item.token for item in await users.list_users(tx, "ten_1")}
        (other,) = await users.list_users(tx, "ten_2")
        assert await users.list_users(tx, None, {mine["Bob"]}) == [
            user for user in await users.list_users(tx) if user.name == "Bob"
        ]
        assert await users.count_users(tx, "ten_1") == 2
    async with database.read(Actor(principal_id="p", project_id="prj_2")) as tx:
        assert await users.list_users(tx) == [other]
    assert await sum_by_user(database, finops) == {
        "": 1,
        mine["Ada"]: 3,
        mine["Bob"]: 1,
        other.token: 1,
    }
    assert mine["Ada"] != other.token  # nobody can tell that two tenants have the same user
    everything = await read_all(database)
    assert "Ada" not in everything
    assert "Bob" not in everything


async def test_names_in_plain_words_become_tokens_however_often_that_is_interrupted(
    database: Database, finops: FinopsService, users: Users
) -> None:
    old = [end(f"c{n}", ("Ada", "Bob", "")[n % 3]) for n in range(20)]
    await write(database, finops, [*old, end("c20", "Ada", "ten_2")])
    async with database.write(SYSTEM) as tx:  # as the migrations do
        await tx.insert(CURSOR, consumer=PLAIN_USERS, seq=21)
        await tx.change(tx.delete(COST_LINE))
    await write(database, finops, [end("c21", "Ada"), end("c22", "Cy")], users)
    assert "'Ada'" in await read_all(database)

    async with database.write(SYSTEM) as tx:
        assert await users.label_next_plain(tx, 4) == 4
    with pytest.raises(ZeroDivisionError):
        async with database.write(SYSTEM) as tx:  # killed before the step was committed
            await users.label_next_plain(tx, 4)
            raise ZeroDivisionError
    labelled = [4]
    while labelled[-1]:
        async with database.write(SYSTEM) as tx:
            labelled.append(await users.label_next_plain(tx, 4))

    assert sum(labelled) == 15
    async with database.read(SYSTEM) as tx:
        names = {(item.tenant_id, item.token): item.name for item in await users.list_users(tx)}
    summed = await sum_by_user(database, finops)
    assert {name: summed[token] for (_, token), name in names.items() if name != "Ada"} == {
        "Bob": 7,
        "Cy": 1,
    }
    assert sorted(summed[token] for (_, token), name in names.items() if name == "Ada") == [1, 8]
    everything = await read_all(database)
    assert not [name for name in ("Ada", "Bob", PLAIN_USERS) if name in everything]


async def test_a_rotation_reseals_names_and_keeps_tokens(
    database: Database, finops: FinopsService, users: Users, vault: Vault
) -> None:
    await write(database, finops, [end(f"c{n}", f"user {n}") for n in range(7)], users)
    async with database.read(SYSTEM) as tx:
        before = await users.list_users(tx)
    async with database.write(SYSTEM) as tx:
        await vault.rotate(tx, "ten_1")
    await write(database, finops, [end("c7", "user 1"), end("c8", "new")], users)

    resealed: list[int] = []
    while not resealed or resealed[-1]:
        async with database.write(SYSTEM) as tx:
            resealed.append(await users.reseal_next(tx, "ten_1", 3))

    assert resealed == [3, 3, 1, 0]
    async with database.read(SYSTEM) as tx:
        after = await users.list_users(tx)
        rows = await tx.all(tx.select(USER_LABEL))
    assert [item for item in after if item.name != "new"] == before
    assert {row["name"][4] for row in rows} == {row["key_number"] for row in rows} == {2}


async def test_with_its_key_a_tenants_users_are_gone_and_none_comes_back(
    database: Database, finops: FinopsService, users: Users, vault: Vault
) -> None:
    await write(database, finops, [end("c1", "Ada"), end("c2", "Ada", "ten_2")], users)
    async with database.write(SYSTEM) as tx:
        await vault.destroy(tx, "ten_1")
    await write(database, finops, [end("c3", "Ada"), end("c4", "Ada", "ten_2")], users)

    async with database.write(SYSTEM) as tx:
        (left,) = await users.list_users(tx)
        assert (left.tenant_id, left.name) == ("ten_2", "Ada")
        assert await users.forget(tx, "ten_1") == 1
    summed = await sum_by_user(database, finops)
    assert (summed[""], summed[left.token], sum(summed.values())) == (1, 2, 4)


async def test_counters_of_an_erased_tenants_users_go_and_no_others(
    database: Database, finops: FinopsService, users: Users
) -> None:
    """Ada of ten_1 shares a limit with Bob, whose name somebody of another tenant has as well."""
    await put_limits(database)
    mine = [
        "lim_apart|cost|total|tenant=ten_1|user=never seen",
        "lim_own|cost|total|user=Ada",
        "lim_keys|cost|total|key=key_1|user=Ada",
        "lim_all|cost|total|user=Ada",
    ]
    others = [
        "lim_all|cost|total|user=Bob",
        "lim_apart|cost|total|tenant=ten_2|user=Ada",
        "lim_elsewhere|cost|total|user=Ada",
        "lim_keys|cost|total|key=key_2|user=Ada",
    ]
    ends = [end("c1", "Ada"), end("c2", "Bob"), end("c3", "Bob", "ten_2", "prj_1")]
    await record(database, finops, users, ends, {"c1": dict.fromkeys([*mine, *others], 1)})

    async with database.write(SYSTEM) as tx:
        await users.forget(tx, "ten_1", project_id="prj_1", key_ids={"key_1"})

    assert await list_counters(database) == others


async def test_a_late_call_of_an_erased_tenant_brings_no_users_counter_back(
    database: Database, finops: FinopsService, users: Users, vault: Vault
) -> None:
    async with database.write(SYSTEM) as tx:
        await vault.destroy(tx, "ten_1")
    drawn = {"lim_1|cost|total|user=Ada": 5, "lim_2|cost|total|tenant=ten_1": 5}

    await record(database, finops, users, [end("c1", "Ada")], {"c1": drawn})

    assert await list_counters(database) == ["lim_2|cost|total|tenant=ten_1"]
    assert "Ada" not in await read_all(database)


async def record(
    database: Database,
    finops: FinopsService,
    users: Users,
    ends: list[Ended],
    draws: dict[str, dict[str, int]],
) -> None:
    """Write calls and what they drew from counters, as the ledger's worker does."""
    async with database.write(SYSTEM) as tx:
        place = await finops.get_place(tx, "gateway-0", "e")
        charges = await users.label(tx, [make_charge(item, "gateway-0") for item in ends])
        await finops.record(tx, place, place.seq + len(ends), charges, draws)


async def list_counters(database: Database) -> list[str]:
    async with database.read(SYSTEM) as tx:
        return [total.counter for total in await list_counter_totals(tx)]


async def put_limits(database: Database) -> None:
    """Make limits that count users apart: of one tenant, of each key, of all, of elsewhere."""
    async with database.write(SYSTEM) as tx:
        for project_id in ("prj_1", "prj_2"):
            await insert_project(
                tx, Project(id=project_id, rev=1, name=project_id[-1], created_at_us=1)
            )
        for name, project_id, tenant_id, key_id in (
            ("apart", "prj_1", "*", ""),
            ("own", "prj_1", "ten_1", ""),
            ("keys", "prj_1", "", "*"),
            ("all", "prj_1", "", ""),
            ("elsewhere", "prj_2", "", ""),
        ):
            limit = Limit(
                id=f"lim_{name}",
                rev=1,
                project_id=project_id,
                name=name,
                measure=Measure.USD,
                amount=5,
                per=Per.TOTAL,
                tenant_id=tenant_id,
                key_id=key_id,
                user="*",
                endpoint="",
                action=Action.BLOCK,
                downgrade_to="",
                on_store_loss=StoreLoss.CLOSED,
                created_at_us=1,
            )
            await insert_limit(tx, limit)
