"""Identity on both databases."""

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.types import DataClass, TenantSettings
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import get_last_seq, read_revisions


@pytest.fixture
def service(clock: ManualClock) -> IdentityService:
    return IdentityService(clock)


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


async def test_a_taken_name_is_refused_within_a_project_only(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_tenant(tx, "team")
    async with database.write(projects.other) as tx:
        await service.create_tenant(tx, "team")

    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.mine) as tx:
            await service.create_tenant(tx, "team")

    assert refused.value.code == "already_exists"


@pytest.mark.parametrize("name", ["shadow", "none"])
async def test_no_tenant_is_called_what_costs_of_nobody_are_asked_for_by(
    database: Database, service: IdentityService, projects: stores.Projects, name: str
) -> None:
    with pytest.raises(PilotageError, match="belong to no tenant") as refused:
        async with database.write(projects.mine) as tx:
            await service.create_tenant(tx, name)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "name")


async def test_who_pays_is_found_by_name_and_by_what_is_no_tenant(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        tenant = await service.create_tenant(tx, "team")

    async with database.read(projects.mine) as tx:
        asked = ("team", tenant.id, "ten_gone", "shadow", "none")
        found = [await service.find_payer_id(tx, name) for name in asked]
        with pytest.raises(PilotageError) as missing:
            await service.find_payer_id(tx, "nobody")

    assert found == [tenant.id, tenant.id, "ten_gone", "shadow", ""]
    assert missing.value.code == "not_found"


async def test_pages_continue_behind_the_last_name(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    names = [f"team-{number}" for number in range(5)]
    async with database.write(projects.mine) as tx:
        for name in reversed(names):
            await service.create_tenant(tx, name)

    async with database.read(projects.mine) as tx:
        first = [tenant.name for tenant in await service.list_tenants(tx, "", 3)]
        rest = [tenant.name for tenant in await service.list_tenants(tx, first[-1], 3)]

    assert first + rest == names


async def test_another_project_sees_nothing(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        tenant = await service.create_tenant(tx, "team")
        made = await service.create_key(tx, "team", "ci")

    async with database.read(projects.other) as tx:
        assert list(await service.list_tenants(tx)) == []
        assert list(await service.list_keys(tx)) == []
        for find in (service.get_tenant(tx, tenant.id), service.get_key(tx, made.key.id)):
            with pytest.raises(PilotageError) as missing:
                await find
            assert missing.value.code == "not_found"


async def test_a_deleted_tenant_frees_its_name_and_ends_its_keys(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        first = await service.create_tenant(tx, "team")
        made = await service.create_key(tx, "team", "ci")
    async with database.write(projects.mine) as tx:
        await service.delete_tenant(tx, "team")
    async with database.write(projects.mine) as tx:
        second = await service.create_tenant(tx, "team")
        key = await service.get_key(tx, made.key.id)

    assert second.id != first.id
    assert key.revoked_at_us == tx.now_us


async def test_a_rolled_back_write_leaves_neither_row_nor_revision(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.read(SYSTEM) as tx:
        before = await get_last_seq(tx)

    with pytest.raises(PilotageError):
        async with database.write(projects.mine) as tx:
            await service.create_tenant(tx, "team")
            await service.get_tenant(tx, "nobody")

    async with database.read(SYSTEM) as tx:
        assert await get_last_seq(tx) == before
        assert list(await service.list_tenants(tx)) == []


async def test_one_of_several_transactions_gets_a_name(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.create_tenant(tx, "team")
    )

    async with database.read(projects.mine) as tx:
        found = await service.list_tenants(tx)
    assert len(lost) == 3
    assert list(found) == won


async def test_a_key_is_revoked_once(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_tenant(tx, "team")
        key = (await service.create_key(tx, "team", "ci")).key

    await stores.race(database, projects.mine, lambda tx: service.revoke_key(tx, key.id))

    async with database.read(projects.mine) as tx:
        assert (await service.get_key(tx, key.id)).rev == 2


async def test_changed_keys_are_found_by_revision(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_tenant(tx, "team")
        kept = (await service.create_key(tx, "team", "kept")).key
        revoked = (await service.create_key(tx, "team", "revoked")).key
        seq = await get_last_seq(tx)
    async with database.write(projects.mine) as tx:
        await service.revoke_key(tx, revoked.id)

    async with database.read(SYSTEM) as tx:
        everything = await service.list_changed_keys(tx, 0)
        since = await service.list_changed_keys(tx, seq)
    assert {key.id for key in everything} == {kept.id, revoked.id}
    assert [key.id for key in since] == [revoked.id]


async def test_settings_of_a_tenant_are_replaced_as_a_whole_with_their_history(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    settings = TenantSettings(
        time_zone="Europe/Berlin",
        regions=("eu", "!local"),
        features=("search",),
        data_class=DataClass.RESTRICTED,
        shows=False,
        log_share=250,
    )
    async with database.write(projects.mine) as tx:
        made = await service.create_tenant(tx, "team")
        changed = await service.change_tenant(tx, "team", settings, made.rev)
    async with database.write(projects.mine) as tx:
        assert await service.change_tenant(tx, "team", settings) == changed
        with pytest.raises(PilotageError) as stale:
            await service.change_tenant(tx, "team", TenantSettings(), made.rev)
        with pytest.raises(PilotageError) as nowhere:
            await service.change_tenant(tx, "team", TenantSettings(time_zone="Mars/Olympus"))
        revisions = [r for r in await read_revisions(tx, 0, 100) if r.object_id == made.id]

    assert {name: getattr(changed, name) for name in TenantSettings.__dataclass_fields__} == {
        name: getattr(settings, name) for name in TenantSettings.__dataclass_fields__
    }
    assert (changed.id, changed.rev) == (made.id, 2)
    assert [revision.event for revision in revisions] == [
        "identity.tenant.created",
        "identity.tenant.changed",
    ]
    assert stale.value.code == "precondition_failed"
    assert (nowhere.value.code, nowhere.value.param) == ("invalid_request", "time_zone")


@pytest.mark.parametrize("zone", ["", "Europe", "../UTC", "/etc/localtime", "utc\n", "x" * 300])
async def test_what_is_no_time_zone_is_refused(
    database: Database, service: IdentityService, projects: stores.Projects, zone: str
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError, match="is no time zone"):
            await service.create_tenant(tx, "team", TenantSettings(time_zone=zone))


async def test_a_trusted_key_is_kept_as_one(
    database: Database, service: IdentityService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_tenant(tx, "team")
        plain = await service.create_key(tx, "team", "plain")
        trusted = await service.create_key(tx, "team", "portal", may_name_users=True)
    async with database.read(projects.mine) as tx:
        found = {key.id: key.may_name_users for key in await service.list_keys(tx)}

    assert found == {plain.key.id: False, trusted.key.id: True}
