"""Transactions on both databases: races, scope, revisions in order, replies kept once."""

import asyncio

import pytest
import sqlalchemy as sa

import stores
from pilotage.core.errors import PilotageError
from pilotage.identity.service import IdentityService
from pilotage.identity.store import PROJECT, TENANT
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx, open_postgres
from pilotage.kit.idempotency import KEPT_US, check_same, claim_key, keep_reply, release_key
from pilotage.kit.outbox import append_revision, get_last_seq, read_revisions
from pilotage.migrations.tables import get_metadata
from postgres_server import PostgresServer

PATIENCE_S = 30.0


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


async def append(tx: Tx, object_id: str, rev: int = 1) -> int:
    return await append_revision(tx, "test.object.changed", object_id, rev, {"id": object_id})


# transactions


async def test_whoever_comes_second_is_told_so(
    database: Database, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await append(tx, "obj_1")

    with pytest.raises(PilotageError) as lost:
        async with database.write(projects.mine) as tx:
            await append(tx, "obj_1")

    assert (lost.value.code, lost.value.hint) == ("conflict", "Try again.")


async def test_any_other_error_of_the_database_stays_what_it_is(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="no_such_table"):
        async with database.write(SYSTEM) as tx:
            await tx.conn.execute(sa.text("SELECT * FROM no_such_table"))


async def test_of_two_writers_in_a_deadlock_one_goes_through(
    postgres: PostgresServer, clock: ManualClock
) -> None:
    """One holds a row and wants the order of revisions, the other the other way round."""
    db = open_postgres(await postgres.make_database(get_metadata()), "", clock)
    await stores.make_projects(db, clock)
    rename = sa.update(PROJECT).where(PROJECT.c.name == "mine").values(rev=PROJECT.c.rev + 1)
    has_row, has_order = asyncio.Event(), asyncio.Event()

    async def row_first() -> None:
        async with db.write(SYSTEM) as tx:
            await tx.change(rename)
            has_row.set()
            await has_order.wait()
            await append(tx, "row first")

    async def order_first() -> None:
        async with db.write(SYSTEM) as tx:
            await append(tx, "order first")
            has_order.set()
            await has_row.wait()
            await tx.change(rename)

    async with asyncio.timeout(PATIENCE_S):
        ended = await asyncio.gather(row_first(), order_first(), return_exceptions=True)
    async with db.read(SYSTEM) as tx:
        revisions = await read_revisions(tx, 0, 100)
        row = await tx.find(tx.select(PROJECT).where(PROJECT.c.name == "mine"))
    await db.close()

    (lost,) = [error for error in ended if error is not None]
    assert isinstance(lost, PilotageError)
    assert lost.code == "conflict"
    through = "row first" if ended[0] is None else "order first"
    assert [r.object_id for r in revisions if r.event == "test.object.changed"] == [through]
    assert row is not None
    assert row["rev"] == 2


async def test_listeners_hear_the_last_revision_of_what_was_committed(
    database: Database, projects: stores.Projects
) -> None:
    heard: list[int] = []
    database.on_commit.append(heard.append)

    async with database.write(projects.mine) as tx:
        await append(tx, "obj_1")
        last = await append(tx, "obj_2")
    with pytest.raises(LookupError):
        async with database.write(projects.mine) as tx:
            await append(tx, "obj_3")
            raise LookupError
    async with database.write(projects.mine):
        pass

    assert heard == [last]


async def test_revisions_of_many_writers_are_in_the_order_of_their_commits(
    database: Database, projects: stores.Projects
) -> None:
    async with database.read(SYSTEM) as tx:
        start = await get_last_seq(tx)
    seen: list[list[int]] = []

    async def write(number: int) -> None:
        async with database.write(projects.mine) as tx:
            await append(tx, f"obj_{number}")
        async with database.read(SYSTEM) as tx:
            seen.append([revision.seq for revision in await read_revisions(tx, start, 100)])

    await asyncio.gather(*(write(number) for number in range(12)))

    whole = max(seen, key=len)
    assert len(whole) == 12
    assert all(part == whole[: len(part)] for part in seen)  # nothing appears in between later


async def test_a_scoped_transaction_neither_sees_nor_touches_another_project(
    database: Database, projects: stores.Projects, clock: ManualClock
) -> None:
    async with database.write(projects.mine) as tx:
        mine = await IdentityService(clock).create_tenant(tx, "team")

    async with database.write(projects.other) as tx:
        assert await tx.all(tx.select(TENANT)) == []
        assert await tx.all(tx.select(TENANT, TENANT.c.id)) == []
        assert await tx.change(tx.update(TENANT).values(name="stolen")) == 0
        assert await tx.change(tx.delete(TENANT)) == 0
    async with database.read(SYSTEM) as tx:
        assert [row["id"] for row in await tx.all(tx.select(TENANT))] == [mine.id]


async def test_what_needs_a_project_says_so(database: Database, clock: ManualClock) -> None:
    with pytest.raises(PilotageError) as refused:
        async with database.write(SYSTEM) as tx:
            await IdentityService(clock).create_tenant(tx, "team")

    assert (refused.value.code, refused.value.hint) == (
        "invalid_request",
        "Name one with ?project=NAME.",
    )


# kept replies


async def claim(database: Database, projects: stores.Projects, key: str, asked: bytes) -> object:
    async with database.write(projects.mine) as tx:
        return await claim_key(tx, key, asked)


async def test_a_reply_is_kept_for_a_day_and_for_its_principal(
    database: Database, projects: stores.Projects, clock: ManualClock
) -> None:
    assert await claim(database, projects, "k", b"asked") is None
    async with database.write(projects.mine) as tx:
        await keep_reply(tx, "k", 201, "{}", "ab" * 32)
    async with database.write(projects.mine) as tx:
        kept = await claim_key(tx, "k", b"asked")
    async with database.write(projects.other) as tx:
        strangers = await claim_key(tx, "k", b"something else")
    clock.advance(KEPT_US / 1e6 + 1)

    assert kept is not None
    assert (kept.status, kept.body) == (201, "{}")
    check_same(kept, "ab" * 32)
    with pytest.raises(PilotageError, match="another request"):
        check_same(kept, "cd" * 32)
    assert strangers is None
    assert await claim(database, projects, "k", b"anything") is None


async def test_a_key_means_one_request(database: Database, projects: stores.Projects) -> None:
    await claim(database, projects, "k", b"asked")

    with pytest.raises(PilotageError) as running:
        await claim(database, projects, "k", b"asked")
    with pytest.raises(PilotageError) as other:
        await claim(database, projects, "k", b"asked otherwise")
    async with database.write(projects.mine) as tx:
        await release_key(tx, "k")

    assert running.value.code == "conflict"
    assert other.value.code == "idempotency_mismatch"
    assert await claim(database, projects, "k", b"asked otherwise") is None


async def test_of_requests_at_once_one_is_answered(
    database: Database, projects: stores.Projects
) -> None:
    won, lost = await stores.race(
        database, projects.mine, lambda tx: claim_key(tx, "k", b"asked"), runners=6
    )

    assert won == [None]
    assert [getattr(error, "code", "") for error in lost] == ["conflict"] * 5
