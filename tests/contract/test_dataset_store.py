"""Datasets on both databases."""

from dataclasses import replace

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import read_revisions
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.datasets.rules import hash_manifest, make_key, write_manifest
from pilotage.registry.datasets.service import DatasetService
from pilotage.registry.datasets.store import DATASET_RELEASE, find_used
from pilotage.registry.datasets.types import DataFile, DatasetVersion, SplitCount
from pilotage.registry.service import RegistryService
from pilotage.registry.types import EvidenceDraft, Node, NodeKind

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def registry(clock: ManualClock) -> RegistryService:
    return RegistryService(clock)


@pytest.fixture
def service(clock: ManualClock, registry: RegistryService) -> DatasetService:
    return DatasetService(clock, registry.lineage)


@pytest.fixture
async def projects(
    database: Database, clock: ManualClock, service: DatasetService
) -> stores.Projects:
    made = await stores.make_projects(database, clock)
    async with database.write(made.mine) as tx:
        await service.create_dataset(tx, "questions", owner="risk", tags=["eval"])
    return made


async def add(
    service: DatasetService,
    tx: Tx,
    version: str,
    sha256: str = SHA,
    *,
    dataset: str = "questions",
    keep_until_us: int | None = None,
    derived_from_id: str = "",
) -> DatasetVersion:
    owner = await service.get_dataset(tx, dataset)
    number, key = make_key(owner.numbering, version)
    files = [DataFile("test", "b", sha256, 5, 1), DataFile("train", "a", sha256, 10, 2)]
    made = DatasetVersion(
        id=service._clock.new_id("dsv"),
        rev=1,
        project_id=owner.project_id,
        dataset_id=owner.id,
        dataset=owner.name,
        version=number,
        version_key=key,
        manifest_sha256=hash_manifest(write_manifest("jsonl", files)),
        format="jsonl",
        license="CC0-1.0",
        source="made up",
        description="",
        splits=(SplitCount("train", 1, 2, 10), SplitCount("test", 1, 1, 5)),
        schema={"q": {"string": 3}},
        records=3,
        size_bytes=15,
        duplicates=0,
        leaks=None,
        leak_reason="",
        pii="masked",
        pii_scanned_by="eyes",
        pii_findings={"email": 2},
        keep_until_us=keep_until_us,
        hold_reason="",
        blocked_by="",
        looked_at_us=0,
        derived_from_id=derived_from_id,
        created_at_us=tx.now_us,
        created_by=tx.actor.principal_id,
        deleted_at_us=None,
    )
    return await service.add_version(tx, made, files)


async def test_a_version_is_what_was_added(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await add(service, tx, "1.0.0")

    async with database.read(projects.mine) as tx:
        for ref in ("questions@1.0.0", "questions", made.id):
            assert await service.get_version(tx, ref) == made
        files = await service.list_files(tx, made.id)
        assert [(file.split, file.path) for file in files] == [("test", "b"), ("train", "a")]
        assert await service.list_files(tx, made.id, "test/b") == files[1:]
        assert await service.get_file(tx, made.id, "train", "a") == files[1]
        assert await find_used(tx, [SHA, OTHER_SHA, made.manifest_sha256]) == {
            SHA,
            made.manifest_sha256,
        }
        with pytest.raises(PilotageError, match="no file"):
            await service.get_file(tx, made.id, "train", "b")


async def test_versions_never_change(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await add(service, tx, "1.0.0")
        assert await add(service, tx, "1.0.0") == made
        with pytest.raises(PilotageError) as refused:
            await add(service, tx, "1.0.0", OTHER_SHA)
    assert refused.value.code == "already_exists"


@pytest.mark.parametrize(
    ("numbering", "ordered"),
    [
        ("semver", ["1.2.0", "1.10.0", "2.0.0-rc.1", "2.0.0"]),
        ("date", ["2025-12-31", "2026-01-01", "2026-01-01.2", "2026-01-01.10"]),
    ],
)
async def test_versions_are_paged_in_their_order(
    database: Database,
    service: DatasetService,
    projects: stores.Projects,
    numbering: str,
    ordered: list[str],
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_dataset(tx, "paged", numbering=numbering)
        for number, version in enumerate(sorted(ordered)):
            await add(service, tx, version, f"{number:02x}" * 32, dataset="paged")

    async with database.read(projects.mine) as tx:
        first = [item.version for item in await service.list_versions(tx, "paged", "", 2)]
        rest = [item.version for item in await service.list_versions(tx, "paged", first[-1])]
        highest = await service.get_version(tx, "paged")
    assert first + rest == ordered
    assert highest.version == ordered[-1]


async def test_another_project_sees_nothing(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await add(service, tx, "1.0.0")

    async with database.read(projects.other) as tx:
        assert list(await service.list_datasets(tx)) == []
        for find in (service.get_dataset(tx, "questions"), service.get_version(tx, made.id)):
            with pytest.raises(PilotageError) as missing:
                await find
            assert missing.value.code == "not_found"


async def test_a_dataset_is_changed_as_it_was_read(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        said = {"description": "new", "owner": "ops", "tags": ("b", "a")}
        changed = await service.change_dataset(tx, "questions", expected_rev=1, **said)  # type: ignore[arg-type]
        same = await service.change_dataset(tx, "questions", **said)  # type: ignore[arg-type]
        with pytest.raises(PilotageError) as refused:
            await service.change_dataset(tx, "questions", expected_rev=1, **said)  # type: ignore[arg-type]

    assert (changed.rev, changed.owner, changed.tags) == (2, "ops", ("a", "b"))
    assert same == changed
    assert refused.value.code == "precondition_failed"


async def test_a_release_points_to_one_version_after_another(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        await add(service, tx, "1.0.0")
        await add(service, tx, "1.1.0", OTHER_SHA)
        first = await service.release_version(tx, "questions", "golden", "1.0.0")
        assert (await service.get_version(tx, "questions@golden")).version == "1.0.0"
        assert await service.release_version(tx, "questions", "golden", "1.0.0") == first
        with pytest.raises(PilotageError) as stale:
            await service.release_version(tx, "questions", "golden", "1.1.0", expected_rev=7)
        moved = await service.release_version(tx, "questions", "golden", "1.1.0", expected_rev=1)
        assert [item.name for item in await service.list_releases(tx, "questions")] == ["golden"]
        with pytest.raises(PilotageError) as kept:
            await service.delete_version(tx, "questions@1.1.0")
        await service.delete_release(tx, "questions", "golden")
        await service.delete_version(tx, "questions@1.1.0")

    assert (moved.rev, moved.version) == (2, "1.1.0")
    assert stale.value.code == "precondition_failed"
    assert "release golden refers to it" in kept.value.detail


@pytest.mark.parametrize(
    ("numbering", "first", "second"),
    [("semver", "1.0.0", "2.0.0"), ("date", "2026-01-31", "2026-01-31.2")],
)
async def test_a_number_is_a_version_and_no_release(
    database: Database,
    service: DatasetService,
    projects: stores.Projects,
    numbering: str,
    first: str,
    second: str,
) -> None:
    async with database.write(projects.mine) as tx:
        await service.create_dataset(tx, "scores", numbering=numbering)
        for version, sha256 in ((first, SHA), (second, OTHER_SHA)):
            await add(service, tx, version, sha256, dataset="scores")
        with pytest.raises(PilotageError) as refused:
            await service.release_version(tx, "scores", first, second)
        old = await service.release_version(tx, "scores", "golden", second)
        renamed = tx.update(DATASET_RELEASE).where(DATASET_RELEASE.c.id == old.id)
        await tx.change(renamed.values(name=first))  # as it could be named once

        assert (await service.get_version(tx, f"scores@{first}")).version == first
        assert (await service.get_release(tx, "scores", first)).version == second
    assert (refused.value.code, refused.value.param) == ("invalid_request", "release")


async def test_what_is_held_or_kept_stays(
    database: Database, clock: ManualClock, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await add(service, tx, "1.0.0", keep_until_us=clock.now_us() + DAY_US)
        with pytest.raises(PilotageError, match="is not over"):
            await service.delete_version(tx, made.id)
        held = await service.retain_version(
            tx, made.id, keep_until_us=None, hold_reason=" case 4711 ", expected_rev=1
        )
        for delete in (
            service.delete_version(tx, made.id),
            service.delete_dataset(tx, "questions"),
        ):
            with pytest.raises(PilotageError, match="it is held: case 4711") as refused:
                await delete
            assert refused.value.code == "conflict"
        await service.retain_version(tx, made.id, keep_until_us=None, hold_reason="")
        await service.delete_dataset(tx, "questions")
        assert list(await service.list_datasets(tx)) == []
        assert await find_used(tx, [SHA]) == set()
        await service.create_dataset(tx, "questions")

    assert (held.rev, held.hold_reason) == (2, "case 4711")


async def test_what_a_living_model_came_of_stays(
    database: Database,
    service: DatasetService,
    registry: RegistryService,
    projects: stores.Projects,
) -> None:
    async def is_idle(tx: Tx, version_id: str) -> bool:
        return False

    async with database.write(projects.mine) as tx:
        raw = await add(service, tx, "1.0.0")
        clean = await add(service, tx, "1.1.0", OTHER_SHA, derived_from_id=raw.id)
        measured = await add(service, tx, "1.2.0", "ef" * 32)
        await registry.create_model(tx, "tiny")
        await registry.add_artifact(tx, SHA, 10, Inspection())
        model = await registry.create_version(tx, "tiny", "1.0.0", SHA)
        run = Node(NodeKind.TUNING_RUN, "run_1")
        await registry.add_edge(tx, Node(NodeKind.DATASET, clean.id), run, "used_by")
        await registry.add_edge(tx, run, Node(NodeKind.VERSION, model.id), "produced")
        score = EvidenceDraft(kind="scan.x", run_id="eval_1", dataset_version_id=measured.id)
        await registry.add_evidence(tx, model.id, score)

        told = {}
        for version in (raw, clean, measured):
            with pytest.raises(PilotageError) as refused:
                await service.delete_version(tx, version.id)
            told[version.version] = refused.value.detail
        await registry.delete_version(tx, "tiny@1.0.0", is_idle)
        for version in (clean, measured, raw):
            await service.delete_version(tx, version.id)

    assert "model version tiny@1.0.0" in told["1.0.0"]
    assert "dataset version questions@1.1.0" in told["1.0.0"]
    assert "model version tiny@1.0.0" in told["1.1.0"]
    assert "model version tiny@1.0.0" in told["1.2.0"]


async def test_the_retention_job_deletes_what_is_due_and_notes_what_keeps_it(
    database: Database, clock: ManualClock, service: DatasetService, projects: stores.Projects
) -> None:
    soon = clock.now_us() + DAY_US
    async with database.write(projects.mine) as tx:
        due = await add(service, tx, "1.0.0", keep_until_us=soon)
        held = await add(service, tx, "1.1.0", OTHER_SHA, keep_until_us=soon)
        await add(service, tx, "1.2.0", "ef" * 32, keep_until_us=soon + 10 * DAY_US)
        await add(service, tx, "1.3.0", "01" * 32)
        await service.retain_version(tx, held.id, keep_until_us=soon, hold_reason="case 4711")

    async def run() -> list[str]:
        seen: list[str] = []
        while True:
            async with database.write(replace(SYSTEM, reason="its time is over")) as tx:
                taken = await service.delete_due(tx)
            if taken is None:
                return seen
            seen.append(taken.version)

    assert await run() == []
    clock.advance(DAY_US / 1e6)
    assert sorted(await run()) == ["1.0.0", "1.1.0"]
    assert await run() == []  # what is kept is looked at again a day later
    async with database.read(projects.mine) as tx:
        left = await service.list_versions(tx, "questions")
        assert [item.version for item in left] == ["1.1.0", "1.2.0", "1.3.0"]
        assert left[0].blocked_by == "it is held: case 4711"
    clock.advance(1 + DAY_US / 1e6)
    assert await run() == ["1.1.0"]
    async with database.read(SYSTEM) as tx:
        events = {item.event: item for item in await read_revisions(tx, 0, 100)}
    deleted = events["registry.dataset_version.deleted"]
    assert (deleted.object_id, deleted.actor) == (due.id, "system")
    assert deleted.reason == "its time is over"
    assert events["registry.dataset_version.deletion_refused"].object_id == held.id


async def test_one_of_several_transactions_gets_a_number(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    hashes = iter(f"{number:02x}" * 32 for number in range(9))

    won, lost = await stores.race(
        database, projects.mine, lambda tx: add(service, tx, "1.0.0", next(hashes))
    )

    assert len(won) == 1
    assert {getattr(error, "code", "") for error in lost} == {"already_exists"}


async def test_a_version_is_deleted_once(
    database: Database, service: DatasetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await add(service, tx, "1.0.0")

    won, lost = await stores.race(
        database, projects.mine, lambda tx: service.delete_version(tx, made.id)
    )

    assert len(won) == 1
    assert {getattr(error, "code", "") for error in lost} <= {"not_found", "precondition_failed"}
