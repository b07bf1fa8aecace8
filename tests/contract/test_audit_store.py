"""The audit log on both databases: what it copies, and what checking it finds."""

from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa

import stores
from pilotage.audit.service import AuditService
from pilotage.audit.store import AUDIT_ENTRY
from pilotage.audit.types import GENESIS
from pilotage.audit.worker import make_audit_worker
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import CURSOR, REVISION, append_revision, read_revisions
from pilotage.kit.worker import Wakeup

LENGTH = 7


@pytest.fixture
def service() -> AuditService:
    return AuditService()


@pytest.fixture
async def log(database: Database, clock: ManualClock, service: AuditService) -> Database:
    """A database with seven revisions, all of them in the log."""
    projects = await stores.make_projects(database, clock)
    for number in range(LENGTH - 2):
        clock.advance(1)
        async with database.write(projects.mine) as tx:
            await append_revision(
                tx, "things.thing.changed", f"thing_{number % 2}", number + 1, {"n": number}
            )
    await fill(database, service)
    return database


async def fill(database: Database, service: AuditService, limit: int = 3) -> None:
    has_more = True
    while has_more:
        async with database.write(SYSTEM) as tx:
            has_more = await service.append_next(tx, limit)


async def test_the_log_is_the_revisions_in_order(log: Database, service: AuditService) -> None:
    async with log.read(SYSTEM) as tx:
        entries = await service.list_entries(tx, 0, 100)
        revisions = await read_revisions(tx, 0, 100)
        report = await service.verify(tx)

    assert [entry.position for entry in entries] == list(range(1, LENGTH + 1))
    assert [(entry.revision_seq, entry.after) for entry in entries] == [
        (revision.seq, revision.after) for revision in revisions
    ]
    assert entries[0].previous_hash == GENESIS
    assert (report.is_intact, report.entries, report.head_hash) == (True, LENGTH, entries[-1].hash)
    assert (report.first_bad_position, report.problem) == (None, "")


async def test_an_empty_log_is_intact(database: Database, service: AuditService) -> None:
    async with database.read(SYSTEM) as tx:
        report = await service.verify(tx)

    assert (report.is_intact, report.entries, report.head_hash) == (True, 0, GENESIS)


async def test_revisions_not_yet_copied_are_no_flaw(log: Database, service: AuditService) -> None:
    async with log.write(SYSTEM) as tx:
        await append_revision(tx, "things.thing.changed", "thing_9", 1, {})

    async with log.read(SYSTEM) as tx:
        report = await service.verify(tx)
    assert (report.is_intact, report.entries) == (True, LENGTH)


async def test_it_is_checked_page_by_page(
    log: Database, service: AuditService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.audit.service.PAGE", 2)

    async with log.read(SYSTEM) as tx:
        report = await service.verify(tx)

    assert (report.is_intact, report.entries) == (True, LENGTH)


async def test_entries_are_found_by_what_happened_to_what_by_whom(
    log: Database, service: AuditService
) -> None:
    async with log.read(SYSTEM) as tx:
        by_event = await service.list_entries(tx, event_prefix="things.")
        by_object = await service.list_entries(tx, object_id="thing_1")
        by_actor = await service.list_entries(tx, actor="system")
        page = await service.list_entries(tx, by_event[1].position, 2, event_prefix="things.")
        wild = await service.list_entries(tx, event_prefix="%")

    assert len(by_event) == LENGTH - 2
    assert [entry.after for entry in by_object] == ['{"n":1}', '{"n":3}']
    assert {entry.event for entry in by_actor} == {"identity.project.created"}
    assert list(page) == list(by_event[2:4])
    assert list(wild) == []


async def test_one_of_several_appenders_appends(log: Database, service: AuditService) -> None:
    async with log.write(SYSTEM) as tx:
        await append_revision(tx, "things.thing.changed", "thing_9", 1, {})

    won, lost = await stores.race(log, SYSTEM, service.append_next)

    async with log.read(SYSTEM) as tx:
        report = await service.verify(tx)
    assert len(won) >= 1
    assert all(getattr(error, "code", "") == "conflict" for error in lost)
    assert (report.is_intact, report.entries) == (True, LENGTH + 1)


async def test_the_worker_appends_until_nothing_is_left(
    log: Database, service: AuditService
) -> None:
    async with log.write(SYSTEM) as tx:
        await append_revision(tx, "things.thing.changed", "thing_9", 1, {})
    worker = make_audit_worker(log, service, Wakeup())

    assert not await worker._step()

    async with log.read(SYSTEM) as tx:
        assert (await service.verify(tx)).entries == LENGTH + 1


async def change_entry(tx: Tx) -> None:
    change = tx.update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.position == 4)
    await tx.change(change.values(reason="another"))


async def remove_entry(tx: Tx) -> None:
    await tx.change(tx.delete(AUDIT_ENTRY).where(AUDIT_ENTRY.c.position == 4))


async def remove_entry_and_revision(tx: Tx) -> None:
    await remove_entry(tx)
    await tx.change(tx.delete(REVISION).where(REVISION.c.seq == 4))


async def change_revision(tx: Tx) -> None:
    await tx.change(tx.update(REVISION).where(REVISION.c.seq == 4).values(after='{"n":99}'))


async def remove_revision(tx: Tx) -> None:
    await tx.change(tx.delete(REVISION).where(REVISION.c.seq == 4))


async def swap_entries(tx: Tx) -> None:
    for old, new in ((4, 99), (5, 4), (99, 5)):
        moved = tx.update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.position == old)
        await tx.change(moved.values(position=new))


async def cut_the_end_off(tx: Tx) -> None:
    await tx.change(tx.delete(AUDIT_ENTRY).where(AUDIT_ENTRY.c.position >= 4))


async def empty_the_log(tx: Tx) -> None:
    await tx.change(tx.delete(AUDIT_ENTRY))


async def set_the_cursor_back(tx: Tx) -> None:
    await tx.change(tx.update(CURSOR).where(CURSOR.c.consumer == "audit").values(seq=3))


async def remove_the_cursor(tx: Tx) -> None:
    await tx.change(tx.delete(CURSOR).where(CURSOR.c.consumer == "audit"))


@pytest.mark.parametrize(
    ("spoil", "position", "problem"),
    [
        (change_entry, 4, "does not match its own hash"),
        (remove_entry, 4, "there is no entry 4, the next one is 5"),
        (remove_entry_and_revision, 4, "there is no entry 4, the next one is 5"),
        (change_revision, 4, "differs in after from revision 4"),
        (remove_revision, 4, "entry 4 differs in revision_seq"),
        (swap_entries, 4, "does not follow the hash"),
        (cut_the_end_off, 4, "revision 4 has no entry"),
        (empty_the_log, 1, "revision 1 has no entry"),
        (set_the_cursor_back, 4, "holds revision 4, which is not there"),
        (remove_the_cursor, 1, "holds revision 1, which is not there"),
    ],
)
async def test_what_was_done_to_the_tables_shows(
    log: Database,
    service: AuditService,
    spoil: Callable[[Tx], Awaitable[None]],
    position: int,
    problem: str,
) -> None:
    async with log.write(SYSTEM) as tx:
        await spoil(tx)

    async with log.read(SYSTEM) as tx:
        report = await service.verify(tx)

    assert not report.is_intact
    assert (report.first_bad_position, report.entries) == (position, position - 1)
    assert problem in report.problem


async def test_gaps_in_the_sequence_are_no_flaw(log: Database, service: AuditService) -> None:
    """A transaction that rolls back uses a number up on Postgres."""
    async with log.write(SYSTEM) as tx:
        statement = sa.text(
            "INSERT INTO revision (seq, at_us, event, object_id, rev, actor, reason, after)"
            " VALUES (50, 0, 'things.thing.changed', 'thing_9', 1, 'usr_1', '', '{}')"
        )
        await tx.conn.execute(statement)
    await fill(log, service)

    async with log.read(SYSTEM) as tx:
        report = await service.verify(tx)
    assert (report.is_intact, report.entries) == (True, LENGTH + 1)
