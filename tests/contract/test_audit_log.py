"""The audit log on both databases: what is in it, what is found again, what a check finds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import rfc6962
import stores
from pilotage.audit.entries import read_entry
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.open_log import name_log, open_log
from pilotage.audit.service import AuditService
from pilotage.audit.store import AUDIT_FORMER, AUDIT_INDEX
from pilotage.audit.tree import check_inclusion, hash_leaf
from pilotage.audit.types import AuditReport, Finding
from pilotage.audit.worker import make_audit_worker, make_signing_worker
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import Signer
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import append_revision, read_revisions
from pilotage.kit.worker import Wakeup

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
REVISIONS = 7


@pytest.fixture
async def revised(database: Database, clock: ManualClock) -> Database:
    """A database with seven revisions."""
    projects = await stores.make_projects(database, clock)
    for number in range(REVISIONS - 2):
        clock.advance(1)
        async with database.write(projects.mine) as tx:
            content = {"n": number}
            await append_revision(
                tx, "things.thing.changed", f"thing_{number % 2}", number + 1, content
            )
    return database


@pytest.fixture
async def service(revised: Database, tmp_path: Path) -> AsyncIterator[AuditService]:
    async with open_log(tmp_path / "audit", SIGNER) as log:
        service = AuditService(revised, log)
        while await service.append_next(3):
            pass
        yield service


async def append(db: Database, event: str, object_id: str, content: object) -> int:
    async with db.write(SYSTEM) as tx:
        return await append_revision(tx, event, object_id, 1, content)


async def fill(service: AuditService) -> None:
    while await service.append_next():
        pass


async def test_the_log_is_a_founding_and_the_revisions_in_order(
    service: AuditService, revised: Database
) -> None:
    entries = [await service.read_entry(place) for place in range(service.log.size)]
    note = await service.log.publish()
    async with revised.read(SYSTEM) as tx:
        revisions = await read_revisions(tx, 0, 100)
        indexed = await service.search(tx, limit=100)

    founding, *others = [msgspec.json.decode(entry) for entry in entries]
    assert (founding["kind"], founding["former"]) == ("founding", None)
    assert [(entry["seq"], entry["who"], entry["event"]) for entry in others] == [
        (revision.seq, revision.actor, revision.event) for revision in revisions
    ]
    assert others[-1]["after"] == {"n": 4}
    assert [item.position for item in indexed] == list(range(REVISIONS + 1))
    assert [item.revision_seq for item in indexed[1:]] == [item.seq for item in revisions]
    checkpoint = open_checkpoint(note, name_log(SIGNER.public), SIGNER.public)
    assert (checkpoint.size, checkpoint.root) == (REVISIONS + 1, rfc6962.hash_list(entries))


async def test_entries_are_found_by_what_they_are_of(
    service: AuditService, revised: Database, clock: ManualClock
) -> None:
    async with revised.read(SYSTEM) as tx:

        async def find(**query: object) -> list[int]:
            found = await service.search(tx, limit=100, **query)  # type: ignore[arg-type]
            return [item.position for item in found]

        assert await find(event_prefix="identity.") == [1, 2]
        assert await find(object_id="thing_1") == [4, 6]
        assert await find(actor="usr_1", event_prefix="things.", after=5) == [5, 6, 7]
        assert await find(text="A Test") == [3, 4, 5, 6, 7]
        assert await find(since_us=clock.now_us()) == [0, 7]  # it was founded after all of them
        assert await find(until_us=clock.now_us(), since_us=clock.now_us() - 2_000_000) == [5, 6]
        newest = await service.search(tx, limit=2, is_newest=True)
        assert [item.position for item in newest] == [6, 7]


async def test_a_revision_is_proved_to_whoever_has_the_key(
    service: AuditService, revised: Database
) -> None:
    async with revised.read(SYSTEM) as tx:
        for seq in range(1, REVISIONS + 1):
            proof = await service.prove_revision(tx, seq)
            checkpoint = open_checkpoint(proof.checkpoint, service.log.name, SIGNER.public)
            leaf = hash_leaf(proof.entry)
            assert check_inclusion(leaf, proof.index, proof.size, proof.path, checkpoint.root)
            assert msgspec.json.decode(proof.entry)["seq"] == seq
        with pytest.raises(PilotageError, match="not in the audit log"):
            await service.prove_revision(tx, 99)
    with pytest.raises(PilotageError, match="no entry 99"):
        await service.prove(99)


async def test_a_change_too_long_for_an_entry_is_kept_beside_it(
    service: AuditService, revised: Database
) -> None:
    content = {"text": "x" * 70_000}
    seq = await append(revised, "things.thing.grown", "thing_9", content)
    await fill(service)
    async with revised.read(SYSTEM) as tx:
        entry = msgspec.json.decode((await service.prove_revision(tx, seq)).entry)
    inspection = AuditInspection(revised, service, [])

    record = entry["record"]
    path = service.log.folder / "records" / record["sha256"][:2] / record["sha256"]
    assert (entry["before"], entry["after"]) == (None, None)
    assert msgspec.json.decode(path.read_bytes()) == {"before": None, "after": content}
    assert (await inspection.verify()).is_intact
    path.write_bytes(path.read_bytes().replace(b"xx", b"xy", 1))
    assert "beside the log" in bad(await inspection.verify()).says


async def test_a_killed_writer_leaves_nothing_twice(
    revised: Database, tmp_path: Path, service: AuditService
) -> None:
    seq = await append(revised, "things.thing.changed", "thing_8", {})
    async with revised.read(SYSTEM) as tx:
        await service.append_next()
    async with revised.write(SYSTEM) as tx:  # killed after the log, before the index
        await tx.change(tx.delete(AUDIT_INDEX).where(AUDIT_INDEX.c.position > 2))

    again = AuditService(revised, service.log)
    await fill(again)

    assert again.log.size == REVISIONS + 2
    async with revised.read(SYSTEM) as tx:
        found = await again.search(tx, limit=100)
        assert (await again.prove_revision(tx, seq)).index == REVISIONS + 1
    assert [item.position for item in found] == list(range(REVISIONS + 2))


async def test_a_log_that_is_older_than_its_index_is_not_continued(
    revised: Database, tmp_path: Path, service: AuditService
) -> None:
    async with open_log(tmp_path / "another", SIGNER) as other:
        with pytest.raises(PilotageError) as refused:
            await AuditService(revised, other).append_next()

    assert refused.value.code == "audit_broken"
    assert "restore" in refused.value.hint


async def test_a_database_that_is_older_than_its_log_is_not_continued(
    revised: Database, service: AuditService
) -> None:
    """Its next changes would have the numbers of those that it has forgotten."""
    async with revised.engine.begin() as conn:
        await conn.execute(sa.text("DELETE FROM revision WHERE seq > 5"))
    again = AuditService(revised, service.log)

    with pytest.raises(PilotageError, match=f"has change {REVISIONS}, and the newest") as refused:
        await again.append_next()

    assert refused.value.code == "audit_broken"
    with pytest.raises(PilotageError, match="Nothing can be changed"):
        again.check_writable(Actor(principal_id="usr_1", project_id=None))
    report = await AuditInspection(revised, again, []).verify()
    told, missed = [item.says for item in report.findings if not item.is_good]
    assert "the newest in the database is 5" in told
    assert "revision 6 is in the log and not in the database" in missed


async def test_a_log_that_was_signed_only_when_empty_is_not_continued(
    revised: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "audit"
    async with open_log(folder, SIGNER) as log:
        first = (folder / "checkpoint").read_text()
        await fill(AuditService(revised, log))
    (folder / "checkpoint").write_text(first)  # genuine, and all that was ever signed goes

    async with open_log(folder, SIGNER) as log:
        with pytest.raises(PilotageError, match="0 signed entries"):
            await AuditService(revised, log).append_next()


async def test_whatever_stops_the_log_stops_changes(
    revised: Database, service: AuditService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    await append(revised, "things.thing.changed", "thing_8", {})
    monkeypatch.setattr("pilotage.audit.service.write_revision", fail)
    with pytest.raises(ZeroDivisionError):
        await service.append_next()
    with pytest.raises(PilotageError, match="ZeroDivisionError"):
        service.check_writable(Actor(principal_id="usr_1", project_id=None))
    monkeypatch.undo()

    await fill(service)

    service.check_writable(Actor(principal_id="usr_1", project_id=None))


async def test_a_bundle_that_is_damaged_is_said(service: AuditService, revised: Database) -> None:
    await service.log.append([b"{}"] * 300)
    (service.log.folder / "tile/entries/000").write_bytes(b"\xff\xff")

    with pytest.raises(PilotageError, match="cannot be read") as refused:
        await AuditService(revised, service.log).append_next()

    assert refused.value.code == "audit_broken"


async def test_a_log_is_checked_while_it_grows(service: AuditService, revised: Database) -> None:
    reports: list[AuditReport] = []

    async def change() -> None:
        for number in range(60):
            await append(revised, "things.thing.changed", f"more_{number}", {})
            await service.append_next()
            await service.log.publish()  # which removes the tiles of the checkpoint before

    async def check() -> None:
        while not changing.done():
            reports.append(await AuditInspection(revised, service, []).verify())

    async with asyncio.TaskGroup() as group:
        changing = group.create_task(change())
        group.create_task(check())

    assert reports
    assert [item.says for report in reports for item in report.findings if not item.is_good] == []


async def test_what_was_appended_is_signed_once(service: AuditService) -> None:
    worker = make_signing_worker(service.log)
    await worker.try_step()
    note = (service.log.folder / "checkpoint").stat().st_mtime_ns
    await worker.try_step()

    assert service.log.signed == service.log.size == REVISIONS + 1
    assert (service.log.folder / "checkpoint").stat().st_mtime_ns == note


async def test_a_new_log_says_which_chain_it_has_replaced(
    revised: Database, tmp_path: Path
) -> None:
    async with revised.write(SYSTEM) as tx:
        await tx.insert(AUDIT_FORMER, entries=41, head_hash="ab" * 32)
    async with open_log(tmp_path / "audit", SIGNER) as log:
        service = AuditService(revised, log)
        await fill(service)
        founding = read_entry(await service.read_entry(0))

    former = getattr(founding, "former", None)
    assert (former.entries, former.head_hash) == (41, "ab" * 32)  # type: ignore[union-attr]


async def test_a_check_of_a_whole_log_finds_nothing(
    service: AuditService, revised: Database, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_text(await service.log.publish())
    await append(revised, "things.thing.changed", "thing_7", {})
    await fill(service)
    (outside / "2").write_text(await service.log.publish())

    report = await AuditInspection(revised, service, [outside]).verify()

    assert [item.says for item in report.findings] == [
        "9 entries hash to the root of the signed checkpoint",
        "the first 8 entries are those of a checkpoint kept elsewhere",
        "the first 9 entries are those of a checkpoint kept elsewhere",
        "8 revisions in the database are word for word those of the log",
        "0 calls in sealed blocks are the ones that were sealed",
    ]
    assert (report.is_intact, report.entries) == (True, 9)
    assert any("never appended" in line for line in report.cannot_show)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE revision SET actor = 'nobody' WHERE seq = 3", "revision 3 is not in the database"),
        ("DELETE FROM revision WHERE seq = 4", "revision 4 is in the log and not in the database"),
        ("DELETE FROM revision WHERE seq = 7", "revision 7 is in the log and not in the database"),
    ],
)
async def test_revisions_that_were_altered_are_found(
    service: AuditService, revised: Database, statement: str, problem: str
) -> None:
    async with revised.engine.begin() as conn:
        await conn.execute(sa.text(statement))

    report = await AuditInspection(revised, service, []).verify()

    assert not report.is_intact
    assert problem in bad(report).says


async def test_the_end_of_a_log_cannot_go_where_a_checkpoint_was_kept(
    service: AuditService, revised: Database, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with open_log(tmp_path / "longer", SIGNER) as longer:
        await longer.append([b"{}"] * 20)
        (outside / "1").write_text(await longer.publish())

    report = await AuditInspection(revised, service, [outside]).verify()

    assert "its end is missing" in bad(report).says


async def test_the_worker_appends_when_rung(revised: Database, tmp_path: Path) -> None:
    async with open_log(tmp_path / "audit", SIGNER) as log:
        worker = make_audit_worker(AuditService(revised, log), Wakeup())
        await worker.try_step()

        assert log.size == REVISIONS + 1


def bad(report: AuditReport) -> Finding:
    (found,) = [item for item in report.findings if not item.is_good]
    return found
