"""Time along the revisions on both databases: it never runs backwards."""

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, rfc3339
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import MOST_BEHIND_US, append_revision, get_last_seq, read_revisions


async def append(tx: Tx, object_id: str, rev: int = 1) -> int:
    return await append_revision(tx, "test.object.changed", object_id, rev, {"id": object_id})


async def list_times(db: Database) -> list[int]:
    async with db.read(SYSTEM) as tx:
        return [item.at_us for item in await read_revisions(tx, 0, 100)]


async def test_a_clock_that_is_a_little_behind_is_lifted_to_the_last_change(
    database: Database, clock: ManualClock
) -> None:
    async with database.write(SYSTEM) as tx:
        await append(tx, "first")
    first_us = clock.now_us()

    clock.advance(-MOST_BEHIND_US / 1e6)
    async with database.write(SYSTEM) as tx:
        await append(tx, "behind")
        await append(tx, "as well")
    clock.advance(10)
    async with database.write(SYSTEM) as tx:
        await append(tx, "after")

    assert await list_times(database) == [first_us, first_us, first_us, clock.now_us()]


async def test_a_clock_that_was_set_back_changes_nothing(
    database: Database, clock: ManualClock
) -> None:
    projects = await stores.make_projects(database, clock)
    identity, last_us = IdentityService(clock), clock.now_us()
    async with database.read(SYSTEM) as tx:
        before = await get_last_seq(tx)

    clock.advance(-MOST_BEHIND_US / 1e6 - 0.001)
    with pytest.raises(PilotageError) as refused:
        async with database.write(projects.mine) as tx:
            await identity.create_tenant(tx, "late")

    assert refused.value.code == "clock_set_back"
    assert rfc3339(last_us) in refused.value.detail
    async with database.read(projects.mine) as tx:
        assert await identity.list_tenants(tx) == []
    async with database.read(SYSTEM) as tx:
        assert await get_last_seq(tx) == before
    clock.advance(MOST_BEHIND_US / 1e6)
    async with database.write(projects.mine) as tx:
        await identity.create_tenant(tx, "in-time")


async def test_whoever_waited_for_long_is_not_taken_for_a_clock_set_back(
    database: Database, clock: ManualClock
) -> None:
    """A transaction may begin, and wait while others change a lot."""
    async with database.write(SYSTEM) as tx:
        await append(tx, "others")
    clock.advance(-60)
    async with database.write(SYSTEM) as tx:
        clock.advance(60)
        await append(tx, "waited")

    assert await list_times(database) == [clock.now_us()] * 2
